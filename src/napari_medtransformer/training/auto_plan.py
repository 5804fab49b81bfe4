"""What a folder of labelled volumes asks for: classes, voxel size, intensities, and the windows that suit them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from napari_medtransformer.errors import UnreadableFile, UnsupportedVolume
from napari_medtransformer.models.compact import MULTIPLE
from napari_medtransformer.models.scaling import FixedRange, Scaling, ZScore
from napari_medtransformer.progress import Progress, Result, Steps
from napari_medtransformer.training.auto_cases import CaseFiles, read_pair
from napari_medtransformer.volumes.intensity import sample_values
from napari_medtransformer.volumes.label_table import Label, as_labels, read_label_table

# Voxels per axis of a window, at most: what trains on a processor in reasonable time.
LARGEST_AXIS = 64
# Windows hold all but the largest volumes whole, where they are small enough.
_SHARE_HELD = 95
# Of labelled voxels, as nnU-Net clips CT (Isensee et al. 2021).
_CT_PERCENTILES = (0.5, 99.5)
# Labelled voxels of a case, from everywhere in it, that its percentiles are taken of.
_INTENSITIES = 50_000
# More classes than that are no structures but a mistake, such as an image among the labels.
_MOST_CLASSES = 250


@dataclass(frozen=True)
class AutoPlan:
    """How a folder's volumes are prepared. Everything (z, y, x).

    values: label values of the classes 1, 2, … spacing_mm: of the training. window: voxels. modality: of every image,
    "mixed" if they differ. clip: native intensities that become 0 and 1; None: each volume's own mean and deviation.
    """

    values: tuple[int, ...]
    spacing_mm: tuple[float, float, float]
    window: tuple[int, int, int]
    modality: str
    clip: tuple[float, float] | None

    @property
    def scaling(self) -> Scaling:
        """How native intensities become the network's."""
        return ZScore() if self.clip is None else FixedRange(*self.clip)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def plan_training(
    files: Sequence[CaseFiles],
    folder: Path,
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    window: tuple[int, int, int] | None = None,
) -> Steps[AutoPlan]:
    """Look at every case once: yields progress, ends with the plan.

    spacing_mm, window: instead of the median voxel size and the fitting window. Raises UnreadableFile and
    UnsupportedVolume, naming the file at fault.
    """
    shapes, spacings, modalities, values, intensities = [], [], set(), set(), []
    for i, case in enumerate(files):
        volume, labels = read_pair(case)
        shapes.append(volume.shape)
        spacings.append(volume.spacing)
        modalities.add(volume.modality)
        values |= {int(v) for v in np.unique(labels)} - {0}
        inside = np.asarray(volume.data)[labels > 0]
        intensities.append(sample_values(inside[:: 1 + inside.size // _INTENSITIES]))
        yield Progress(i + 1, len(files), f"reading {case.name}")
    if not values:
        raise UnsupportedVolume(f"the labels in {folder} hold nothing but 0, the background; label some structures.")
    if len(values) > _MOST_CLASSES:
        raise UnsupportedVolume(
            f"the labels in {folder} hold {len(values)} different values; expected a number per structure. "
            "Are they images?"
        )
    z, y, x = (round(float(s), 4) for s in (spacing_mm or np.median(np.array(spacings), axis=0)))
    sizes = np.array(shapes) * np.array(spacings) / (z, y, x)
    classes = tuple(sorted(values))
    clip = None
    if modalities == {"CT"}:
        low, high = np.percentile(np.concatenate(intensities), _CT_PERCENTILES)
        clip = (float(round(low)), float(max(round(high), round(low) + 1)))
    yield Result(
        AutoPlan(
            values=classes,
            spacing_mm=(z, y, x),
            window=window or fitting_window(np.percentile(sizes, _SHARE_HELD, axis=0)),
            modality=modalities.pop() if len(modalities) == 1 else "mixed",
            clip=clip,
        )
    )


def fitting_window(size: Sequence[float]) -> tuple[int, int, int]:
    """The least window that holds a volume of `size` voxels (z, y, x), no axis above LARGEST_AXIS."""
    z, y, x = (min(LARGEST_AXIS, MULTIPLE * max(1, math.ceil(round(float(n)) / MULTIPLE))) for n in size)
    return z, y, x


def named_labels(folder: Path) -> list[Label]:
    """Labels of labels.csv or labels.json, or of dataset.json as the Decathlon and nnU-Net write it.

    Empty if there is no such file. Raises UnreadableFile.
    """
    for name in ("labels.csv", "labels.json"):
        if (folder / name).is_file():
            return read_label_table(folder / name)
    path = folder / "dataset.json"
    if not path.is_file():
        return []
    try:
        given = json.loads(path.read_text(encoding="utf-8"))["labels"].items()
        # {"1": "liver"} in the Decathlon, {"liver": 1} in nnU-Net.
        pairs = [(int(a), str(b)) if str(a).isdigit() else (int(b), str(a)) for a, b in given]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableFile(
            f'{path} names no labels: {error!r}; expected "labels": {{"1": "liver", …}} or {{"liver": 1, …}}.'
        ) from error
    return as_labels({value: name for value, name in pairs if value > 0})
