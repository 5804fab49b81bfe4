"""Other grids: one place in the patient keeps one value, whatever grid it is asked on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_medtransformer.errors import UnsupportedVolume
from napari_medtransformer.volumes import Volume, read_labels, read_volume, resample_isotropic, resample_onto
from napari_medtransformer.volumes.geometry import itk_from_affine, upright_affine
from napari_medtransformer.volumes.sample_data import sample_path


def itk_image(volume: Volume) -> sitk.Image:
    """The volume for SimpleITK, its index order x, y, z."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data))
    spacing, origin, direction = itk_from_affine(volume.grid.affine_ijk)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    return image


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    shape = draw(st.tuples(*[st.integers(2, 9)] * 3))
    affine = upright_affine(shape, draw(st.tuples(*[st.floats(0.5, 4)] * 3)))
    turned = np.eye(4)
    # SimpleITK makes nothing of directions such as 1e-306
    degrees = st.floats(-30, 30).map(lambda angle: round(angle, 6))
    angles = draw(st.one_of(st.just((0.0, 0.0, 0.0)), st.tuples(*[degrees] * 3)))
    turned[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    turned[:3, 3] = draw(st.tuples(*[st.floats(-3, 3)] * 3))
    values = np.random.default_rng(draw(st.integers(0, 99))).normal(size=shape).astype(np.float32)
    return Volume(values, turned @ affine)


@settings(deadline=None, max_examples=40)
@given(volumes(), volumes())
def test_a_volume_on_another_grid_is_what_simpleitk_makes_of_it(source: Volume, target: Volume) -> None:
    ours = resample_onto(source, target)
    theirs = sitk.Resample(
        itk_image(source), itk_image(target), sitk.Transform(), sitk.sitkLinear, float(source.data.min())
    )
    theirs = sitk.GetArrayFromImage(theirs)
    assert ours.data.shape == target.shape
    # Off the very edge of the source, where rounding decides between inside and outside.
    index = source.zyx_from_mm(target.mm_from_zyx(np.argwhere(np.ones(target.shape)))).reshape(*target.shape, 3)
    edge = np.minimum(np.abs(index + 0.5), np.abs(index - np.array(source.shape) + 0.5)).min(axis=-1)
    np.testing.assert_allclose(ours.data[edge > 1e-6], theirs[edge > 1e-6], atol=1e-4)


@given(volumes())
def test_a_volume_on_its_own_grid_is_itself(volume: Volume) -> None:
    np.testing.assert_array_equal(resample_onto(volume, volume).data, volume.data)


@given(volumes(), volumes())
def test_labels_are_never_invented(source: Volume, target: Volume) -> None:
    labels = Volume(np.where(source.data > 0, 7, 0).astype(np.uint8), source.affine)
    moved = resample_onto(labels, target, labels=True)
    assert moved.data.dtype == np.uint8
    assert set(np.unique(moved.data)) <= {0, 7}


def test_labels_of_another_grid_land_on_the_brain_they_belong_to(shared_data: Path) -> None:
    image = read_volume(shared_data / "torchio_brain" / "t2.nii.gz")
    labels = read_labels(shared_data / "torchio_brain" / "t1_seg_gif.nii.gz")
    onto = resample_onto(labels, image, labels=True)
    assert onto.shape == image.shape
    brain = onto.data > 3
    assert 0.05 < brain.mean() < 0.5
    assert image.data[brain].mean() > 2 * image.data[~brain].mean()


@pytest.mark.parametrize("spacing", [None, 2.0, 5.0])
def test_isotropic_voxels_are_cubic_upright_and_cover_the_input(spacing: float | None) -> None:
    tilt = np.eye(4)
    tilt[:3, :3] = Rotation.from_euler("xyz", (20, -10, 5), degrees=True).as_matrix()
    shape = (10, 20, 30)
    volume = Volume(np.ones(shape, np.int16), tilt @ upright_affine(shape, (5, 1, 2)))
    cubic = resample_isotropic(volume, spacing)
    np.testing.assert_allclose(cubic.spacing, spacing or 1.0)
    assert not cubic.is_oblique
    corners = np.array([[z, y, x] for z in (0, 9) for y in (0, 19) for x in (0, 29)])
    assert all(cubic.contains(corner) for corner in cubic.zyx_from_mm(volume.mm_from_zyx(corners)))
    held = resample_isotropic(volume, spacing, labels=True).data.sum() * np.prod(cubic.spacing)
    assert held == pytest.approx(10 * 20 * 30 * 10, rel=0.15)  # millilitres are kept but for the jagged surface


def test_a_straight_isotropic_volume_stays_as_it_is() -> None:
    volume = read_volume(sample_path("example_ct.nii.gz"))
    cubic = resample_isotropic(volume)
    assert cubic.shape == volume.shape
    np.testing.assert_allclose(cubic.affine, volume.affine, atol=1e-4)
    np.testing.assert_allclose(cubic.data, volume.data, atol=0.1)


@pytest.mark.parametrize(
    ("spacing", "said"), [(0, "above 0"), (-1, "above 0"), (float("nan"), "above 0"), (1e-3, "larger")]
)
def test_a_spacing_that_makes_no_grid_is_refused(spacing: float, said: str) -> None:
    with pytest.raises(UnsupportedVolume, match=said):
        resample_isotropic(Volume.from_array(np.zeros((9, 9, 9))), spacing)
