"""What labels measure: millilitres, and the image's values inside them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_medtransformer.errors import InvalidOption, UnsupportedVolume, in_words
from napari_medtransformer.given import one_of, record
from napari_medtransformer.volumes.label_table import Label, LabelNames, label_table, write_label_table
from napari_medtransformer.volumes.lazy import lazy_of
from napari_medtransformer.volumes.numbers import numbers as numbers_of
from napari_medtransformer.volumes.volume import Volume, check_volume


@dataclass(frozen=True)
class LabelStatistics:
    """One label's size and values. volume_ml: voxels times their size. mean, std, low, high: the image's units (HU)."""

    label: Label
    voxels: int
    volume_ml: float
    mean: float
    std: float
    low: float
    high: float


def label_statistics(labels: np.ndarray, volume: Volume, names: LabelNames | None = None) -> list[LabelStatistics]:
    """Statistics of every label that occurs, by number.

    labels: (z, y, x) integers on the volume's grid; names: by number, or Label records. In native units and
    millilitres. Raises UnsupportedVolume if the shape is another, InvalidOption for what are no names.
    """
    check_volume(volume)
    if lazy_of(labels) is None:
        labels = numbers_of(labels, "the labels")
    if labels.dtype.kind not in "bui" or labels.shape != volume.shape:
        raise UnsupportedVolume(
            f"labels of shape {labels.shape} and type {labels.dtype} do not fit the volume of shape {volume.shape} "
            "(z, y, x); give whole numbers on its grid."
        )
    voxel_ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000
    # Slice by slice: of a volume that lies in its file only what is labelled comes into memory.
    labelled, valued = [np.empty(0, labels.dtype)], [np.empty(0)]
    for z in range(volume.shape[0]):
        inside = labels[z] != 0
        if inside.any():
            labelled.append(labels[z][inside])
            valued.append(volume.data[z][inside].astype(np.float64))
    numbers, which = np.unique(np.concatenate(labelled), return_inverse=True)
    values = np.concatenate(valued)
    counts = np.bincount(which, minlength=len(numbers))
    means = np.bincount(which, values, len(numbers)) / np.maximum(counts, 1)
    variances = np.bincount(which, (values - means[which]) ** 2, len(numbers)) / np.maximum(counts, 1)
    low, high = np.full(len(numbers), np.inf), np.full(len(numbers), -np.inf)
    np.minimum.at(low, which, values)
    np.maximum.at(high, which, values)
    table = label_table((int(number) for number in numbers), names)
    return [
        LabelStatistics(
            label,
            int(counts[place]),
            float(counts[place] * voxel_ml),
            float(means[place]),
            float(np.sqrt(variances[place])),
            float(low[place]),
            float(high[place]),
        )
        for place, label in enumerate(table)
    ]


def write_statistics(
    statistics: Sequence[LabelStatistics], path: str | os.PathLike[str], columns: Sequence[str] | None = None
) -> Path:
    """Write names, colours, millilitres and values as CSV or JSON, by the suffix. Raises CannotWrite, InvalidOption.

    columns: which fields of LabelStatistics beside the label; None for all.
    """
    known = ("voxels", "volume_ml", "mean", "std", "low", "high")
    try:
        columns = known if columns is None else tuple(one_of(column, known, "a column") for column in columns)
        statistics = [record(one, LabelStatistics, "LabelStatistics, as label_statistics gives") for one in statistics]
    except TypeError as error:
        raise InvalidOption(f"statistics and columns are lists, not {in_words((statistics, columns))}.") from error
    return write_label_table(
        [one.label for one in statistics],
        path,
        **{column: {one.label.number: getattr(one, column) for one in statistics} for column in columns},
    )
