"""Folders of labelled volumes become cases; slices across sparse labels are left alone."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_medtransformer.errors import UnreadableFile, UnsupportedVolume
from napari_medtransformer.training.cases import drawn_plane, read_cases
from napari_medtransformer.training.slices import draw_plane


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_plane_that_was_drawn_in_is_the_one_with_gaps(axis: int) -> None:
    labels = np.zeros((20, 24, 28), np.uint8)
    for index in (4, 9, 12):
        slab = [slice(5, 15)] * 3
        slab[axis] = slice(index, index + 1)
        labels[tuple(slab)] = 1
    assert drawn_plane(labels) == axis


def test_labels_without_gaps_were_drawn_in_axial_slices() -> None:
    labels = np.zeros((20, 24, 28), np.uint8)
    labels[5:9, 3:9, 4:12] = 1
    assert drawn_plane(labels) == 0


def test_own_cases_draw_only_labelled_slices_of_that_plane(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    image = np.random.default_rng(0).normal(size=(30, 32, 34)).astype(np.float32)
    labels = np.zeros(image.shape, np.uint8)
    labels[10:20, 12:20, [8, 15]] = 1  # nibabel's order: x, y, z
    nib.save(nib.Nifti1Image(image, np.diag([-1.0, -1, 1, 1])), tmp_path / "images" / "a.nii.gz")
    nib.save(nib.Nifti1Image(labels, np.diag([-1.0, -1, 1, 1])), tmp_path / "labels" / "a.nii.gz")
    (case,) = read_cases(tmp_path)
    assert case.axes == (0,)
    for seed in range(10):
        _, drawn, _ = draw_plane(case, np.random.default_rng(seed))
        assert drawn.shape == (32, 30)
        assert drawn.sum() == 80
    (whole,) = read_cases(tmp_path, all_planes=True)
    assert whole.axes == (0, 1, 2)


def test_a_folder_with_half_of_the_recipes_sets_names_the_others(tmp_path: Path) -> None:
    (tmp_path / "totalsegmentator").mkdir()
    with pytest.raises(UnreadableFile, match="medicaldecathlon") as raised:
        list(read_cases(tmp_path))
    assert "TotalSegmentator" not in str(raised.value)


def test_volumes_of_which_nothing_is_labelled_are_left_out_with_a_warning(tmp_path: Path) -> None:
    labels = np.zeros((8, 8, 8), np.uint8)
    for name, filled in (("a", 0), ("b", 1), ("c", 0)):
        labels[2:4] = filled
        for kind, values in (("images", np.arange(512, dtype=np.float32).reshape(8, 8, 8)), ("labels", labels)):
            (tmp_path / kind).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / kind / f"{name}.nii.gz")
    with pytest.warns(UserWarning, match=r"nothing is labelled there: a\.nii\.gz, c\.nii\.gz\."):
        assert [case.name for case in read_cases(tmp_path)] == ["b"]
    for kind in ("images", "labels"):
        (tmp_path / kind / "b.nii.gz").unlink()
    with pytest.raises(UnsupportedVolume, match="label some slices"):
        list(read_cases(tmp_path))
