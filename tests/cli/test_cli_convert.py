"""`medtransformer convert` and `measure`, and choosing series and frames, as somebody types them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from napari_medtransformer.cli.app import run
from napari_medtransformer.volumes import read_label_names, read_volume, resample_isotropic
from napari_medtransformer.volumes.sample_data import sample_path

CT, ORGANS = "example_ct.nii.gz", "example_seg_fast_force_split.nii.gz"


def refusal(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line with which a command ends that the user got wrong."""
    assert run([str(one) for one in arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [(".nii", np.int16), (".nii.gz", np.float32), (".nrrd", np.int32), (".nrrd", np.float64), (".mha", np.uint8),
     (".mha", np.int16)],
)  # fmt: skip
def test_another_format_holds_the_same_values_at_the_same_places(tmp_path: Path, suffix: str, dtype: type) -> None:
    values = np.random.default_rng(0).integers(0, 99, (5, 6, 7)).astype(dtype)
    cosine, sine = np.cos(0.2), np.sin(0.2)
    affine = np.array([[-0.7, 0, 0, 12], [0, 0.8 * cosine, -2.5 * sine, -30], [0, 0.8 * sine, 2.5 * cosine, 9]])
    affine = np.vstack([affine, [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "in.nii.gz")
    out = tmp_path / f"out{suffix}"
    assert run(["convert", str(tmp_path / "in.nii.gz"), "-o", str(out)]) == 0
    before, after = read_volume(tmp_path / "in.nii.gz"), read_volume(out)
    np.testing.assert_array_equal(after.data, before.data)
    assert after.data.dtype == before.data.dtype
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-5)  # NIfTI stores float32
    image = sitk.ReadImage(str(out))  # and another library agrees
    place = np.array(image.TransformIndexToPhysicalPoint((1, 2, 3))) * (-1, -1, 1)
    np.testing.assert_allclose(place, nib.affines.apply_affine(affine, (1, 2, 3)), atol=1e-4)
    assert image.GetPixel(1, 2, 3) == values[1, 2, 3]


def test_a_frame_is_chosen_and_none_is_taken_silently(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    values = np.random.default_rng(0).integers(0, 99, (5, 6, 7, 3)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([1, 2, 3, 1.0])), tmp_path / "film.nii.gz")
    out = tmp_path / "one.nii.gz"
    assert run(["convert", str(tmp_path / "film.nii.gz"), "-o", str(out), "--frame", "1"]) == 0
    np.testing.assert_array_equal(nib.load(out).get_fdata(), values[..., 1])
    capsys.readouterr()
    assert "Choose one with --frame 0 to 2" in refusal(capsys, "convert", tmp_path / "film.nii.gz", "-o", out)
    assert "no frame 3" in refusal(capsys, "convert", tmp_path / "film.nii.gz", "-o", out, "--frame", 3)
    for command in (["click", "-o", out, "--point", "1,1,1"], ["inspect", "--query", "1,1,1"]):
        assert "Choose one with --frame" in refusal(capsys, command[0], tmp_path / "film.nii.gz", *command[1:])


def test_a_series_is_chosen_by_number_or_uid(tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    files = sorted((shared_data / "totalsegmentator" / "dicom").iterdir())[:4]
    for file in files:
        shutil.copy(file, folder / f"a{file.name}")
        dataset = pydicom.dcmread(file)
        dataset.decompress()
        dataset.SeriesInstanceUID, dataset.SeriesNumber = "1.2.3.4", 99
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        dataset.PixelData = np.ascontiguousarray(dataset.pixel_array + 7).tobytes()
        dataset.save_as(folder / f"b{file.name}")
    out = tmp_path / "out.nii.gz"
    said = refusal(capsys, "convert", folder, "-o", out)
    assert "2 series" in said
    assert "--series NUMBER" in said
    assert run(["convert", str(folder), "-o", str(out), "--series", "1"]) == 0
    first = nib.load(out).get_fdata()
    assert run(["convert", str(folder), "-o", str(out), "--series", "1.2.3.4"]) == 0
    np.testing.assert_array_equal(nib.load(out).get_fdata(), first + 7)
    assert "no series 3" in refusal(capsys, "convert", folder, "-o", out, "--series", 3)


def test_other_grids(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    ct, out = sample_path(CT), tmp_path / "out.nii.gz"
    assert run(["convert", str(ct), "-o", str(out), "--resample", "6", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spacing_zyx_mm"] == pytest.approx([6, 6, 6])
    np.testing.assert_allclose(read_volume(out).data, resample_isotropic(read_volume(ct), 6).data, atol=1e-3)
    back = tmp_path / "back.nrrd"
    assert run(["convert", str(sample_path(ORGANS)), "--labels", "--like", str(out), "-o", str(back)]) == 0
    assert read_volume(back).shape == read_volume(out).shape
    assert set(np.unique(read_volume(back).data)) <= set(np.unique(nib.load(sample_path(ORGANS)).dataobj))
    film = tmp_path / "film.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7, 3), np.int16), np.diag([9, 8, 7, 1.0])), film)
    assert run(["convert", str(ct), "--like", str(film), "-o", str(out)]) == 0
    assert nib.load(out).shape == (5, 6, 7)
    assert np.array_equal(nib.load(out).affine, nib.load(film).affine)
    for wrong in ("0", "-1", "nan", "foo"):
        assert "--resample" in refusal(capsys, "convert", ct, "-o", out, "--resample", wrong)
    assert "give one of them" in refusal(capsys, "convert", ct, "-o", out, "--resample", "iso", "--like", ct)
    assert "no suffix" in refusal(capsys, "convert", ct, "-o", tmp_path / "out.xyz")
    assert "no file" in refusal(capsys, "convert", tmp_path / "none.nii.gz", "-o", out)


def test_labels_keep_their_names_and_are_measured_as_numpy_measures_them(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    names = tmp_path / "names.csv"
    names.write_text("number,name\n5,liver\n1,spleen\n")
    table = tmp_path / "organs.csv"
    organs, ct = sample_path(ORGANS), sample_path(CT)
    assert run(["measure", str(organs), "--image", str(ct), "--names", str(names), "-o", str(table)]) == 0
    with table.open() as file:
        rows = {int(row["number"]): row for row in csv.DictReader(file)}
    values, labels = np.asarray(nib.load(ct).dataobj), np.asarray(nib.load(organs).dataobj)
    assert rows.keys() == set(np.unique(labels)) - {0}
    assert (rows[5]["name"], rows[1]["name"]) == ("liver", "spleen")
    for number, row in rows.items():
        inside = values[labels == number]
        assert int(row["voxels"]) == inside.size
        assert float(row["volume_ml"]) == pytest.approx(inside.size * 27 / 1000, rel=1e-4)
        assert float(row["mean"]) == pytest.approx(inside.mean(), rel=1e-6)
        assert (float(row["low"]), float(row["high"])) == (inside.min(), inside.max())

    slicer = tmp_path / "organs.seg.nrrd"
    assert run(["convert", str(organs), "--labels", "-o", str(slicer)]) == 0
    assert {label.number for label in read_label_names(slicer)} == rows.keys()
    capsys.readouterr()
    assert run(["measure", str(slicer), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {row["number"]: row["voxels"] for row in said} == {n: int(row["voxels"]) for n, row in rows.items()}
    assert "mean" not in said[0]
    assert run(["measure", str(organs)]) == 0
    assert "27" not in capsys.readouterr().err


def test_one_frame_of_labels_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    film = np.zeros((5, 6, 7, 3), np.uint8)
    film[1, 2, 3:5, 1] = 4
    path = tmp_path / "film_labels.nii.gz"
    nib.save(nib.Nifti1Image(film, np.diag([1, 2, 3, 1.0])), path)
    assert "Choose one with --labels-frame 0 to 2" in refusal(capsys, "measure", path)
    assert "no frame 3" in refusal(capsys, "measure", path, "--labels-frame", 3)
    assert run(["measure", str(path), "--labels-frame", "1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["number"], row["voxels"]) == (4, 2)
    said = refusal(capsys, "convert", path, "--labels", "-o", tmp_path / "one.nii.gz")
    assert "Choose one with `medtransformer convert --frame`, 0 to 2" in said


def test_what_does_not_belong_together_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    organs, ct, mr = sample_path(ORGANS), sample_path(CT), sample_path("example_mr_sm.nii.gz")
    assert "another grid" in refusal(capsys, "measure", organs, "--image", mr)
    assert "no labels" in refusal(capsys, "measure", ct)
    assert "no suffix of a table" in refusal(capsys, "measure", organs, "-o", tmp_path / "t.xlsx")
    assert "give it with --image" in refusal(capsys, "measure", organs, "--frame", 0)
    assert "with --labels" in refusal(capsys, "convert", organs, "--labels", "--frame", 0, "-o", tmp_path / "o.nii")
    assert list(tmp_path.iterdir()) == []
