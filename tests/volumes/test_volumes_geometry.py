"""The canonical frame against nibabel and SimpleITK: every order of axes, flips, anisotropic and oblique grids."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_medtransformer.volumes import FileGrid, Volume, geometry, read_labels, read_volume, write_labels

# NIfTI keeps affines in float32: 2**-24 of coordinates up to 1000 mm is 6e-5 mm.
TOLERANCE_MM = 1e-4
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))

one_test_file = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def signed_permutation(permutation: tuple[int, ...], signs: tuple[int, ...]) -> np.ndarray:
    matrix = np.zeros((3, 3))
    matrix[list(permutation), range(3)] = signs
    return matrix


@st.composite
def grids(draw: st.DrawFn) -> tuple[tuple[int, int, int], np.ndarray]:
    """A shape (i, j, k) and an affine to RAS: any order and sense of axes, anisotropic, tilted up to 40 degrees."""
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    permutation, signs = draw(st.sampled_from(ORIENTATIONS))
    spacing = draw(st.tuples(*[st.floats(0.0625, 8, width=32)] * 3))
    angles = draw(st.one_of(st.just((0.0, 0.0, 0.0)), st.tuples(*[st.floats(-40, 40)] * 3)))
    origin = draw(st.tuples(*[st.floats(-500, 500, width=32)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ signed_permutation(
        permutation, signs
    )
    affine[:3, :3] *= spacing
    affine[:3, 3] = origin
    return shape, affine


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


@one_test_file
@given(grids())
def test_every_voxel_lies_where_nibabel_and_simpleitk_put_it(tmp_path: Path, grid) -> None:
    shape, affine = grid
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    path = tmp_path / "volume.nii"
    save(path, array, affine)
    volume = read_volume(path)
    by_nibabel, by_itk = nib.load(path), sitk.ReadImage(str(path))
    for zyx in itertools.product(*(sorted({0, n // 2, n - 1}) for n in volume.shape)):
        ijk = tuple(int(i) for i in volume.source.file_index(zyx))
        assert volume.data[zyx] == by_nibabel.dataobj[ijk] == by_itk[ijk] == array[ijk]
        position = volume.mm_from_zyx(zyx)
        np.testing.assert_allclose(position, nib.affines.apply_affine(by_nibabel.affine, ijk), atol=TOLERANCE_MM)
        lps = np.array(by_itk.TransformIndexToPhysicalPoint(ijk))
        np.testing.assert_allclose(position, lps * [-1, -1, 1], atol=TOLERANCE_MM)
        np.testing.assert_allclose(volume.zyx_from_mm(position), zyx, atol=1e-6)


@pytest.mark.parametrize(("permutation", "signs"), ORIENTATIONS)
def test_a_straight_file_of_any_order_grows_toward_superior_posterior_left(permutation, signs) -> None:
    affine = np.eye(4)
    affine[:3, :3] = signed_permutation(permutation, signs) * (1.0, 2.0, 3.0)
    grid = FileGrid(Path("any.nii"), "nifti", (3, 4, 5), affine, (3, 4, 5))
    directions = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    assert np.array_equal(directions, [[0, 0, -1], [0, -1, 0], [1, 0, 0]])  # columns z, y, x in R, A, S
    assert geometry.direction_letters(grid.affine) == (("I", "S"), ("A", "P"), ("R", "L"))
    assert not geometry.is_oblique(grid.affine)


@given(grids(), st.data())
def test_file_index_and_its_inverse_are_exact_and_agree_with_the_arrays(grid, data) -> None:
    shape, affine = grid
    file_grid = FileGrid(Path("any.nii"), "nifti", shape, affine, shape)
    array = np.arange(np.prod(shape)).reshape(shape)
    canonical = file_grid.to_canonical(array)
    assert canonical.shape == tuple(file_grid.shape[axis] for axis in file_grid.order.permutation)
    assert np.array_equal(file_grid.to_file_order(canonical), array)
    zyx = np.array(data.draw(st.tuples(*(st.integers(0, n - 1) for n in canonical.shape))))
    ijk = file_grid.file_index(zyx)
    assert ijk.dtype.kind == "i"
    assert array[tuple(ijk)] == canonical[tuple(zyx)]
    assert np.array_equal(file_grid.zyx_from_file_index(ijk), zyx)
    np.testing.assert_allclose(file_grid.mm_from_zyx(zyx), nib.affines.apply_affine(affine, ijk), atol=1e-9)


@one_test_file
@given(grids(), st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]), st.booleans())
def test_writing_labels_and_reading_them_is_the_identity(tmp_path: Path, grid, dtype, packed) -> None:
    shape, affine = grid
    path = tmp_path / ("volume.nii.gz" if packed else "volume.nii")
    save(path, np.zeros(shape, dtype), affine)
    volume = read_volume(path)
    labels = np.random.default_rng(0).integers(0, 300, volume.shape)
    written = write_labels(labels, volume, tmp_path / "labels.nii.gz")
    assert np.array_equal(read_labels(written).data, labels)
    before, after = nib.load(path), nib.load(written)
    assert after.shape == before.shape
    assert np.array_equal(after.affine, before.affine)
    assert np.array_equal(read_labels(written).affine, volume.affine)
    for field in ("xyzt_units", "sform_code", "qform_code", "pixdim", "srow_x", "srow_y", "srow_z", "qoffset_x"):
        assert np.array_equal(after.header[field], before.header[field]), field


@given(grids())
def test_itk_geometry_there_and_back_is_the_same_affine(grid) -> None:
    _, affine = grid
    np.testing.assert_allclose(geometry.affine_from_itk(*geometry.itk_from_affine(affine)), affine, atol=1e-9)


@given(grids())
def test_the_world_of_a_layer_keeps_distances_in_millimetres(grid) -> None:
    shape, affine = grid
    file_grid = FileGrid(Path("a"), "nifti", shape, affine, shape)
    volume = Volume(file_grid.to_canonical(np.zeros(shape)), file_grid.affine)
    placement = volume.placement
    corners = np.array(list(itertools.product(*((0, n) for n in volume.shape))))
    world = corners * placement.scale + placement.translate
    patient = volume.mm_from_zyx(corners)
    # Of the scanner's origin as well: the layer's world is the patient turned about it, nothing more.
    np.testing.assert_allclose(np.linalg.norm(world, axis=1), np.linalg.norm(patient, axis=1), rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(world - world[0], axis=1), np.linalg.norm(patient - patient[0], axis=1), rtol=1e-9, atol=1e-6
    )


def test_a_straight_volume_lies_in_the_world_at_its_patient_position() -> None:
    affine = np.array([[0, 0, -2, 30.0], [0, -3, 0, 20], [5, 0, 0, -10], [0, 0, 0, 1]])
    placement = geometry.layer_placement(affine)
    assert placement.scale == (5, 3, 2)
    assert placement.translate == (-10, -20, -30)  # S, P, L


def test_an_oblique_volume_names_its_axes_by_more_than_one_letter() -> None:
    tilt = np.eye(4)
    tilt[:3, :3] = Rotation.from_euler("x", 20, degrees=True).as_matrix()
    upright = np.array([[0, 0, -1, 0.0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    volume = Volume(np.zeros((2, 2, 2)), tilt @ upright)
    assert volume.is_oblique
    # Turned by 20 degrees from anterior toward superior: the z axis leans to posterior, the y axis to inferior.
    assert volume.direction_letters == (("IA", "SP"), ("AS", "PI"), ("R", "L"))


def test_a_volume_made_in_memory_is_upright_about_the_origin() -> None:
    volume = Volume.from_array(np.zeros((3, 4, 5)), (2.0, 1.0, 0.5))
    assert volume.spacing == (2, 1, 0.5)
    assert volume.direction_letters == (("I", "S"), ("A", "P"), ("R", "L"))
    np.testing.assert_allclose(volume.mm_from_zyx((1, 1.5, 2)), 0, atol=1e-12)
    assert volume.grid.to_canonical(np.empty(volume.grid.shape)).shape == volume.shape
    assert np.array_equal(volume.grid.affine, volume.affine)


@pytest.mark.parametrize(
    ("affine", "said"),
    [
        (np.zeros((4, 4)) + np.diag([0, 0, 0, 1]), "size of 0"),
        (np.diag([1, np.nan, 1, 1]), "not finite"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "singular"),
        (np.eye(3), r"\(3, 3\)"),
    ],
)
def test_an_affine_that_is_no_geometry_is_refused_in_words(affine, said) -> None:
    assert re.search(said, geometry.geometry_fault(np.asarray(affine, dtype=float)) or "")


def test_tiny_voxels_are_no_singular_affine() -> None:
    assert geometry.geometry_fault(np.diag([1e-4, 1e-4, 1e-4, 1])) is None
