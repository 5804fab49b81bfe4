"""What is typed wrongly ends with exit code 2 and one line that says what would be right, before anything is run."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_medtransformer.cli.app import run

MISTAKES = {
    "click ct.nii.gz -o a.nii.gz -p 78,58,106 --series 2": "is no DICOM and so has no series 2. Leave --series out",
    "click ct.nii.gz -o a.nii.gz -p 78,58,106 --frame 2": "Leave --frame out",
    "click ct.nii.gz -o a.dcm -p 78,58,106": "Save as .nii.gz or .seg.nrrd",
    "click ct.nii.gz -o a.nii.gz -p 78,58,106 --model none.json": "none.json cannot be read: No such file",
    "click ct.nii.gz -o a.nii.gz -p 78,58,106 --model note.json": "is no model card but something else",
    "click ct.nii.gz -o a.nii.gz -p 78,58,106 --axis 3": "--axis '3' is no axis; write 0 (axial)",
    "click ct.nii.gz -o a.nii.gz --box 42,27,106,42,30,106": "the box (42, 27, 106) to (42, 30, 106) is empty",
    "click ct.nii.gz -o a.nii.gz --box 42,27,106,99,82,110": "spans several slices",
    "inspect ct.nii.gz -q 78,58,106 --labels organs.nii.gz": "leave --labels out",
    "inspect ct.nii.gz -q 78,58,106 --labels organs.nii.gz --ask-label 5": "--ask-label says who asks in --shares",
    "inspect ct.nii.gz -q 78,58,106 --figure a.png --matrix ./a.png": "a.png was given for two results",
    "inspect ct.nii.gz -q 78,58,106 -o a.seg.nrrd": "is the name of a file of labels",
    "segment brain.nii.gz -o a.nii.gz --plane 5": "--plane '5' is no axis",
    "segment brain.nii.gz -o a.nii.gz --plane all": "--plane is for 2D models",
    "segment brain.nii.gz -o a.nii.gz --series 3": "has no series 3",
    "segment brain.nii.gz -o a.nii.gz --uncertainty ./a.nii.gz": "cannot be labels and their uncertainty at once",
    "segment brain.nii.gz -o a.txt": "a.txt has no suffix that can be written",
    "segment brain.nii.gz -o a.nii.gz --region 0,0,0,99,9,9": "which reaches from 0,0,0 to 34,52,35",
    "segment brain.nii.gz -o a.nii.gz --region 5,5,5,9,5,9": "is empty",
    "segment brain.nii.gz -o a.nii.gz --jobs 0": "greater than or equal to 1",
    "convert organs.nii.gz -o a.seg.nrrd": "is the name of a file of labels",
    "convert ct.nii.gz -o a.nrrd --series 1": "Leave --series out",
    "measure organs.nii.gz --names none.csv": "none.csv cannot be read: No such file",
    "measure organs.nii.gz --names ct.nii.gz": "it is no text; expected .csv or .json",
    "train auto data --spacing nan,1,1": "--spacing takes three positive numbers",
    "train auto data --spacing inf,1,1": "--spacing takes three positive numbers",
}


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample CT, its organs and a brain under short names, and a file of JSON that is no card."""
    made = tmp_path_factory.mktemp("mistakes")
    for name, sample in (
        ("ct", "example_ct"),
        ("organs", "example_seg_fast_force_split"),
        ("brain", "hippocampus_003"),
    ):
        shutil.copy(repository / "sample_data" / f"{sample}.nii.gz", made / f"{name}.nii.gz")
    (made / "note.json").write_text("dear diary")
    return made


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(
    typed: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert run(shlex.split(typed)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert MISTAKES[typed] in told.err
    assert sorted(folder.rglob("*")) == before


def test_a_folder_that_is_named_by_a_dot_has_its_name_in_messages(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shared_data / "totalsegmentator" / "dicom")
    assert run(["click", ".", "-o", str(tmp_path / "a.nii.gz"), "--point", "999,0,0"]) == 2
    assert "lies outside dicom: its voxels" in capsys.readouterr().err


def test_brackets_in_the_name_of_a_label_are_no_markup(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = repository / "sample_data" / "hippocampus_003_labels.nii.gz"
    (tmp_path / "names.json").write_text(json.dumps({"1": "[red]head[/red] :liver:", "2": "tail [/]"}))
    assert run(["measure", str(labels), "--names", str(tmp_path / "names.json")]) == 0
    told = capsys.readouterr().out
    assert "[red]head[/red] :liver:" in told
    assert "tail [/]" in told


def test_a_card_beside_weights_is_a_model_for_every_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As training writes them: --model OUT/NAME.json."""
    import nibabel as nib

    from napari_medtransformer.models import find_card
    from napari_medtransformer.models.card_files import write_card
    from napari_medtransformer.models.own import own_card
    from napari_medtransformer.models.weights import find_weights

    base = find_card("medt-click-tiny")
    weights = tmp_path / "livers.safetensors"
    shutil.copy(find_weights(base, None), weights)
    write_card(own_card(weights, base, []), tmp_path / "livers.json")
    given = ["click", str(folder / "ct.nii.gz"), "--point", "78,58,106", "-o"]
    assert run([*given, str(tmp_path / "one.nii.gz"), "--model", str(tmp_path / "livers.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "livers"
    assert run([*given, str(tmp_path / "other.nii.gz")]) == 0
    masks = [np.asarray(nib.load(tmp_path / name).dataobj) for name in ("one.nii.gz", "other.nii.gz")]
    assert masks[0].any()
    assert np.array_equal(*masks)
