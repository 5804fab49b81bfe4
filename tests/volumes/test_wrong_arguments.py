"""Whatever a function on volumes is given of another type is one error of this package, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from wrong_values import assert_refused

from napari_medtransformer.errors import MedTransformerError
from napari_medtransformer.volumes import (
    FileGrid,
    Label,
    Volume,
    Window,
    apply_window,
    default_window,
    label_statistics,
    read_frames,
    read_label_names,
    read_label_table,
    read_labels,
    read_volume,
    resample_isotropic,
    resample_onto,
    write_heatmap,
    write_label_table,
    write_labels,
    write_statistics,
    write_volume,
)

VOLUME = Volume.from_array(np.random.default_rng(0).normal(100, 30, (3, 4, 5)).astype(np.float32))
LABELS = (VOLUME.data > 100).astype(np.uint8)
FILE = "given.nii.gz"

# Which of WRONG is right there: after it.
CALLS = {
    "file": (read_volume, ""),
    "modality": (lambda x: read_volume(FILE, modality=x), "None"),
    "series": (lambda x: read_volume(FILE, series=x), "None"),
    "frame": (lambda x: read_volume(FILE, frame=x), "None"),
    "resampling": (lambda x: read_volume(FILE, resample=x), ""),
    "file of frames": (read_frames, ""),
    "series of frames": (lambda x: read_frames(FILE, series=x), "None"),
    "file of labels": (read_labels, ""),
    "file of names": (read_label_names, ""),
    "table": (read_label_table, ""),
    "labels of a table": (lambda x: write_label_table(x, "a.csv"), ""),
    "table written": (lambda x: write_label_table([], x), ""),
    "column": (lambda x: write_label_table([], "a.csv", ml=x), ""),
    "volume written": (lambda x: write_volume(x, "a.nii.gz"), ""),
    "written as": (lambda x: write_volume(VOLUME, x), ""),
    "labels": (lambda x: write_labels(x, VOLUME, "a.nii.gz"), ""),
    "labels' volume": (lambda x: write_labels(LABELS, x, "a.nii.gz"), ""),
    "labels' names": (lambda x: write_labels(LABELS, VOLUME, "a.nii.gz", names=x), "None"),
    "heatmap": (lambda x: write_heatmap(x, VOLUME, "a.nii.gz"), ""),
    "measured": (lambda x: label_statistics(x, VOLUME), ""),
    "measured in": (lambda x: label_statistics(LABELS, x), ""),
    "names of the measured": (lambda x: label_statistics(LABELS, VOLUME, x), "None"),
    "statistics": (lambda x: write_statistics(x, "a.csv"), ""),
    "statistics' file": (lambda x: write_statistics([], x), ""),
    "statistics' columns": (lambda x: write_statistics([], "a.csv", x), "None"),
    "resampled": (resample_isotropic, ""),
    "spacing": (lambda x: resample_isotropic(VOLUME, x), "None"),
    "resampled as labels": (lambda x: resample_isotropic(VOLUME, labels=x), ""),
    "resampled onto": (lambda x: resample_onto(VOLUME, x), ""),
    "data": (Volume.from_array, ""),
    "data's spacing": (lambda x: Volume.from_array(VOLUME.data, x), ""),
    "data's modality": (lambda x: Volume.from_array(VOLUME.data, modality=x), ""),
    "affine": (lambda x: Volume(VOLUME.data, x), ""),
    "source": (lambda x: Volume(VOLUME.data, np.eye(4), source=x), "None"),
    "window asked for": (lambda x: Volume(VOLUME.data, np.eye(4), requested_window=x), "None"),
    "levels": (lambda x: Volume(VOLUME.data, np.eye(4), coarser=x), ""),
    "voxel": (VOLUME.mm_from_zyx, ""),
    "place": (VOLUME.zyx_from_mm, ""),
    "voxel inside": (VOLUME.contains, ""),
    "grid's file": (lambda x: FileGrid(x, "nifti", (1, 2, 3), np.eye(4), (1, 2, 3)), ""),
    "grid's format": (lambda x: FileGrid(Path("a"), x, (1, 2, 3), np.eye(4), (1, 2, 3)), "text"),
    "grid's axes": (lambda x: FileGrid(Path("a"), "nifti", x, np.eye(4), (1, 2, 3)), "bytes"),
    "grid's affine": (lambda x: FileGrid(Path("a"), "nifti", (1, 2, 3), x, (1, 2, 3)), ""),
    "low": (lambda x: Window(x, 2), "half"),
    "high": (lambda x: Window(0, x), ""),
    "window's name": (lambda x: Window(0, 1, x), "text"),
    "level": (lambda x: Window.from_level_width(x, 2), "half"),
    "width": (lambda x: Window.from_level_width(0, x), ""),
    "label": (lambda x: Label(x, "liver", (0, 1, 0)), ""),
    "label's name": (lambda x: Label(1, x, (0, 1, 0)), "text"),
    "label's colour": (lambda x: Label(1, "liver", x), ""),
    "window": (lambda x: apply_window(VOLUME.data, x), ""),
    "image": (lambda x: apply_window(x, (0, 1)), "matrix tensor"),
    "image's modality": (lambda x: default_window(VOLUME.data, x), "None"),
}


@pytest.mark.parametrize("called", CALLS)
def test_what_is_of_another_type_is_refused_in_one_line(called: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_volume(VOLUME, FILE)
    call, right = CALLS[called]
    assert_refused(call, right)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_names_are_checked_for_formats_that_keep_none(tmp_path: Path) -> None:
    with pytest.raises(MedTransformerError, match="the names of labels are"):
        write_labels(LABELS, VOLUME, tmp_path / "a.nii.gz", names={"a": "liver"})
