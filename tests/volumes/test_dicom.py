"""DICOM: folders, single files, zips, and slices that do not make a volume."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless
from scipy.spatial.transform import Rotation

from napari_medtransformer.errors import UnreadableFile, UnsupportedVolume
from napari_medtransformer.volumes import Window, read_labels, read_volume
from napari_medtransformer.volumes.dicom import holds_dicom

STORED = np.random.default_rng(0).integers(0, 2000, (6, 5, 4)).astype(np.int16)


def test_the_sample_series_is_what_simpleitk_reads_and_its_labels_lie_on_the_organs(shared_data: Path) -> None:
    folder = shared_data / "totalsegmentator" / "dicom"
    volume = read_volume(folder)
    reader = sitk.ImageSeriesReader()
    files = [str(file) for file in folder.iterdir()]
    files.sort(key=lambda file: float(pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient[2]))
    reader.SetFileNames(files)
    by_itk = reader.Execute()
    assert np.array_equal(volume.source.to_file_order(volume.data), sitk.GetArrayFromImage(by_itk).transpose(2, 1, 0))
    for ijk in ((0, 0, 0), (511, 3, 19), (100, 400, 7)):
        lps = np.array(by_itk.TransformIndexToPhysicalPoint(ijk))
        np.testing.assert_allclose(volume.source.mm_from_zyx(volume.source.zyx_from_file_index(ijk)), lps * [-1, -1, 1])
    assert volume.modality == "CT"
    assert volume.window == Window.from_level_width(40, 300, "DICOM")
    labels = read_labels(shared_data / "totalsegmentator" / "example_seg_dicom.nii.gz")
    np.testing.assert_allclose(labels.affine, volume.affine, atol=1e-3)
    assert 60 < np.median(volume.data[labels.data == 5]) < 140  # an enhanced liver, in HU


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(*[st.floats(-180, 180)] * 3),
    st.tuples(*[st.floats(-300, 300)] * 3),
    st.floats(0.5, 5),
    st.permutations(range(6)),
)
def test_slices_of_any_orientation_and_file_order_lie_where_their_headers_say(
    dicom_series, tmp_path, angles, origin, gap, order
) -> None:
    directions = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    positions = np.array([np.array(origin) + place * gap * directions[:, 2] for place in range(6)])[order]
    shutil.rmtree(tmp_path / "series", ignore_errors=True)
    folder = dicom_series(STORED[order], positions, (*directions[:, 0], *directions[:, 1]))
    volume = read_volume(folder)
    for file in folder.iterdir():
        ds = pydicom.dcmread(file)
        for row, column in ((0, 0), (4, 3), (2, 1)):
            lps = (
                np.array(ds.ImagePositionPatient, float)
                + np.array(ds.ImageOrientationPatient[:3], float) * column * float(ds.PixelSpacing[1])
                + np.array(ds.ImageOrientationPatient[3:], float) * row * float(ds.PixelSpacing[0])
            )  # DICOM PS3.3, equation C.7.6.2.1-1
            zyx = volume.zyx_from_mm(lps * [-1, -1, 1])
            np.testing.assert_allclose(zyx, np.round(zyx), atol=1e-4)
            assert volume.data[tuple(np.round(zyx).astype(int))] == ds.pixel_array[row, column] - 1000


@pytest.mark.parametrize("names", ["{:04d}.dcm", "IM{:04d}", "1.2.840.10008.{:d}", "slice {:d}.IMA"])
def test_files_are_known_by_content_whatever_their_names(dicom_series, names: str) -> None:
    folder = dicom_series(STORED, names=names.format)
    assert read_volume(folder).shape == (6, 5, 4)
    first = sorted(folder.iterdir())[0]
    assert read_volume(first).shape == (1, 5, 4)
    assert holds_dicom(first)


def test_a_folder_of_anything_else_is_no_dicom(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("hello" * 100)
    assert not holds_dicom(tmp_path)
    with pytest.raises(UnreadableFile, match="holds no DICOM images"):
        read_volume(tmp_path)


def test_other_files_below_and_beside_the_images_do_not_matter(dicom_series) -> None:
    folder = dicom_series(STORED)
    (folder / "readme.txt").write_text("hello")
    (folder / "below").mkdir()
    shutil.move(folder / "IM0003", folder / "below" / "IM0003")
    (folder / "loop").symlink_to(folder)
    shutil.copy(folder / "IM0001", folder / "IM0001 (copy)")  # the same object twice
    assert read_volume(folder).shape == (6, 5, 4)


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_meta_information_are_read(dicom_series, implicit: bool) -> None:
    folder = dicom_series(STORED)
    for file in list(folder.iterdir()):
        whole = pydicom.dcmread(file)
        bare = pydicom.Dataset()
        bare.update({element.tag: element for element in whole})
        pydicom.dcmwrite(file, bare, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.grid.to_file_order(volume.data).transpose(2, 1, 0), STORED - 1000.0)


def test_two_different_slices_at_one_place_are_an_error(dicom_series) -> None:
    positions = [(0, 0, z) for z in (0, 2, 4, 4, 6, 8)]
    with pytest.raises(UnsupportedVolume, match="1 slices that lie where another one does, first IM0002 and IM0003"):
        read_volume(dicom_series(STORED, positions))


def test_missing_slices_are_counted_and_filled_only_on_request(dicom_series) -> None:
    heights = np.array([0, 2, 4, 10, 12, 14])
    folder = dicom_series(STORED, [(0, 0, z) for z in heights])
    with pytest.raises(UnsupportedVolume, match=r"misses 2 of 8 slices, first between 4\.00 and 10\.00 mm.*resample"):
        read_volume(folder)
    with pytest.warns(UserWarning, match="interpolated to 2 mm"):
        volume = read_volume(folder, resample=True)
    assert volume.shape == (8, 5, 4)
    expected = np.stack(
        [
            [np.interp(np.arange(0, 15, 2), heights, STORED[:, row, column] - 1000.0) for column in range(4)]
            for row in range(5)
        ]
    )
    np.testing.assert_allclose(volume.data, expected.transpose(2, 0, 1), atol=1e-3)


def test_uneven_slices_are_said_with_their_distances(dicom_series) -> None:
    folder = dicom_series(STORED, [(0, 0, z) for z in (0, 2, 4, 6.5, 8.5, 10.5)])
    with pytest.raises(UnsupportedVolume, match=r"unevenly spaced slices: 2\.00 to 2\.50 mm, first between 4\.00 and"):
        read_volume(folder)
    with pytest.warns(UserWarning, match="interpolated"):
        volume = read_volume(folder, resample=True)
    # The lowest slice stays where it was.
    assert np.array_equal(volume.data[0], STORED[0] - 1000.0)


def test_a_tilted_gantry_is_said_and_kept_exactly(dicom_series) -> None:
    shift = 2 * np.tan(np.radians(15))
    folder = dicom_series(STORED, [(0, shift * place, 2 * place) for place in range(6)])
    with pytest.warns(UserWarning, match=r"gantry tilted by 15\.0°"):
        volume = read_volume(folder)
    np.testing.assert_allclose(
        volume.mm_from_zyx((5, 0, 0)) - volume.mm_from_zyx((0, 0, 0)), (0, -5 * shift, 10), atol=1e-6
    )


def test_slices_that_wander_sideways_make_no_grid(dicom_series) -> None:
    with pytest.raises(UnsupportedVolume, match="shifted sideways by up to 3"):
        read_volume(dicom_series(STORED, [(3 * (place == 2), 0, 2 * place) for place in range(6)]))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_slices_hold_the_same_values(dicom_series, syntax) -> None:
    folder = dicom_series(STORED, change=lambda ds, _: ds.compress(syntax, generate_instance_uid=False))
    volume = read_volume(folder)
    assert np.array_equal(volume.source.to_file_order(volume.data).transpose(2, 1, 0), STORED - 1000)


_LOSSLESS_JPEG = """
import sys
import numpy as np
import SimpleITK as sitk
for place, image in enumerate(np.load(sys.argv[1])):
    writer = sitk.ImageFileWriter()
    writer.SetFileName(f"{sys.argv[1]}.{place}.dcm")
    writer.SetUseCompression(True)
    writer.SetCompressor("JPEG")
    writer.Execute(sitk.GetImageFromArray(image[None]))
"""


def test_lossless_jpeg_is_decoded(dicom_series, tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 2000, (3, 32, 48)).astype(np.uint16)
    np.save(tmp_path / "stored.npy", stored)
    # GDCM is the encoder at hand; in a process of its own, since its encoder is less careful with memory.
    subprocess.run([sys.executable, "-c", _LOSSLESS_JPEG, str(tmp_path / "stored.npy")], check=True)

    def packed(ds, place: int) -> None:
        jpeg = pydicom.dcmread(tmp_path / f"stored.npy.{place}.dcm")
        assert jpeg.file_meta.TransferSyntaxUID in ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
        ds.file_meta.TransferSyntaxUID, ds.PixelRepresentation = jpeg.file_meta.TransferSyntaxUID, 0
        ds["PixelData"] = jpeg["PixelData"]

    volume = read_volume(dicom_series(stored, change=packed))
    assert np.array_equal(volume.source.to_file_order(volume.data).transpose(2, 1, 0), stored.astype(int) - 1000)


def test_bits_above_those_stored_are_no_part_of_the_value(dicom_series) -> None:
    values = np.array([[-2048, -1], [2047, 5]], np.int16)
    garbage = (values & 0x0FFF) | np.array([[0x1000, 0x6000], [0x5000, 0]], np.int16)  # old overlays live there

    def twelve_bits(ds, _) -> None:
        ds.BitsStored, ds.HighBit = 12, 11

    volume = read_volume(dicom_series(garbage[np.newaxis], change=twelve_bits))
    assert np.array_equal(volume.data[0], values - 1000)


def test_deflated_files_are_read(dicom_series) -> None:
    stored = np.zeros((2, 100, 100), np.int16)
    folder = dicom_series(
        stored, change=lambda ds, _: setattr(ds.file_meta, "TransferSyntaxUID", DeflatedExplicitVRLittleEndian)
    )
    assert (read_volume(folder).data == -1000).all()


def test_a_fractional_slope_gives_floats(dicom_series) -> None:
    folder = dicom_series(STORED, change=lambda ds, place: setattr(ds, "RescaleSlope", 0.5 + place))
    volume = read_volume(folder)
    slopes = 0.5 + np.arange(6)[:, None, None]
    assert volume.data.dtype == np.float32
    np.testing.assert_allclose(volume.source.to_file_order(volume.data).transpose(2, 1, 0), STORED * slopes - 1000)


@pytest.mark.parametrize("slopes", [None, [1, 2, 3, 4, 5, 6]])
def test_a_multi_frame_object_is_sorted_and_rescaled_frame_by_frame(multiframe_ct, slopes) -> None:
    volume = read_volume(multiframe_ct(STORED, order=[3, 0, 5, 1, 4, 2], slopes=slopes))
    factors = np.array(slopes or [2] * 6)[:, None, None]
    assert np.array_equal(volume.source.to_file_order(volume.data).transpose(2, 1, 0), STORED * factors - 5)
    assert volume.spacing == pytest.approx((2, 0.5, 0.75))


def test_a_zip_is_the_series_in_it_and_cannot_write_outside(dicom_series, tmp_path: Path) -> None:
    folder = dicom_series(STORED)
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in folder.iterdir():
            packed.write(file, f"../../escape/{file.name}")
        packed.writestr("/etc/readme.txt", "hello")
    assert np.array_equal(read_volume(archive).data, read_volume(folder).data)
    assert holds_dicom(archive)
    assert not (tmp_path.parent / "escape").exists()
    assert not (tmp_path.parent.parent / "escape").exists()


def test_a_zip_without_dicom_and_a_broken_zip_are_unreadable(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as packed:
        packed.writestr("readme.txt", "hello")
    (tmp_path / "broken.zip").write_bytes((tmp_path / "empty.zip").read_bytes()[:-10])
    for name in ("empty.zip", "broken.zip"):
        with pytest.raises(UnreadableFile):
            read_volume(tmp_path / name)
        assert not holds_dicom(tmp_path / name)


def test_an_x_ray_without_a_place_is_a_slice_and_says_so(dicom_series) -> None:
    def x_ray(ds, _) -> None:
        del ds.ImagePositionPatient, ds.ImageOrientationPatient
        ds.Modality, ds.PhotometricInterpretation = "DX", "MONOCHROME1"

    folder = dicom_series(STORED[:1], change=x_ray)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        volume = read_volume(folder)
    assert {"states no position" in str(one.message) for one in said} == {True, False}
    assert any("MONOCHROME1" in str(one.message) for one in said)
    assert np.array_equal(volume.data[0], ~STORED[0] - 1000)
    assert volume.spacing == pytest.approx((2, 0.5, 0.75))
    with pytest.raises(UnsupportedVolume, match="6 images without positions"):
        read_volume(dicom_series(STORED, change=x_ray, folder="film"))


@pytest.mark.parametrize(
    ("keyword", "value", "said"),
    [
        ("PixelSpacing", [0, 1], "pixel spacing is"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "two perpendicular directions"),
        ("PhotometricInterpretation", "RGB", "RGB colours"),
    ],
)
def test_headers_that_make_no_volume_are_named(dicom_series, keyword: str, value, said: str) -> None:
    folder = dicom_series(STORED, change=lambda ds, _: setattr(ds, keyword, value))
    with pytest.raises(UnsupportedVolume, match=said):
        read_volume(folder)


def test_a_truncated_slice_is_named(dicom_series) -> None:
    folder = dicom_series(STORED)
    content = (folder / "IM0002").read_bytes()
    (folder / "IM0002").write_bytes(content[:-30])
    with pytest.raises(UnreadableFile, match="IM0002"):
        read_volume(folder)
