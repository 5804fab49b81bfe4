"""`medtransformer segment`: files and folders of any formats, done again or not, and mistakes told in a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from batch_card import CARD
from batch_runs import arguments, make_folder, make_volume, outputs

from napari_medtransformer.cli.app import run
from napari_medtransformer.models import ModelCard


def test_one_file_becomes_labels_on_its_grid(card, tmp_path, capsys) -> None:
    source = make_folder(tmp_path / "in", 1) / "case_00.nii.gz"
    out = tmp_path / "labels.nii.gz"
    assert run(arguments(source, out, "--uncertainty", str(tmp_path / "entropy.nii.gz"), "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    image, labels = nib.load(source), nib.load(out)
    np.testing.assert_array_equal(labels.affine, image.affine)
    data = np.asarray(labels.dataobj)
    assert data.shape == image.shape
    assert said["volumes_ml"]["head"] == pytest.approx((data == 1).sum() / 1000)
    entropy = np.asarray(nib.load(tmp_path / "entropy.nii.gz").dataobj)
    assert 0 < entropy.max() <= np.log(3) + 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entropy.nii.gz", "in", "labels.nii.gz"]


def test_a_region_counts_voxels_as_the_file_does(card, tmp_path) -> None:
    source = make_folder(tmp_path / "in", 1) / "case_00.nii.gz"
    out = tmp_path / "labels.nii.gz"
    assert run(arguments(source, out, "--region", "3,10,2,15,20,18")) == 0
    outside = np.asarray(nib.load(out).dataobj)
    assert outside[3:15, 10:20, 2:18].any()
    outside[3:15, 10:20, 2:18] = 0
    assert not outside.any()


def test_labels_compared_with_themselves_agree(card, tmp_path, capsys) -> None:
    source = make_folder(tmp_path / "in", 1) / "case_00.nii.gz"
    out = tmp_path / "labels.nii.gz"
    assert run(arguments(source, out)) == 0
    capsys.readouterr()
    assert run(arguments(source, tmp_path / "again.nii.gz", "--reference", str(out), "--json")) == 0
    scores = json.loads(capsys.readouterr().out)["agreement"]
    assert scores
    assert all(score["dice"] == 1 and score["hd95_mm"] == 0 for score in scores)


def test_a_folder_of_any_formats_is_done_but_for_the_corrupt_one(card, tmp_path, capsys, shared_data) -> None:
    source = make_folder(tmp_path / "in", 1)
    image = sitk.GetImageFromArray(make_volume(7))
    (source / "deeper").mkdir()
    sitk.WriteImage(image, source / "deeper" / "one.nrrd")
    sitk.WriteImage(image, source / "deeper" / "two.mha")
    sitk.WriteImage(image, source / "case_00.mhd")  # a name that is taken, and a file of voxels beside it
    np.save(source / "array.npy", make_volume(8))
    (source / "corrupt.nii.gz").write_bytes((source / "case_00.nii.gz").read_bytes()[:500])
    (source / "notes.txt").write_text("no volume")
    out = tmp_path / "out"
    assert run(arguments(source, out, "--json")) == 2
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    names = ["array", "case_00_mhd", "case_00_nii_gz", "deeper/one", "deeper/two"]
    assert [one["case"] for one in said["done"]] == names
    assert [one["case"] for one in said["failed"]] == ["corrupt"]
    assert captured.err.splitlines()[-1].startswith("error: 1 of 6 cases failed")  # after what readers warn of
    assert "corrupt.nii.gz" in (out / "failures.csv").read_text()
    rows = (out / "summary.csv").read_text().splitlines()
    assert rows[0] == "case,input,head [ml],tail [ml]"
    assert len(rows) == 6
    for name in names:
        labels = np.asarray(nib.load(out / f"{name}.nii.gz").dataobj)
        assert labels.size == 20 * 24 * 22
    # one and two hold the same voxels on the same grid
    assert rows[4].split(",")[2:] == rows[5].split(",")[2:]

    (source / "corrupt.nii.gz").unlink()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}
    assert run(arguments(source, out)) == 0
    assert "5 done, 5 of them before, 0 failed" in capsys.readouterr().out
    assert not (out / "failures.csv").exists()
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}


def test_a_folder_of_dicom_slices_is_one_case(card, tmp_path, capsys, shared_data) -> None:
    import shutil

    source = tmp_path / "in" / "patient"
    shutil.copytree(shared_data / "dcmqi_ct", source, ignore=lambda folder, names: [
        name for name in names if not name.endswith(".dcm") or name in ("liver.dcm", "partial_overlaps.dcm")
        if not (Path(folder) / name).is_dir()
    ])  # fmt: skip
    from napari_medtransformer.segmentation.cases import find_cases

    cases = find_cases(tmp_path / "in")
    assert len(cases) == 1
    assert len(cases[0].files) == 3


def test_a_changed_input_or_option_is_done_again_and_a_renamed_copy_is_not_mixed_up(card, tmp_path, capsys) -> None:
    source = make_folder(tmp_path / "in", 2)
    out = tmp_path / "out"
    assert run(arguments(source, out)) == 0
    nib.save(nib.Nifti1Image(make_volume(9), np.eye(4)), source / "case_01.nii.gz")
    capsys.readouterr()
    assert run(arguments(source, out, "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["done_before"] for one in said["done"]] == [True, False]
    assert run(arguments(source, out, "--overlap", "0.5", "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["done_before"] for one in said["done"]] == [False, False]


def test_another_card_of_the_same_name_and_weights_is_done_again(card, tmp_path) -> None:
    from napari_medtransformer.progress import run_to_end
    from napari_medtransformer.segmentation.batch import batch_steps
    from napari_medtransformer.segmentation.cases import find_cases
    from napari_medtransformer.segmentation.work import Errand, job_for

    source, out = make_folder(tmp_path / "in", 1), tmp_path / "out"
    out.mkdir()
    errands = [Errand(case, out / f"{case.name}.nii.gz") for case in find_cases(source)]

    def skipped(one: ModelCard) -> bool:
        report = run_to_end(batch_steps(errands, job_for(one, "random", "cpu", {}), out))
        return report.done[0].skipped

    assert not skipped(CARD)
    assert skipped(replace(CARD, description="other words", weights=tmp_path / "elsewhere.safetensors"))
    renamed = replace(CARD, labels=(replace(CARD.labels[0], name="face"), CARD.labels[1]))
    assert not skipped(renamed)
    assert "face" in (out / "summary.csv").read_text()
    assert not skipped(replace(renamed, input=replace(CARD.input, spacing_mm=(2.0, 2.0, 2.0))))


def test_labels_of_one_volume_among_a_batchs_are_done_again_by_the_batch(card, tmp_path) -> None:
    source, out = make_folder(tmp_path / "in", 2), tmp_path / "out"
    assert run(arguments(source, out)) == 0
    before = outputs(out)
    assert run(arguments(source / "case_01.nii.gz", out, "--region", "0,0,0,5,5,5")) == 0
    assert outputs(out) != before
    assert run(arguments(source, out)) == 0
    assert outputs(out) == before


def test_a_structure_that_was_not_measured_has_an_empty_cell(card, tmp_path) -> None:
    source, out = make_folder(tmp_path / "in", 1), tmp_path / "out"
    assert run(arguments(source, out)) == 0
    record = json.loads((out / "case_00.json").read_text())
    del record["volumes_ml"]["tail"]
    (out / "case_00.json").write_text(json.dumps(record))
    assert run(arguments(source, out)) == 0
    assert (out / "summary.csv").read_text().splitlines()[1].endswith(",")


def test_structures_that_the_model_does_not_know_are_not_scored(card, tmp_path, capsys) -> None:
    image = make_folder(tmp_path / "in", 1) / "case_00.nii.gz"
    reference = np.zeros((20, 24, 22), np.uint8)
    reference[2:8], reference[12:14] = 1, 77
    nib.save(nib.Nifti1Image(reference, nib.load(image).affine), tmp_path / "reference.nii.gz")
    more = ["--reference", str(tmp_path / "reference.nii.gz"), "--json"]
    assert run(arguments(image, tmp_path / "out.nii.gz", *more)) == 0
    scores = json.loads(capsys.readouterr().out)["agreement"]
    assert [score["name"] for score in scores] == ["head", "tail"]


def test_a_device_that_is_not_there_is_refused_before_a_batch(card, tmp_path, capsys) -> None:
    source, out = make_folder(tmp_path / "in", 1), tmp_path / "out"
    assert run([*arguments(source, out), "--device", "abacus"]) == 2
    assert capsys.readouterr().err.startswith("error: no device 'abacus'")
    assert not out.exists()


def test_a_doubt_about_a_case_is_told_once(card, tmp_path, capsys) -> None:
    source = make_folder(tmp_path / "in", 0)
    nib.save(nib.Nifti1Image(make_volume(0)[:8, :8, :8], np.eye(4)), source / "small.nii.gz")
    assert run(arguments(source, tmp_path / "out")) == 0
    assert capsys.readouterr().err.count("the field of view") == 1


def test_values_of_one_name_are_measured_together(card, tmp_path) -> None:
    from napari_medtransformer.segmentation.cases import single_case
    from napari_medtransformer.segmentation.work import Errand, job_for, run_errand

    image = make_folder(tmp_path / "in", 1) / "case_00.nii.gz"
    same = replace(CARD, labels=tuple(replace(label, name="brain") for label in CARD.labels))
    volumes = [
        run_errand(job_for(one, "random", "cpu", {}), Errand(single_case(image), tmp_path / "l.nii.gz")).volumes_ml
        for one in (CARD, same)
    ]
    assert volumes[1] == {"brain": pytest.approx(sum(volumes[0].values()))}


def test_a_dicom_seg_is_scored_as_it_was_found_and_nothing_found_is_said(
    card, tmp_path, capsys, shared_data, monkeypatch
) -> None:
    from napari_medtransformer.progress import Result
    from napari_medtransformer.segmentation import engine

    image, reference = shared_data / "dcmqi_ct", tmp_path / "reference.nii.gz"
    one = tmp_path / "ct"
    one.mkdir()
    for file in sorted(image.glob("*.dcm")):
        if file.name not in ("liver.dcm", "partial_overlaps.dcm"):
            (one / file.name).symlink_to(file)
    box = ["--region", "40,40,1,60,60,2"]
    assert run(arguments(one, reference, *box)) == 0
    capsys.readouterr()
    assert run(arguments(one, tmp_path / "out.dcm", *box, "--reference", str(reference), "--json")) == 0
    scores = json.loads(capsys.readouterr().out)["agreement"]
    assert scores
    assert all(score["dice"] == 1 for score in scores)

    steps = engine.segment_steps

    def nothing(*given: Any, **options: Any) -> Iterator[Any]:
        for step in steps(*given, **options):
            if isinstance(step, Result):
                step.value.labels[:] = 0
            yield step

    monkeypatch.setattr(engine, "segment_steps", nothing)
    assert run(arguments(one, tmp_path / "none.dcm", *box)) == 2
    assert "nothing was found" in capsys.readouterr().err.splitlines()[-1]


def test_two_batches_do_not_write_to_one_folder(card, tmp_path, capsys) -> None:
    from filelock import FileLock

    source = make_folder(tmp_path / "in", 1)
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".medtransformer.lock"):
        assert run(arguments(source, out)) == 2
    assert "another batch is writing" in capsys.readouterr().err


def test_an_input_that_went_away_is_reported_and_the_others_are_done(card, tmp_path) -> None:
    from napari_medtransformer.progress import run_to_end
    from napari_medtransformer.segmentation.batch import batch_steps
    from napari_medtransformer.segmentation.cases import find_cases
    from napari_medtransformer.segmentation.work import Errand, job_for

    source, out = make_folder(tmp_path / "in", 3), tmp_path / "out"
    out.mkdir()
    job = job_for(CARD, "random", "cpu", {})
    errands = [Errand(case, out / f"{case.name}.nii.gz") for case in find_cases(source)]
    assert not run_to_end(batch_steps(errands, job, out)).failed
    # done before, with a record; gone between looking into the folder and looking into the file
    (source / "case_01.nii.gz").unlink()
    report = run_to_end(batch_steps(errands, job, out))
    assert [one.name for one in report.failed] == ["case_01"]
    assert [(one.name, one.skipped) for one in report.done] == [("case_00", True), ("case_02", True)]


@pytest.mark.parametrize(
    "more, words",
    [
        (["--overlap", "2"], "overlap"),
        (["--mirror", "q"], "--mirror"),
        (["--plane", "7"], "axis"),
        (["--region", "1,2,3"], "--region"),
        (["--device", "warp"], "device"),
        (["--cluster", "nowhere"], "scheduler"),
    ],
)
def test_a_users_mistake_is_one_line(card, tmp_path, capsys, more, words) -> None:
    source = make_folder(tmp_path / "in", 1) / "case_00.nii.gz"
    assert run(arguments(source, tmp_path / "labels.nii.gz", *more)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert words in said
    assert not (tmp_path / "labels.nii.gz").exists()


def test_a_reference_on_another_grid_is_refused_before_the_work(card, tmp_path, capsys) -> None:
    source = make_folder(tmp_path / "in", 1) / "case_00.nii.gz"
    moved = np.diag([1.0, -1.0, 1.0, 1.0])
    moved[0, 3] = 5
    shape = nib.load(source).shape
    nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), moved), tmp_path / "reference.nii.gz")
    out = tmp_path / "labels.nii.gz"
    assert run(arguments(source, out, "--reference", str(tmp_path / "reference.nii.gz"))) == 2
    assert "lies on another grid" in capsys.readouterr().err
    assert not out.exists()


def test_a_model_that_waits_for_clicks_and_an_empty_folder_are_refused(card, tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    assert run(["segment", str(tmp_path / "empty"), "-o", str(tmp_path / "out"), "-m", "medt-click-tiny"]) == 2
    assert "waits for clicks" in capsys.readouterr().err
    assert run(arguments(tmp_path / "empty", tmp_path / "out")) == 2
    assert "holds no volume" in capsys.readouterr().err
