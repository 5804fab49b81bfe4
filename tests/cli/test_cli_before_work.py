"""What can be checked is checked before the work: no image is encoded, no window is run, no case is read in vain."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from common_user import common_user

from napari_medtransformer import cli, models
from napari_medtransformer.cli.app import run
from napari_medtransformer.errors import CannotWrite
from napari_medtransformer.files import file_to_write, folder_to_write

# The first word of each says which step must not be reached.
REFUSED = {
    "run | inspect brain.nii.gz -q 10,20,10 --model medt-hippocampus --site wrong": "no attention site 'wrong'",
    "run | inspect brain.nii.gz -q 10,20,10 --model medt-hippocampus --site wrong --matrix m.png": "attention site",
    "run | inspect ct.nii.gz -q 78,58,106 --site wrong --rollout r.png": "no attention site 'wrong'",
    "run | inspect ct.nii.gz -q 78,58,106 --site encoder.2 --token 1": "in encoder.2 the image asks",
    "run | inspect ct.nii.gz -q 78,58,106 --token 40": "there is no prompt token 40; there are: 0 mask 1",
    "run | inspect ct.nii.gz -q 78,58,106 --site decoder.0.image-to-prompt -o a.nii.gz": "attends to prompt tokens",
    "run | inspect ct.nii.gz -q 78,58,106 --site decoder.0.image-to-prompt --figure a.png": "attends to prompt tokens",
    "load | inspect ct.nii.gz -q 78,58,106 --labels organs.nii.gz --ask-label 250 --matrix m.png": "is labelled 250 on",
    "load | inspect ct.nii.gz -q 78,58,106 -o none/a.csv": "there is no folder none",
    "load | inspect ct.nii.gz -q 78,58,106 --labels organs.nii.gz --shares none/a.csv": "there is no folder none",
    "load | inspect ct.nii.gz -q 78,58,106 --figure folder.png": "it is a folder",
    "read | convert ct.nii.gz -o none/a.nii.gz --resample 0.5": "there is no folder none",
    "read | convert ct.nii.gz -o ct.nii.gz --resample 3": "is the image itself",
    "resample | convert ct.nii.gz -o a.seg.nrrd --resample 0.5": "is the name of a file of labels",
    "resample | convert organs.nii.gz -o a.dcm --labels --resample 2": "DICOM",
    "read | measure organs.nii.gz -o a.txt": "no suffix of a table",
    "read | measure organs.nii.gz -o none/a.csv": "there is no folder none",
    "read | train auto cases --device abacus": "no device 'abacus'",
    "read | train click cases --device abacus": "no device 'abacus'",
    "read | train click cases --from none.safetensors": "none.safetensors does not exist",
}
STEPS = {
    "read": (
        "napari_medtransformer.cli.convert.read_input",
        "napari_medtransformer.volumes.read_labels",
        "napari_medtransformer.training.click_report.read_cases",
        "napari_medtransformer.training.auto_model.find_cases",
    ),
    "resample": ("napari_medtransformer.volumes.resample_isotropic",),
    "load": ("napari_medtransformer.models.load_model", "napari_medtransformer.cli.loading.load_model"),
    "run": (
        "napari_medtransformer.inspection.inspect_slice",
        "napari_medtransformer.inspection.windows.inspect_windows",
    ),
}


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("before")
    for name, sample in (
        ("ct", "example_ct"),
        ("organs", "example_seg_fast_force_split"),
        ("brain", "hippocampus_003"),
    ):
        shutil.copy(repository / "sample_data" / f"{sample}.nii.gz", made / f"{name}.nii.gz")
    (made / "folder.png").mkdir()
    return made


def reached(*_: object, **__: object) -> None:
    raise AssertionError("the work was begun before everything was checked")


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_before_the_work(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step, typed = case.split(" | ")
    assert cli
    assert models
    for name in STEPS[step]:
        monkeypatch.setattr(name, reached)
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert run(shlex.split(typed)) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert REFUSED[case] in told.err
    assert sorted(folder.rglob("*")) == before


def test_a_folder_that_takes_no_files_is_told_before_the_work() -> None:
    with common_user() as folder:
        folder_to_write(folder)
        folder.chmod(0o500)
        for check, path in ((file_to_write, folder / "a.nii.gz"), (folder_to_write, folder)):
            with pytest.raises(CannotWrite, match="no permission to write in"):
                check(path)


def test_a_folder_to_write_is_made_or_told(tmp_path: Path) -> None:
    assert folder_to_write(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", tmp_path / "file" / "b", "a\0b", None, 5):
        with pytest.raises(CannotWrite, match="is no folder"):
            folder_to_write(wrong)
