"""NRRD, MetaImage, NumPy and pictures: one canonical volume whatever the format, and back onto the file's own grid."""

from __future__ import annotations

import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from napari_medtransformer.errors import CannotWrite, UnreadableFile, UnsupportedVolume
from napari_medtransformer.volumes import (
    Volume,
    file_values,
    read_frames,
    read_labels,
    read_volume,
    write_heatmap,
    write_labels,
)

VALUES = np.random.default_rng(0).integers(-1000, 2000, (4, 5, 6)).astype(np.int16)  # z, y, x of ITK
AXES = [
    np.eye(3),
    np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    np.diag([-1, -1, 1]),
    np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1]]),
]


def itk_image(values: np.ndarray = VALUES, direction: np.ndarray = AXES[0]) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.7, 0.9, 2.5))
    image.SetOrigin((-11.5, 20.25, -300.125))
    image.SetDirection(np.asarray(direction, float).ravel())
    return image


directions = st.builds(
    lambda axes, angles: axes @ Rotation.from_euler("xyz", angles, degrees=True).as_matrix(),
    st.sampled_from(AXES),
    st.one_of(st.just((0.0, 0.0, 0.0)), st.tuples(*[st.floats(-40, 40)] * 3)),
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(directions, st.sampled_from(["image.nrrd", "image.mha", "image.mhd", "image.nhdr"]))
def test_every_voxel_lies_where_itk_puts_it(tmp_path: Path, direction: np.ndarray, name: str) -> None:
    image = itk_image(direction=direction)
    sitk.WriteImage(image, str(tmp_path / name))
    volume = read_volume(tmp_path / name)
    for ijk in ((0, 0, 0), (5, 4, 3), (2, 0, 3)):
        zyx = tuple(volume.source.zyx_from_file_index(ijk))
        assert volume.data[zyx] == image[ijk]
        lps = np.array(image.TransformIndexToPhysicalPoint(ijk))
        np.testing.assert_allclose(volume.mm_from_zyx(zyx), lps * [-1, -1, 1], atol=1e-6)


def test_one_scan_in_five_formats_is_one_volume(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "totalsegmentator" / "dicom"
    dicom = read_volume(folder)
    image = sitk.GetImageFromArray(dicom.source.to_file_order(dicom.data).transpose(2, 1, 0))
    from napari_medtransformer.volumes.geometry import itk_from_affine

    spacing, origin, direction = itk_from_affine(dicom.source.affine_ijk)
    image.SetSpacing(spacing), image.SetOrigin(origin), image.SetDirection(direction)
    for name in ("a.nii", "a.nii.gz", "a.nrrd", "a.mha"):
        sitk.WriteImage(image, str(tmp_path / name), useCompression=name == "a.nrrd")
        volume = read_volume(tmp_path / name)
        assert np.array_equal(volume.data, dicom.data), name
        np.testing.assert_allclose(volume.affine, dicom.affine, atol=1e-4, err_msg=name)  # NIfTI keeps float32
        assert volume.modality == "CT"


@pytest.mark.parametrize("source", ["image.nrrd", "image.mha", "image.nii.gz"])
@pytest.mark.parametrize("target", ["labels.nrrd", "labels.seg.nrrd", "labels.mha", "labels.nii.gz"])
@pytest.mark.parametrize("axes", range(len(AXES)))
def test_labels_land_on_the_grid_of_any_format_in_any_other(
    tmp_path: Path, source: str, target: str, axes: int
) -> None:
    image = itk_image(direction=AXES[axes])
    sitk.WriteImage(image, str(tmp_path / source))
    volume = read_volume(tmp_path / source)
    labels = np.random.default_rng(1).integers(0, 300, volume.shape)
    written = write_labels(labels, volume, tmp_path / target)
    by_itk = sitk.ReadImage(str(written))
    assert by_itk.GetSize() == image.GetSize()
    np.testing.assert_allclose(by_itk.GetSpacing(), image.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(by_itk.GetOrigin(), image.GetOrigin(), rtol=1e-6)
    np.testing.assert_allclose(by_itk.GetDirection(), image.GetDirection(), atol=1e-6)
    assert np.array_equal(sitk.GetArrayFromImage(by_itk).transpose(2, 1, 0), volume.source.to_file_order(labels))
    assert np.array_equal(read_labels(written).data, labels)


@pytest.mark.parametrize("name", ["image.nrrd", "image.mha"])
def test_the_affine_is_written_back_bit_for_bit(tmp_path: Path, name: str) -> None:
    sitk.WriteImage(itk_image(direction=Rotation.from_euler("xyz", (3, 5, 7)).as_matrix()), str(tmp_path / name))
    volume = read_volume(tmp_path / name)
    written = write_labels(np.ones(volume.shape, np.uint8), volume, tmp_path / f"labels{Path(name).suffix}")
    assert np.array_equal(read_labels(written).source.affine_ijk, volume.source.affine_ijk)


@pytest.mark.parametrize("name", ["heads.nrrd", "heads.mha"])
def test_heads_of_a_heatmap_are_the_last_axis_or_channels(tmp_path: Path, name: str) -> None:
    volume = Volume.from_array(VALUES, (2.5, 0.9, 0.7))
    heads = np.random.default_rng(0).random((3, *volume.shape), np.float32)
    image = sitk.ReadImage(str(write_heatmap(heads, volume, tmp_path / name)))
    array = sitk.GetArrayFromImage(image)
    assert np.array_equal(np.moveaxis(array, -1, 0) if array.shape[-1] == 3 else array, heads)


def test_time_points_are_chosen_by_name_and_never_sliced_silently(tmp_path: Path) -> None:
    values = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "time.nii")
    with pytest.raises(UnsupportedVolume, match=r"4 dimensions \(2, 3, 4, 5\).*frame=0 to 4"):
        read_volume(tmp_path / "time.nii")
    with pytest.raises(UnsupportedVolume, match="no frame 5"):
        read_volume(tmp_path / "time.nii", frame=5)
    frames = read_frames(tmp_path / "time.nii")
    assert len(frames) == 5
    for place, frame in enumerate(frames):
        assert np.array_equal(frame.source.to_file_order(frame.data), values[..., place])
        assert np.array_equal(read_volume(tmp_path / "time.nii", frame=place).data, frame.data)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("lazy", [False, True])
def test_components_after_an_axis_of_one_are_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, lazy: bool
) -> None:
    if lazy:
        monkeypatch.setattr(file_values, "LAZY_BYTES", 1)
    values = np.random.default_rng(0).random((4, 5, 6, 3), np.float32)
    path = tmp_path / f"field{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(values.transpose(2, 1, 0, 3), isVector=True), str(path))
    assert nib.load(path).shape == (4, 5, 6, 1, 3)
    frames = read_frames(path)
    assert len(frames) == 3
    for place, frame in enumerate(frames):
        assert np.array_equal(frame.source.to_file_order(np.asarray(frame.data)), values[..., place])
        assert np.array_equal(read_volume(path, frame=place).data, frame.data)
    labels = write_labels(np.ones(frames[0].shape, bool), frames[0], tmp_path / "labels.nii.gz")
    assert nib.load(labels).shape == (4, 5, 6)
    assert np.array_equal(nib.load(labels).affine, nib.load(path).affine)


def test_channels_of_an_nrrd_are_frames(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 9, (4, 5, 6, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(tmp_path / "channels.nrrd"))
    frames = read_frames(tmp_path / "channels.nrrd")
    assert [int(frame.data.sum()) for frame in frames] == values.sum(axis=(0, 1, 2)).tolist()


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("keep", [0, 20, 150, -10])
def test_a_truncated_file_is_unreadable(tmp_path: Path, suffix: str, compressed: bool, keep: int) -> None:
    path = tmp_path / f"image.{suffix}"
    sitk.WriteImage(itk_image(), str(path), useCompression=compressed)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UnreadableFile):
        read_volume(path)


@pytest.mark.parametrize(("suffix", "field"), [("nrrd", b"sizes: 6 5 4"), ("mha", b"DimSize = 6 5 4")])
def test_a_header_that_promises_too_much_is_refused_before_memory_is_taken(tmp_path: Path, suffix, field) -> None:
    path = tmp_path / f"image.{suffix}"
    sitk.WriteImage(itk_image(), str(path), useCompression=False)
    content = path.read_bytes()
    assert field in content
    path.write_bytes(content.replace(field, field[:-5] + b"30000 30000 30000"))
    with pytest.raises(UnreadableFile, match="promises 54 TB"):
        read_volume(path)


def test_a_missing_data_file_is_said(tmp_path: Path) -> None:
    sitk.WriteImage(itk_image(), str(tmp_path / "image.mhd"))
    (tmp_path / "image.raw").unlink()
    with pytest.raises(UnreadableFile):
        read_volume(tmp_path / "image.mhd")


def test_a_stray_message_of_itk_does_not_reach_the_terminal(tmp_path: Path, capfd) -> None:
    (tmp_path / "bad.nrrd").write_bytes(b"NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n\nxx")
    with pytest.raises(UnreadableFile) as caught:
        read_volume(tmp_path / "bad.nrrd")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


# --- arrays and pictures ---


def test_a_numpy_array_is_upright_and_said_to_know_no_patient(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", VALUES)
    with pytest.warns(UserWarning, match="nothing about the patient"):
        volume = read_volume(tmp_path / "array.npy")
    assert np.array_equal(volume.data, VALUES)
    assert isinstance(volume.data, np.memmap)
    assert volume.direction_letters == (("I", "S"), ("A", "P"), ("R", "L"))


def test_an_npz_may_state_its_spacing_or_affine(tmp_path: Path) -> None:
    np.savez(tmp_path / "spaced.npz", data=VALUES, spacing=(2.5, 0.9, 0.7), other=1)
    assert read_volume(tmp_path / "spaced.npz").spacing == pytest.approx((2.5, 0.9, 0.7))
    affine = Volume.from_array(VALUES, (3, 2, 1)).affine
    np.savez_compressed(tmp_path / "placed.npz", VALUES, affine=affine)
    assert np.array_equal(read_volume(tmp_path / "placed.npz").affine, affine)


def test_arrays_that_are_no_volumes_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "five.npy", np.zeros((1, 1, 1, 1, 2)))
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    np.save(tmp_path / "objects.npy", np.array([[None]]), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=VALUES, b=VALUES)
    for name, error in (
        ("five.npy", UnsupportedVolume),
        ("words.npy", UnsupportedVolume),
        ("objects.npy", UnreadableFile),
        ("two.npz", UnsupportedVolume),
    ):
        with pytest.raises(error):
            read_volume(tmp_path / name)


@pytest.mark.parametrize("name", ["slice.png", "slice.jpg", "slice.tif"])
def test_a_grey_picture_is_one_slice_as_it_is_seen(tmp_path: Path, name: str) -> None:
    picture = np.kron(np.arange(6).reshape(2, 3) * 40, np.ones((16, 16))).astype(np.uint8)
    if name.endswith(".tif"):
        tifffile.imwrite(tmp_path / name, picture)
    else:
        Image.fromarray(picture).save(tmp_path / name, quality=100)
    with pytest.warns(UserWarning, match="pixels are taken as 1 mm"):
        volume = read_volume(tmp_path / name)
    assert volume.shape == (1, 32, 48)
    np.testing.assert_allclose(volume.data[0], picture, atol=3 if name.endswith("jpg") else 0)
    assert tuple(volume.source.file_index((0, 1, 2))) == (2, 1, 0)  # column, row, as ITK counts


def test_sixteen_bits_and_several_pages_are_kept(tmp_path: Path) -> None:
    pages = np.random.default_rng(0).integers(0, 65535, (4, 7, 9)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "pages.tif", pages, compression="zlib")
    Image.fromarray(pages[0]).save(tmp_path / "deep.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(read_volume(tmp_path / "pages.tif").data, pages)
        assert np.array_equal(read_volume(tmp_path / "deep.png").data[0], pages[0])


def test_colours_become_luminance_and_say_so(tmp_path: Path) -> None:
    colours = np.zeros((4, 5, 3), np.uint8)
    colours[..., 1] = 200
    Image.fromarray(colours).save(tmp_path / "green.png")
    with pytest.warns(UserWarning, match="is in colour; its luminance"):
        volume = read_volume(tmp_path / "green.png")
    np.testing.assert_allclose(volume.data, 0.587 * 200, rtol=1e-6)
    Image.fromarray(np.full((4, 5, 3), 7, np.uint8)).save(tmp_path / "grey.png")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert read_volume(tmp_path / "grey.png").data.dtype == np.uint8
    assert not any("colour" in str(one.message) for one in said)


def read_quietly(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_volume(path).data


def test_pages_written_one_by_one_are_a_stack(tmp_path: Path) -> None:
    pages = np.random.default_rng(0).integers(0, 255, (5, 8, 6)).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "loop.tif") as opened:
        for page in pages:
            opened.write(page)
    np.testing.assert_array_equal(read_quietly(tmp_path / "loop.tif"), pages)
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as opened:
        for page in (pages[0], pages[1, :4], pages[2]):
            opened.write(page)
    with pytest.warns(UserWarning, match="also holds 1 images of another shape"):
        volume = read_volume(tmp_path / "mixed.tif")
    np.testing.assert_array_equal(volume.data, pages[[0, 2]])


def test_a_tiff_is_as_its_header_says_not_as_its_shape_looks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    narrow = rng.integers(0, 255, (7, 8, 4)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "narrow.tif", narrow, photometric="minisblack")
    np.testing.assert_array_equal(read_quietly(tmp_path / "narrow.tif"), narrow)
    colours = rng.integers(0, 255, (8, 9, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "colours.tif", colours, photometric="rgb")
    np.testing.assert_allclose(read_quietly(tmp_path / "colours.tif")[0], colours @ [0.299, 0.587, 0.114], rtol=1e-5)
    tifffile.imwrite(tmp_path / "white.tif", narrow[0], photometric="miniswhite")
    np.testing.assert_array_equal(read_quietly(tmp_path / "white.tif")[0], 255 - narrow[0])
    grey = np.repeat((np.arange(256)[::-1] * 257)[None], 3, axis=0).astype(np.uint16)
    tifffile.imwrite(tmp_path / "palette.tif", narrow[0], photometric="palette", colormap=grey)
    np.testing.assert_array_equal(read_quietly(tmp_path / "palette.tif")[0], grey[0][narrow[0]])


def test_labels_of_a_picture_are_written_beside_it(tmp_path: Path) -> None:
    Image.fromarray(np.arange(30, dtype=np.uint8).reshape(5, 6)).save(tmp_path / "slice.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = read_volume(tmp_path / "slice.png")
    labels = (volume.data > 10).astype(np.uint8)
    assert np.array_equal(read_labels(write_labels(labels, volume, tmp_path / "labels.nii.gz")).data, labels)


def test_a_dicom_seg_of_what_is_no_dicom_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match=r"refers to the DICOM series.*Save as \.nii\.gz"):
        write_labels(np.ones(VALUES.shape, np.uint8), Volume.from_array(VALUES), tmp_path / "labels.dcm")
    assert not list(tmp_path.iterdir())
