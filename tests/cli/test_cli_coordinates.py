"""Typed coordinates land on the voxel of the file that they name, whatever its axes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medtransformer.cli.coordinates import (
    TypedPoint,
    as_file_index,
    box_zyx,
    parse_axis,
    parse_box,
    parse_point,
    parse_query,
    point_zyx,
)
from napari_medtransformer.errors import InvalidPrompt, PointOutsideVolume
from napari_medtransformer.volumes import read_volume

SHAPE = (7, 9, 11)


def oriented_file(folder: Path, codes: str) -> Path:
    """A NIfTI of random values whose axes run toward the three letters of `codes`, 2 × 3 × 4 mm."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (letter, mm) in enumerate(zip(codes, (2.0, 3.0, 4.0))):
        row = "RAS".find(letter) if letter in "RAS" else "LPI".find(letter)
        affine[row, axis] = mm if letter in "RAS" else -mm
    affine[:3, 3] = (-20, 30, -5)
    data = np.random.default_rng(0).integers(0, 30000, SHAPE).astype(np.int16)
    path = folder / f"{codes}.nii"
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


@pytest.fixture(scope="module", params=["RAS", "LPS", "LAS", "PSR", "SRA", "ILP"])
def volume_and_image(request, tmp_path_factory):
    path = oriented_file(tmp_path_factory.mktemp("orient"), request.param)
    return read_volume(path), nib.load(path)


@settings(max_examples=25, deadline=None)
@given(st.tuples(*(st.integers(0, n - 1) for n in SHAPE)))
def test_a_typed_voxel_is_the_files_own(volume_and_image, ijk):
    volume, image = volume_and_image
    zyx = point_zyx(parse_point(",".join(map(str, ijk))), volume, mm=False)
    assert volume.data[tuple(int(c) for c in zyx)] == image.get_fdata()[ijk]
    assert tuple(as_file_index(zyx, volume)) == ijk


@settings(max_examples=25, deadline=None)
@given(st.tuples(*(st.integers(0, n - 1) for n in SHAPE)))
def test_typed_millimetres_are_the_patients(volume_and_image, ijk):
    volume, image = volume_and_image
    ras = nib.affines.apply_affine(image.affine, ijk)
    zyx = point_zyx(TypedPoint(tuple(ras)), volume, mm=True)
    assert volume.data[tuple(round(c) for c in zyx)] == image.get_fdata()[ijk]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("mm", [False, True])
def test_a_typed_box_holds_exactly_the_voxels_of_the_file(volume_and_image, axis, mm):
    volume, image = volume_and_image
    file_axis = volume.grid.order.permutation[axis]
    start, stop = np.array([1, 2, 3]), np.array([4, 6, 9])
    stop[file_axis] = start[file_axis] + 1
    inside = np.zeros(SHAPE, bool)
    inside[tuple(slice(a, b) for a, b in zip(start, stop))] = True
    if mm:  # the corners of the block of voxels
        corners = nib.affines.apply_affine(image.affine, np.array([start, stop]) - 0.5)
        text = ",".join(f"{c}" for c in corners.ravel())
    else:
        text = ",".join(map(str, [*start, *stop]))
    box_start, box_stop = box_zyx(parse_box(text), volume, axis, mm=mm)
    filled = np.zeros(volume.shape, bool)
    ends = [b + 1 if a == axis else b for a, b in enumerate(box_stop)]
    filled[tuple(slice(round(a), round(b)) for a, b in zip(box_start, ends))] = True
    np.testing.assert_array_equal(volume.grid.to_file_order(filled), inside)


def test_a_box_may_name_its_slice_twice_or_as_a_half_open_range(volume_and_image):
    volume, _ = volume_and_image
    file_axis = volume.grid.order.permutation[0]
    start, same, following = [1, 2, 3], [4, 6, 9], [4, 6, 9]
    same[file_axis], following[file_axis] = start[file_axis], start[file_axis] + 1
    boxes = [box_zyx(parse_box(",".join(map(str, [*start, *stop]))), volume, 0, mm=False) for stop in (same, following)]
    assert boxes[0] == boxes[1]


def test_a_box_over_several_slices_is_refused(volume_and_image):
    volume, _ = volume_and_image
    with pytest.raises(InvalidPrompt, match="several slices"):
        box_zyx(parse_box("1,1,1,4,4,4"), volume, 0, mm=False)


def test_a_point_or_box_outside_says_where_the_volume_is(volume_and_image):
    volume, _ = volume_and_image
    with pytest.raises(PointOutsideVolume, match="its voxels run from 0,0,0 to 6,8,10"):
        point_zyx(parse_point("7,0,0"), volume, mm=False)
    with pytest.raises(PointOutsideVolume, match=r"reaches from .* mm"):
        point_zyx(parse_point("900,0,0"), volume, mm=True)
    corner = [0, 0, 0, *SHAPE]
    file_axis = volume.grid.order.permutation[1]
    corner[3 + file_axis] = 1
    corner[3 + (file_axis + 1) % 3] += 1
    with pytest.raises(PointOutsideVolume, match="leaves"):
        box_zyx(parse_box(",".join(map(str, corner))), volume, 1, mm=False)


def test_a_point_is_inside_unless_it_says_otherwise():
    assert parse_point("1,2,3") == TypedPoint((1, 2, 3), positive=True)
    assert parse_point("1,2,3,1") == TypedPoint((1, 2, 3), positive=True)
    assert parse_point(" 1, 2.5,-3,0") == TypedPoint((1, 2.5, -3), positive=False)


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4", "1,2,3,0,1", "a,b,c", "1,2,nan", "1,2,inf", "1;2;3"])
def test_a_malformed_point_is_refused_with_the_right_form(text):
    with pytest.raises(InvalidPrompt, match=r"I,J,K|write 1 for inside"):
        parse_point(text)


@pytest.mark.parametrize(
    ("parse", "text"), [(parse_query, "1,2"), (parse_query, "1,2,3,1"), (parse_box, "1,2,3"), (parse_axis, "3")]
)
def test_other_malformed_words_are_refused(parse, text):
    with pytest.raises(InvalidPrompt, match="write"):
        parse(text)


def test_axes_have_names_and_numbers():
    assert [parse_axis(word) for word in ("0", "coronal", "Sagittal")] == [0, 1, 2]
