"""`medtransformer train click`: a folder of labelled slices becomes a model that answers clicks."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import napari_medtransformer as nmt
from napari_medtransformer.cli.app import run
from napari_medtransformer.models.card_files import read_card
from napari_medtransformer.volumes.sample_data import sample_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One CT of which somebody labelled the liver on three slices, not next to each other."""
    place = tmp_path_factory.mktemp("mine") / "livers"
    for name in ("images", "labels"):
        (place / name).mkdir(parents=True)
    image = nib.load(sample_path("example_ct.nii.gz"))
    organs = np.asarray(nib.load(sample_path("example_seg_fast_force_split.nii.gz")).dataobj)
    liver = np.zeros(organs.shape, np.uint8)
    middle = int(np.argmax((organs == 5).sum(axis=(0, 1))))
    for z in (middle - 4, middle, middle + 4):
        liver[..., z] = organs[..., z] == 5
    nib.save(image, place / "images" / "a.nii.gz")
    nib.save(nib.Nifti1Image(liver, image.affine), place / "labels" / "a.nii.gz")
    return place


def test_a_fine_tuned_model_is_written_with_its_cards_and_answers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "click", str(folder), "--steps", "1", "--device", "cpu", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    card = read_card(Path(told["card"]))
    assert card.name == "livers"
    assert card.modalities == ("CT",)
    assert Path(told["weights"]).stat().st_size < 25_000_000
    text = (folder.parent / "livers-model" / "livers.md").read_text()
    assert "Nothing was held out" in text
    predictor = nmt.ImagePredictor(nmt.load_model(card, device="cpu"))
    predictor.set_image(np.asarray(nmt.read_volume(folder / "images" / "a.nii.gz").data[60]))
    assert predictor.predict(points=[(50, 40)]).mask.shape == predictor.predict(box=(30, 30, 60, 60)).mask.shape


def test_a_folder_without_data_is_told_where_data_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "click", str(tmp_path), "--from", "nothing"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    for origin in ("images/", "TotalSegmentator", "medicaldecathlon.com", "torchio-data"):
        assert origin in told


def test_weights_of_another_family_are_refused_before_any_training(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    torch.save({"image_encoder.patch_embed.proj.weight": torch.zeros(2)}, tmp_path / "sam.pth")
    call = ["train", "click", str(folder), "-o", str(tmp_path / "out"), "--from", str(tmp_path / "sam.pth")]
    assert run(call) == 2
    assert "SAM" in capsys.readouterr().err
    assert not (tmp_path / "out" / "livers.json").exists()
