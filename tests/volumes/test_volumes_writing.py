"""Writing: on the input's own grid, bit for bit, whole or not at all."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from napari_medtransformer.errors import CannotWrite
from napari_medtransformer.volumes import Volume, read_labels, read_volume, write_heatmap, write_labels, write_volume
from napari_medtransformer.volumes.sample_data import sample_path

GEOMETRY_FIELDS = [
    "dim",
    "pixdim",
    "xyzt_units",
    "qform_code",
    "sform_code",
    "quatern_b",
    "quatern_c",
    "quatern_d",
    "qoffset_x",
    "qoffset_y",
    "qoffset_z",
    "srow_x",
    "srow_y",
    "srow_z",
]


@pytest.fixture
def ct() -> Volume:
    return read_volume(sample_path("example_ct.nii.gz"))


def assert_same_grid(written: Path, original: Path) -> None:
    after, before = nib.load(written), nib.load(original)
    assert after.shape == before.shape
    assert np.array_equal(after.affine, before.affine)
    for field in GEOMETRY_FIELDS:
        assert np.array_equal(after.header[field], before.header[field], equal_nan=True), field


def test_labels_of_every_shared_volume_have_its_shape_and_affine_exactly(shared_data: Path, tmp_path: Path) -> None:
    files = sorted(shared_data.glob("*/*.nii.gz")) + sorted(shared_data.glob("msd_hippocampus/*/*.nii.gz"))
    colours = {"CIT168.nii.gz"}  # RGBA, no volume of intensities
    checked = 0
    for path in files:
        if path.name in colours:
            continue
        volume = read_volume(path)
        labels = (volume.data > volume.window.level).astype(np.int64) * 7
        written = write_labels(labels, volume, tmp_path / "labels.nii.gz")
        assert_same_grid(written, path)
        assert np.array_equal(read_labels(written).data, labels)
        checked += 1
    assert checked > 200


def test_a_label_drawn_at_a_place_is_found_there_by_simpleitk(ct: Volume, tmp_path: Path) -> None:
    labels = np.zeros(ct.shape, np.uint16)
    labels[70, 40, 90] = 3
    image = sitk.ReadImage(str(write_labels(labels, ct, tmp_path / "labels.nii.gz")))
    right, anterior, superior = ct.mm_from_zyx((70, 40, 90))
    assert image[image.TransformPhysicalPointToIndex((-right, -anterior, superior))] == 3


@pytest.mark.parametrize(("highest", "dtype"), [(1, np.uint8), (255, np.uint8), (256, np.uint16), (70000, np.uint32)])
def test_the_smallest_unsigned_type_is_chosen(ct: Volume, tmp_path: Path, highest: int, dtype) -> None:
    labels = np.zeros(ct.shape, np.int64)
    labels[0, 0, 0] = highest
    written = nib.load(write_labels(labels, ct, tmp_path / "labels.nii.gz"))
    assert written.get_data_dtype() == dtype
    assert np.asanyarray(written.dataobj).max() == highest


def test_slope_window_and_description_of_the_image_are_not_handed_to_its_labels(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header["cal_max"], image.header["descrip"] = 100, b"a secret"
    image.header.set_slope_inter(2, -5)
    nib.save(image, tmp_path / "image.nii")
    volume = read_volume(tmp_path / "image.nii")
    header = nib.load(write_labels(np.ones(volume.shape, bool), volume, tmp_path / "labels.nii")).header
    assert (header["cal_max"], header["descrip"].item()) == (0, b"")
    assert header.get_slope_inter() in ((None, None), (1.0, 0.0))
    assert read_labels(tmp_path / "labels.nii").data.all()


@pytest.mark.parametrize("image_class", [nib.Nifti2Image, nib.Nifti1Pair])
def test_nifti_2_and_pairs_of_files_keep_their_grid(tmp_path: Path, image_class) -> None:
    affine = np.array([[0, 0, 3, 1.5], [-1, 0, 0, 2.25], [0, 2, 0, 3], [0, 0, 0, 1]])
    name = "image.img" if image_class is nib.Nifti1Pair else "image.nii"
    nib.save(image_class(np.zeros((3, 4, 5), np.int16), affine), tmp_path / name)
    volume = read_volume(tmp_path / name)
    labels = np.random.default_rng(1).integers(0, 9, volume.shape)
    written = write_labels(labels, volume, tmp_path / "labels.nii.gz")
    assert np.array_equal(nib.load(written).affine, affine)
    assert np.array_equal(read_labels(written).data, labels)


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3, 1), (7, 5, 1, 1, 1)])
def test_unusual_dimensions_are_written_as_they_were(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), np.diag([2, 3, 4, 1])), tmp_path / "image.nii")
    volume = read_volume(tmp_path / "image.nii")
    labels = np.random.default_rng(1).integers(0, 9, volume.shape)
    written = write_labels(labels, volume, tmp_path / "labels.nii")
    assert_same_grid(written, tmp_path / "image.nii")
    assert np.array_equal(read_labels(written).data, labels)


def test_a_volume_made_in_memory_is_written_where_it_lies(tmp_path: Path) -> None:
    volume = Volume.from_array(np.zeros((3, 4, 5)), (2.0, 1.0, 0.5))
    labels = np.random.default_rng(1).integers(0, 9, volume.shape)
    back = read_labels(write_labels(labels, volume, tmp_path / "labels.nii.gz"))
    assert np.array_equal(back.data, labels)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-6)


def test_heads_of_a_heatmap_become_the_last_axis(ct: Volume, tmp_path: Path) -> None:
    heads = np.random.default_rng(0).random((2, *ct.shape), np.float32)
    image = nib.load(write_heatmap(heads, ct, tmp_path / "heads.nii"))
    assert image.shape == (*ct.source.file_shape, 2)
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(image.affine, nib.load(ct.source.path).affine)
    assert np.array_equal(ct.source.to_canonical(np.asanyarray(image.dataobj)[..., 1]), heads[1])
    assert_same_grid(write_heatmap(heads[0], ct, tmp_path / "one.nii.gz"), ct.source.path)


def test_the_same_labels_make_the_same_file(ct: Volume, tmp_path: Path) -> None:
    labels = np.ones(ct.shape, np.uint8)
    first = write_labels(labels, ct, tmp_path / "a.nii.gz").read_bytes()
    assert write_labels(labels, ct, tmp_path / "b.nii.gz").read_bytes() == first


def test_an_existing_file_is_replaced_and_a_link_keeps_pointing(ct: Volume, tmp_path: Path) -> None:
    (tmp_path / "real.nii.gz").write_bytes(b"old")
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "real.nii.gz")
    write_labels(np.ones(ct.shape, np.uint8), ct, tmp_path / "link.nii.gz")
    assert (tmp_path / "link.nii.gz").is_symlink()
    assert read_labels(tmp_path / "real.nii.gz").data.all()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
@pytest.mark.parametrize("mode", [0o664, 0o600])
def test_a_file_that_is_replaced_keeps_its_mode(ct: Volume, tmp_path: Path, mode: int) -> None:
    path = tmp_path / "labels.nii.gz"
    path.write_bytes(b"old")
    path.chmod(mode)
    write_labels(np.ones(ct.shape, np.uint8), ct, path)
    assert path.stat().st_mode & 0o777 == mode
    assert read_labels(path).data.all()


# --- what cannot be written ---


@pytest.mark.parametrize(
    ("labels", "name", "said"),
    [
        (np.zeros((3, 3, 3), np.uint8), "labels.nii.gz", r"shape \(3, 3, 3\) do not fit"),
        (None, "labels.xyz", r"no suffix that can be written"),
        (None, "missing/labels.nii.gz", "there is no folder"),
        (None, "folder.nii.gz", "is a folder"),
        (-1, "labels.nii.gz", "must not be negative"),
        (0.5, "labels.nii.gz", "expected integers"),
        (2**40, "labels.nii.gz", "cannot be written; the highest"),
    ],
)
def test_what_cannot_be_written_is_said_and_leaves_nothing(ct: Volume, tmp_path: Path, labels, name, said) -> None:
    (tmp_path / "folder.nii.gz").mkdir()
    if not isinstance(labels, np.ndarray):
        labels = np.full(ct.shape, 1 if labels is None else labels)
    with pytest.raises(CannotWrite, match=said):
        write_labels(labels, ct, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.nii.gz"]


def test_the_image_itself_is_never_overwritten(ct: Volume, tmp_path: Path) -> None:
    copy = tmp_path / "ct.nii.gz"
    copy.write_bytes(ct.source.path.read_bytes())
    with pytest.raises(CannotWrite, match="is the image itself"):
        write_labels(np.ones(ct.shape, np.uint8), read_volume(copy), copy)
    assert copy.read_bytes() == ct.source.path.read_bytes()


@pytest.mark.parametrize("name", ["organs.nii", "organs.nii.gz", "organs.nrrd", "organs.seg.nrrd", "organs.mha"])
def test_edited_labels_replace_the_file_they_were_read_from_and_nothing_else_does(tmp_path: Path, name: str) -> None:
    before = np.zeros((4, 5, 6), np.uint8)
    before[1, 2, 3] = 1
    path = write_labels(before, Volume.from_array(before), tmp_path / name)
    labels = read_labels(path)
    for write in (write_heatmap, lambda _, volume, target: write_volume(volume, target)):
        with pytest.raises(CannotWrite, match=r"is the image itself|is the name of a file of labels"):
            write(labels.data, labels, path)
    with pytest.raises(CannotWrite, match="is the image itself"):
        write_labels(labels.data, read_volume(path), path)
    after = np.array(labels.data) + 1
    write_labels(after, labels, path)
    assert np.array_equal(read_labels(path).data, after)


_WRITE_MUCH = """
import sys
from pathlib import Path
import numpy as np
from napari_medtransformer.errors import CannotWrite
from napari_medtransformer.volumes import Volume, write_labels
{limit}
volume = Volume.from_array(np.zeros((100, 100, 100)))
noise = np.random.default_rng(0).integers(0, 256, volume.shape)
try:
    write_labels(noise, volume, sys.argv[1])
except CannotWrite as error:
    sys.stdout.write(str(error))
    sys.exit(0)
sys.exit("it was written")
"""


def _write_much(target: Path, limit: str = "") -> str:
    run = subprocess.run(
        [sys.executable, "-c", _WRITE_MUCH.format(limit=limit), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="the limit on file sizes is POSIX")
@pytest.mark.parametrize("name", ["labels.nii", "labels.nii.gz", "labels.seg.nrrd", "labels.mha"])
def test_a_file_that_may_not_grow_leaves_the_old_one_as_it_was(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    target.write_bytes(b"the old labels")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))"
    assert "was not written: it would exceed the largest file" in _write_much(target, limit)
    assert target.read_bytes() == b"the old labels"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="a small disk can be mounted by root on Linux")
@pytest.mark.parametrize("name", ["labels.nii", "labels.nii.gz"])
def test_a_full_disk_leaves_the_old_file_as_it_was(tmp_path: Path, name: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.decode().strip()}")
    try:
        target = disk / name
        target.write_bytes(b"the old labels")
        assert "the disk is full" in _write_much(target)
        assert target.read_bytes() == b"the old labels"
        assert list(disk.iterdir()) == [target]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_gzip_members_end_properly(ct: Volume, tmp_path: Path) -> None:
    content = write_labels(np.ones(ct.shape, np.uint8), ct, tmp_path / "a.nii.gz").read_bytes()
    assert len(gzip.decompress(content)) == 352 + np.prod(ct.shape)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_images_of_64_bit_integers_are_written_in_their_own_type(tmp_path: Path, dtype, suffix: str) -> None:
    data = np.arange(24, dtype=dtype).reshape(2, 3, 4) + 2**40
    np.save(tmp_path / "image.npy", data)
    with pytest.warns(UserWarning, match="says nothing about the patient"):
        volume = read_volume(tmp_path / "image.npy")
    back = read_volume(write_volume(volume, tmp_path / f"image{suffix}"))
    assert back.data.dtype == dtype
    assert np.array_equal(back.data, data)
