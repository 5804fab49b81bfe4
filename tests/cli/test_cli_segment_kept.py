"""What `medtransformer segment` leaves alone: files that it did not make, and its own outputs as inputs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from batch_runs import arguments, make_folder, outputs

from napari_medtransformer.cli.app import run


def make_labels(folder: Path, name: str = "case_00.nii.gz") -> Path:
    """Labels as somebody drew them, on the grid of make_folder's images."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.zeros((20, 24, 22), np.uint8)
    labels[5:9, 5:9, 5:9] = 1
    nib.save(nib.Nifti1Image(labels, np.diag([1.0, -1.0, 1.0, 1.0])), folder / name)
    return folder / name


def refused(capsys: pytest.CaptureFixture[str], command: list[str], words: str) -> None:
    assert run(command) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: ")
    assert words in said[-1]


def test_labels_drawn_by_hand_are_not_replaced_by_a_batch(card, tmp_path, capsys) -> None:
    images = make_folder(tmp_path / "images", 2)
    manual = make_labels(tmp_path / "labels")
    before = manual.read_bytes()
    refused(capsys, arguments(images, tmp_path / "labels"), "is not from this program's batch")
    assert manual.read_bytes() == before
    assert (tmp_path / "labels" / "case_01.nii.gz").is_file()
    assert "case_00" in (tmp_path / "labels" / "failures.csv").read_text()


@pytest.mark.parametrize("noted", [True, False])
def test_labels_corrected_by_hand_are_not_replaced_by_a_batch_with_other_options(card, tmp_path, capsys, noted) -> None:
    images, out = make_folder(tmp_path / "images", 2), tmp_path / "out"
    assert run(arguments(images, out)) == 0
    made, record = out / "case_00.nii.gz", out / "case_00.json"
    if not noted:  # as by a version that noted no content
        told = json.loads(record.read_text())
        del told["labels"]
        record.write_text(json.dumps(told))
        os.utime(record, (1e9, 1e9))
    make_labels(out)
    corrected, other = made.read_bytes(), (out / "case_01.nii.gz").stat().st_mtime_ns
    capsys.readouterr()
    assert run(arguments(images, out)) == 0  # nothing asked that is not there
    refused(capsys, [*arguments(images, out), "--overlap", "0.6"], "case_00.nii.gz was changed after it was written")
    refused(capsys, arguments(images / "case_00.nii.gz", out), "case_00.nii.gz was changed after it was written")
    assert made.read_bytes() == corrected
    assert (out / "case_01.nii.gz").stat().st_mtime_ns != other  # untouched since, and so done again


def test_another_programs_sidecar_and_tables_are_not_replaced_by_a_batch(card, tmp_path, capsys) -> None:
    images, out = make_folder(tmp_path / "images", 1), tmp_path / "out"
    out.mkdir()
    (out / "case_00.json").write_text('{"EchoTime": 0.03}')
    refused(capsys, arguments(images, out), "case_00.json is not from this program's batch")
    assert json.loads((out / "case_00.json").read_text()) == {"EchoTime": 0.03}
    assert not (out / "case_00.nii.gz").exists()
    (out / "summary.csv").write_text("mine")
    refused(capsys, arguments(images, out), "summary.csv is not from this program's batch")
    assert (out / "summary.csv").read_text() == "mine"


def test_entropies_do_not_replace_files_that_no_batch_made(card, tmp_path, capsys) -> None:
    images = make_folder(tmp_path / "images", 1)
    other = make_labels(tmp_path / "other")
    before = other.read_bytes()
    refused(capsys, arguments(images, tmp_path / "out", "--uncertainty", str(other.parent)), "is not from this")
    assert other.read_bytes() == before


@pytest.mark.parametrize("option", ["-o", "--uncertainty"])
def test_the_images_own_folder_is_refused_for_what_is_made_of_them(card, tmp_path, capsys, option) -> None:
    images = make_folder(tmp_path / "images", 1)
    before = outputs(images)
    command = arguments(images, images if option == "-o" else tmp_path / "out")
    refused(capsys, [*command, *(["--uncertainty", str(images)] if option != "-o" else [])], "holds the images")
    assert outputs(images) == before


def test_entropies_below_the_images_are_no_cases_of_the_next_run(card, tmp_path, capsys) -> None:
    images = make_folder(tmp_path / "images", 1)
    command = arguments(images, images / "labels", "--uncertainty", str(images / "maps"), "--json")
    for before in (False, True):
        assert run(command) == 0
        done = json.loads(capsys.readouterr().out)["done"]
        assert [(one["case"], one["done_before"]) for one in done] == [("case_00", before)]


def test_one_volume_replaces_neither_the_reference_nor_other_labels_of_a_folder(card, tmp_path, capsys) -> None:
    image = make_folder(tmp_path / "images", 1) / "case_00.nii.gz"
    manual = make_labels(tmp_path / "labels")
    before = manual.read_bytes()
    into_folder, by_name = arguments(image, manual.parent), arguments(image, manual)
    refused(capsys, into_folder, "give its name after -o to replace it")
    refused(capsys, [*by_name, "--reference", str(manual)], "the reference")
    entropy = ["--uncertainty", str(manual)]
    refused(capsys, [*arguments(image, tmp_path / "l.nii.gz"), *entropy, "--reference", str(manual)], "the reference")
    assert manual.read_bytes() == before
    assert run(by_name) == 0  # by its own name a file may be replaced
    assert manual.read_bytes() != before


def test_one_volumes_labels_and_entropy_have_two_names_in_a_folder_too(card, tmp_path, capsys) -> None:
    image = make_folder(tmp_path / "images", 1) / "case_00.nii.gz"
    out = tmp_path / "out"
    refused(capsys, arguments(image, out, "--uncertainty", str(out / "case_00.nii.gz")), "labels and their uncertainty")
    assert not (out / "case_00.nii.gz").exists()


def test_a_case_ended_between_its_labels_and_its_record_is_done_again(card, tmp_path, monkeypatch) -> None:
    from napari_medtransformer import volumes

    images, out = make_folder(tmp_path / "images", 1), tmp_path / "out"
    measure = volumes.label_statistics
    monkeypatch.setattr(volumes, "label_statistics", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
    assert run(arguments(images, out)) == 2
    assert (out / "case_00.nii.gz").is_file()
    monkeypatch.setattr(volumes, "label_statistics", measure)
    assert run(arguments(images, out)) == 0
