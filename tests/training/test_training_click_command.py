"""`medtransformer train click`: from nothing to a model that loads, resumed, and what it says without data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from napari_medtransformer.cli.app import run
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.models.card_files import read_card
from napari_medtransformer.models.registry import load_model
from napari_medtransformer.training.cases import SHARED_ORIGINS
from napari_medtransformer.training.click import ClickRecipe, from_nothing
from napari_medtransformer.volumes.sample_data import sample_path


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    for kind, name in (("images", "example_ct.nii.gz"), ("labels", "example_seg_fast_force_split.nii.gz")):
        (folder / kind).mkdir(parents=True)
        shutil.copy(sample_path(name), folder / kind / "one.nii.gz")
    return folder


@pytest.mark.slow
def test_one_command_trains_both_looks_from_nothing_and_goes_on_where_it_stopped(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "click", str(labelled), "-o", str(tmp_path / "out"), "--from", "nothing", "--steps", "2"]
    assert run([*words, "--seed", "5", "--device", "cpu", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    weights = load_file(summary["weights"])
    # As if the second look had been interrupted after its first step.
    (tmp_path / "out" / "training" / "second" / "weights.safetensors").unlink()
    Path(summary["weights"]).unlink()
    assert run([*words, "--seed", "5", "--device", "cpu", "--json"]) == 0
    again = load_file(summary["weights"])
    assert all((again[name] == value).all() for name, value in weights.items())
    model = load_model(read_card(Path(summary["card"])), device="cpu")
    image = np.random.default_rng(0).random((60, 80)).astype(np.float32)
    found = model.decode(model.encode(image), Prompts(np.array([[30.0, 40.0]], np.float32), np.array([1])))
    assert np.isfinite(found.logits).all()
    recipe = json.loads((tmp_path / "out" / "training" / "recipe.json").read_text())
    assert recipe["first"]["schedule"]["steps"] == recipe["second"]["schedule"]["steps"] == 2
    assert recipe["first"]["seed"] == 5


def test_from_nothing_is_the_shipped_recipe_unless_it_is_cut() -> None:
    shipped, cut = ClickRecipe(), from_nothing(30, 7)
    assert from_nothing() == shipped
    for look, whole in ((cut.first, shipped.first), (cut.second, shipped.second)):
        assert look.schedule.steps == 30
        assert look.schedule.warmup_steps == 3
        assert look.schedule.learning_rate == whole.schedule.learning_rate
        assert look.images_per_step == whole.images_per_step
        assert look.seed == 7


def test_without_the_data_it_is_said_where_each_set_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sct").mkdir()
    assert run(["train", "click", str(tmp_path), "-o", str(tmp_path / "out"), "--from", "nothing"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for name, origin in SHARED_ORIGINS.items():
        assert (f"{name} ({origin})" in error) == (name != "sct")
    assert not (tmp_path / "out").exists()
