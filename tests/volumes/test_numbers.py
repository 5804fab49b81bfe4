"""Arrays as users hand them over become numbers, or are refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_medtransformer.errors import CannotWrite, InvalidOption, UnreadableFile, UnsupportedVolume
from napari_medtransformer.volumes import Volume, read_volume, write_heatmap, write_labels
from napari_medtransformer.volumes.numbers import numbers

VALUES = np.random.default_rng(0).normal(100, 40, (3, 4, 5)).astype(np.float32)
READ_ONLY = VALUES.copy()
READ_ONLY.setflags(write=False)


@pytest.mark.parametrize(
    "given",
    [
        VALUES.tolist(),
        VALUES.astype(">f4"),
        READ_ONLY,
        np.asfortranarray(VALUES),
        VALUES[::-1, :, ::-1][::-1, :, ::-1],
        np.ma.masked_greater(VALUES, 1e9),
        VALUES.astype(np.longdouble),
        torch.from_numpy(VALUES),
        torch.from_numpy(VALUES).requires_grad_(),
        torch.from_numpy(VALUES).to_sparse(),
    ],
    ids=["list", "big-endian", "read-only", "fortran", "strides", "masked", "long double", "torch", "graph", "sparse"],
)
def test_numbers_of_any_kind_make_the_same_volume(given) -> None:
    data = Volume.from_array(given).data
    assert type(data) is np.ndarray
    assert data.dtype.isnative
    assert data.dtype.itemsize <= 8
    np.testing.assert_array_equal(data, VALUES)


def test_bfloat16_keeps_its_values() -> None:
    half = torch.from_numpy(VALUES).bfloat16()
    np.testing.assert_array_equal(numbers(half, "x"), half.float().numpy())


def test_an_array_is_not_copied() -> None:
    assert numbers(VALUES, "x") is VALUES


@pytest.mark.parametrize("given", [None, "text", [[1, 2], [3]], VALUES.astype(complex), VALUES.astype(object), {1: 2}])
def test_what_is_no_array_of_numbers_is_refused_in_one_line(given) -> None:
    for make in (Volume.from_array, lambda data: Volume(data, np.eye(4))):
        with pytest.raises(UnsupportedVolume, match="the volume") as told:
            make(given)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("shape", [(), (4,), (4, 5), (1, 3, 4, 5), (0, 4, 5)])
def test_an_array_of_other_dimensions_is_no_volume(shape) -> None:
    with pytest.raises(UnsupportedVolume, match="dimensions|empty"):
        Volume.from_array(np.zeros(shape))


@pytest.mark.parametrize("spacing", [(0, 1, 1), (-1, 1, 1), (np.nan, 1, 1), (np.inf, 1, 1), (1, 1), 2.0, "abc", None])
def test_a_spacing_is_three_millimetres_above_zero(spacing) -> None:
    with pytest.raises(UnsupportedVolume, match="the spacing"):
        Volume.from_array(VALUES, spacing)


@pytest.mark.parametrize("affine", [None, "x", np.eye(3), np.eye(4) * 1j, np.eye(4) * np.nan])
def test_an_affine_is_sixteen_usable_numbers(affine) -> None:
    with pytest.raises(UnsupportedVolume, match="affine"):
        Volume(VALUES, affine)


@pytest.mark.parametrize("write", [write_labels, write_heatmap])
def test_what_cannot_be_written_leaves_nothing(write, tmp_path: Path) -> None:
    volume = Volume.from_array(VALUES)
    for given in (None, "x", [[1], [1, 2]], np.zeros((3, 4, 5), complex)):
        with pytest.raises(CannotWrite):
            write(given, volume, tmp_path / "a.nii.gz")
    for path in (None, 5, b"a.nii", "a\0b.nii", tmp_path / ("x" * 300 + ".nii")):
        with pytest.raises(CannotWrite):
            write(np.zeros(volume.shape, int), volume, path)
    with pytest.raises(CannotWrite, match="for a Volume"):
        write(np.zeros(volume.shape, int), VALUES, tmp_path / "a.nii.gz")
    assert not list(tmp_path.iterdir())


def test_labels_of_a_torch_tensor_are_written(tmp_path: Path) -> None:
    volume = Volume.from_array(VALUES)
    labels = torch.from_numpy((VALUES > 100).astype(np.int64))
    written = read_volume(write_labels(labels, volume, tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(np.asarray(written.data), labels.numpy())


@pytest.mark.parametrize("names", ["liver", ["liver"], {0: "x"}, {-1: "x"}, {"a": "b"}, 5])
def test_names_of_labels_that_are_none_are_refused(names, tmp_path: Path) -> None:
    volume = Volume.from_array(VALUES)
    with pytest.raises(InvalidOption, match="names of labels"):
        write_labels(np.ones(volume.shape, int), volume, tmp_path / "a.seg.nrrd", names=names)


@pytest.mark.parametrize("path", [None, 5, b"a.nii"])
def test_what_is_no_path_is_not_read(path) -> None:
    with pytest.raises(UnreadableFile, match="is no path"):
        read_volume(path)
