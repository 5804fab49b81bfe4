"""Reading NIfTI: values, dtypes, mapping, and one clear error for everything that is no volume."""

from __future__ import annotations

import gzip
import os
import struct
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from common_user import common_user

from napari_medtransformer.errors import CannotWrite, MedTransformerError, UnreadableFile, UnsupportedVolume
from napari_medtransformer.volumes import guard, read_labels, read_volume, write_labels
from napari_medtransformer.volumes.sample_data import sample_label_names, sample_path

AFFINE = np.array([[-0.8, 0, 0, 90], [0, 0.8, 0, -120], [0, 0, 2.5, 40], [0, 0, 0, 1.0]])


@pytest.fixture
def nifti(tmp_path: Path):
    """Writes an array as a NIfTI file and returns its path."""

    def write(array: np.ndarray, name: str = "volume.nii", affine: np.ndarray | None = AFFINE, **fields) -> Path:
        image = nib.Nifti1Image(array, affine)
        image.header.set_xyzt_units("mm")
        for field, value in fields.items():
            image.header[field] = value
        nib.save(image, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("name", ["example_ct", "example_mr_sm", "hippocampus_003", "hippocampus_004"])
@pytest.mark.usefixtures("no_warnings")
def test_sample_volumes_hold_the_values_that_nibabel_reads(name: str) -> None:
    path = sample_path(f"{name}.nii.gz")
    volume, image = read_volume(path), nib.load(path)
    assert np.array_equal(volume.source.to_file_order(volume.data), np.asanyarray(image.dataobj))
    assert volume.spacing == pytest.approx([image.header.get_zooms()[axis] for axis in volume.source.order.permutation])


def test_the_sample_ct_is_upright_with_the_liver_on_the_patients_right() -> None:
    labels = read_labels(sample_path("example_seg_fast_force_split.nii.gz"))
    number = {name: number for number, name in sample_label_names().items()}
    centre = {
        name: np.argwhere(labels.data == number[name]).mean(axis=0)
        for name in ("liver", "spleen", "spinal_cord", "stomach", "urinary_bladder")
    }
    assert centre["liver"][2] < centre["spleen"][2]  # the patient's right is at small x: on the screen's left
    assert centre["stomach"][1] < centre["spinal_cord"][1]  # anterior is at small y: up
    assert centre["liver"][0] > centre["urinary_bladder"][0]  # superior is at large z


def test_modalities_are_told_by_hounsfield_values() -> None:
    assert read_volume(sample_path("example_ct.nii.gz")).modality == "CT"
    assert read_volume(sample_path("example_mr_sm.nii.gz")).modality == "unknown"
    assert read_volume(sample_path("example_mr_sm.nii.gz"), modality="MR").modality == "MR"


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_real_type_is_kept(nifti, dtype, suffix: str) -> None:
    array = (np.arange(60).reshape(3, 4, 5) * 2).astype(dtype)
    volume = read_volume(nifti(array, f"volume{suffix}"))
    assert volume.data.dtype == dtype
    assert np.array_equal(volume.source.to_file_order(volume.data), array)


def test_big_endian_files_become_native(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    image = nib.Nifti1Image(array, AFFINE, header)
    nib.save(image, tmp_path / "big.nii")
    volume = read_volume(tmp_path / "big.nii")
    assert volume.data.dtype == np.dtype("=i2")
    assert np.array_equal(volume.source.to_file_order(volume.data), array)


def test_an_uncompressed_file_is_mapped_and_not_read(nifti) -> None:
    volume = read_volume(nifti(np.zeros((4, 5, 6), np.int16)))
    assert isinstance(volume.data, np.memmap)
    assert not volume.data.flags.writeable


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1, -1024, np.int16), (2, 0, np.int16), (100, 5, np.int32), (0.5, 0, np.float32)]
)
def test_slope_and_intercept_are_applied_in_the_smallest_exact_type(nifti, slope, intercept, dtype) -> None:
    stored = np.array([0, 1, 7, 1000], np.int16).reshape(2, 2, 1)
    path = nifti(stored)
    header = bytearray(path.read_bytes())
    header[112:120] = struct.pack("<ff", slope, intercept)
    path.write_bytes(header)
    volume = read_volume(path)
    assert volume.data.dtype == dtype
    assert np.array_equal(volume.source.to_file_order(volume.data), stored * float(slope) + intercept)
    assert np.array_equal(volume.source.to_file_order(volume.data), nib.load(path).get_fdata())


def test_a_single_slice_and_a_trailing_axis_of_one_are_volumes(nifti) -> None:
    flat = read_volume(nifti(np.ones((7, 5), np.int16), "flat.nii"))
    assert sorted(flat.shape) == [1, 5, 7]
    tailed = read_volume(nifti(np.ones((7, 5, 3, 1), np.int16), "tailed.nii"))
    assert tailed.shape == (3, 5, 7)
    assert tailed.source.file_shape == (7, 5, 3, 1)


def test_micrometres_and_metres_become_millimetres(nifti) -> None:
    assert read_volume(nifti(np.ones((2, 2, 2), np.int16), xyzt_units=3)).spacing == pytest.approx((0.0025, 8e-4, 8e-4))
    assert read_volume(nifti(np.ones((2, 2, 2), np.int16), xyzt_units=1)).spacing == pytest.approx((2500, 800, 800))


def test_a_file_without_orientation_is_said_to_be_one(nifti) -> None:
    path = nifti(np.ones((2, 3, 4), np.int16))
    header = bytearray(path.read_bytes())
    header[252:256] = bytes(4)  # qform_code and sform_code
    path.write_bytes(header)
    with pytest.warns(UserWarning, match="states no orientation"):
        volume = read_volume(path)
    np.testing.assert_allclose(volume.source.affine_ijk, nib.load(path).affine)


def test_nan_and_infinite_voxels_become_finite_with_a_warning(nifti) -> None:
    array = np.arange(-3, 24, dtype=np.float32).reshape(3, 3, 3)
    array[0, 0, 0], array[1, 1, 1], array[2, 2, 2] = np.nan, np.inf, -np.inf
    with pytest.warns(UserWarning, match="3 voxels that are NaN or infinite"):
        volume = read_volume(nifti(array))
    read = volume.source.to_file_order(volume.data)
    assert (read[0, 0, 0], read[1, 1, 1], read[2, 2, 2]) == (-2, 22, -2)
    with pytest.warns(UserWarning, match="27 voxels"):
        assert not read_volume(nifti(np.full((3, 3, 3), np.nan, np.float32))).data.any()


def test_labels_stored_as_floats_become_integers_and_fractions_are_refused(nifti) -> None:
    labels = read_labels(nifti(np.array([0, 1, 260.0]).reshape(1, 1, 3)))
    assert labels.data.dtype == np.uint16
    with pytest.raises(UnsupportedVolume, match="no labels"):
        read_labels(nifti(np.array([0, 0.5]).reshape(1, 1, 2)))
    with pytest.raises(UnsupportedVolume, match="no labels"):
        read_labels(nifti(np.array([0, -1], np.int16).reshape(1, 1, 2)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_labels_that_nibabel_scaled_to_integers_are_rounded(tmp_path: Path, dtype) -> None:
    labels = np.array([0, 1, 2, 3, 7]).reshape(1, 1, 5)
    image = nib.Nifti1Image(labels.astype(float), AFFINE)
    image.set_data_dtype(dtype)
    nib.save(image, tmp_path / "labels.nii")
    assert (np.asanyarray(nib.load(tmp_path / "labels.nii").dataobj) % 1).any()
    with pytest.warns(UserWarning, match="beside whole numbers; they were rounded"):
        read = read_labels(tmp_path / "labels.nii")
    assert np.array_equal(read.grid.to_file_order(read.data), labels)
    assert read.data.dtype == np.uint8


@pytest.mark.parametrize("values", [[0, 0.01], [1, 1.03], [0, np.nan], [1, np.inf]])
def test_what_is_not_nearly_whole_is_no_label(nifti, values: list[float]) -> None:
    with pytest.raises(UnsupportedVolume, match="no labels"):
        read_labels(nifti(np.array(values).reshape(1, 1, 2)))


def test_a_frame_of_labels_is_chosen(nifti) -> None:
    film = np.random.default_rng(0).integers(0, 9, (4, 5, 6, 3)).astype(np.uint8)
    path = nifti(film)
    labels = read_labels(path, frame=2)
    assert np.array_equal(labels.grid.to_file_order(labels.data), film[..., 2])
    with pytest.raises(UnsupportedVolume, match="frame=0 to 2"):
        read_labels(path)
    with pytest.raises(CannotWrite, match="itself"):  # it would lose the other frames
        write_labels(labels.data, labels, path)


# --- what is no volume ---


def test_a_missing_file_names_its_near_matches(nifti) -> None:
    nifti(np.ones((2, 2, 2), np.int16), "patient_ct.nii.gz")
    nifti(np.ones((2, 2, 2), np.int16), "readme.nii")
    path = nifti(np.ones((2, 2, 2), np.int16), "other.nii").with_name("patient_cd.nii.gz")
    with pytest.raises(UnreadableFile, match=r"there is no file .*Did you mean patient_ct\.nii\.gz\?"):
        read_volume(path)


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="There is no folder"):
        read_volume(tmp_path / "nowhere" / "ct.nii")


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.nii").symlink_to(tmp_path / "b.nii")
    (tmp_path / "b.nii").symlink_to(tmp_path / "a.nii")
    with pytest.raises(UnreadableFile, match="cannot be opened"):
        read_volume(tmp_path / "a.nii")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX")
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(UnreadableFile, match="neither a file nor a folder"):
        read_volume(tmp_path / "pipe.nii")


def test_four_dimensions_are_refused_with_the_way_out(nifti) -> None:
    with pytest.raises(UnsupportedVolume, match=r"4 dimensions \(2, 3, 4, 5\).*expected 3"):
        read_volume(nifti(np.ones((2, 3, 4, 5), np.int16)))


def test_colours_and_complex_values_are_refused(nifti) -> None:
    rgb = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(UnsupportedVolume, match="RGB"):
        read_volume(nifti(rgb))
    with pytest.raises(UnsupportedVolume, match="complex"):
        read_volume(nifti(np.zeros((2, 2, 2), np.complex64)))


@pytest.mark.parametrize("keep", [0, 10, 300, 352, 500])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_truncated_file_is_unreadable(nifti, keep: int, suffix: str) -> None:
    path = nifti(np.random.default_rng(0).integers(0, 1000, (8, 8, 8)).astype(np.int16), f"cut{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: min(keep, len(content) - 20)])
    with pytest.raises(UnreadableFile):
        read_volume(path)


def test_a_flipped_bit_in_compressed_voxels_does_not_pass(nifti) -> None:
    path = nifti(np.random.default_rng(0).integers(0, 1000, (16, 16, 16)).astype(np.int16), "bit.nii.gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match="damaged"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_header_that_promises_more_than_the_file_holds_is_refused_at_once(nifti, suffix: str) -> None:
    path = nifti(np.zeros((4, 4, 4), np.int16), f"promise{suffix}")
    packed = suffix == ".nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    content[42:48] = struct.pack("<3h", 30000, 30000, 30000)
    path.write_bytes(gzip.compress(bytes(content)) if packed else content)
    with pytest.raises(UnreadableFile, match="truncated: its header promises 54 TB"):
        read_volume(path)


def test_more_than_the_machine_has_is_refused_before_it_is_taken(nifti, monkeypatch) -> None:
    path = nifti(np.ones((8, 8, 8), np.int16), "large.nii.gz")
    monkeypatch.setattr(guard, "physical_memory", lambda: 1000.0)
    with pytest.raises(UnsupportedVolume, match=r"needs 1\.02 kB of memory, the machine has 1 kB"):
        read_volume(path)
    assert guard.physical_memory() == 1000
    monkeypatch.undo()
    assert guard.physical_memory() > 1e8


@pytest.mark.parametrize("content", [b"", b"not a volume at all", bytes(400), b"\x1f\x8b" + bytes(400)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".img"])
def test_anything_else_under_a_nifti_name_is_unreadable(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"other{suffix}"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile):
        read_volume(path)


def test_another_suffix_is_no_volume(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UnreadableFile, match=r"notes\.txt is not a volume"):
        read_volume(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("affine", "said"),
    [
        (np.diag([1, 1, 0, 1.0]), "size of"),
        (np.diag([np.nan, 1, 1, 1.0]), "not finite"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "singular"),
    ],
)
def test_a_file_without_usable_geometry_is_unsupported(nifti, affine: np.ndarray, said: str) -> None:
    path = nifti(np.ones((2, 2, 2), np.int16))
    content = bytearray(path.read_bytes())
    content[280:328] = affine[:3].astype("<f4").tobytes()
    path.write_bytes(content)
    with pytest.raises(UnsupportedVolume, match=said):
        read_volume(path)


def test_a_file_without_permission_is_unreadable(nifti) -> None:
    written = nifti(np.ones((2, 2, 2), np.int16))
    content = written.read_bytes()
    assert read_volume(written).shape == (2, 2, 2)  # and whatever reading imports is imported
    with common_user() as folder:
        path = folder / "closed.nii"
        path.write_bytes(content)
        path.chmod(0)
        with pytest.raises(UnreadableFile, match="no permission to read it"):
            read_volume(path)


@pytest.mark.parametrize("closed", ["series", "series/0.dcm"])
def test_a_folder_is_read_whole_or_told_to_be_closed(closed: str) -> None:
    with common_user() as folder:
        series = folder / "series"
        series.mkdir()
        for number in range(2):
            (series / f"{number}.dcm").write_bytes(b"\0" * 128 + b"DICM")
        (folder / closed).chmod(0)
        with pytest.raises(UnreadableFile, match=f"{closed} cannot be opened: no permission to read it"):
            read_volume(series)
        series.chmod(0o700)


def test_every_error_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.nii").write_bytes(b"x\ny" * 200)
    with pytest.raises(MedTransformerError) as caught:
        read_volume(tmp_path / "bad.nii")
    assert "\n" not in str(caught.value)


def test_a_missing_sample_says_where_it_was_sought() -> None:
    with pytest.raises(UnreadableFile, match="sample_data"):
        sample_path("nothing.nii.gz")
