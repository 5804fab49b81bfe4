"""Training both looks learns, resumes exactly, and gives weights that the model takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from napari_medtransformer.errors import UnreadableWeights
from napari_medtransformer.models.click_network import ClickConfig, ClickNetwork
from napari_medtransformer.progress import Result
from napari_medtransformer.training.cases import CaseSource, LabelledCase, read_case
from napari_medtransformer.training.click import ClickRecipe, train_click
from napari_medtransformer.training.crop_stream import SecondLookRecipe
from napari_medtransformer.training.first_look import FirstLookRecipe
from napari_medtransformer.training.loop import Schedule
from napari_medtransformer.volumes.sample_data import sample_path

CONFIG = ClickConfig(input_size=64, stem_channels=(8, 16, 24), width=32, depth=1, heads=2, decoder_width=32)
SCHEDULE = Schedule(steps=3, warmup_steps=1, checkpoint_every=2)
RECIPE = ClickRecipe(
    FirstLookRecipe(SCHEDULE, images_per_step=2, targets_per_image=2, workers=0, watched=2, seed=1),
    SecondLookRecipe(
        SCHEDULE,
        images_per_step=2,
        targets_per_image=2,
        slice_size=64,
        first_look_share=1.0,
        workers=0,
        watched=2,
        seed=1,
    ),
)


@pytest.fixture(scope="module")
def ct() -> LabelledCase:
    names = ("example_ct.nii.gz", "example_seg_fast_force_split.nii.gz")
    return read_case(sample_path(names[0]), sample_path(names[1]), CaseSource(*names, "CT", 1.0))


def train(cases: list[LabelledCase], folder: Path, stop_after: int | None = None) -> list[object]:
    steps = []
    for step in train_click(cases, folder, RECIPE, config=CONFIG):
        steps.append(step)
        if len(steps) == stop_after:
            break
    return steps


@pytest.mark.parametrize("stop_after", [2, 3, 5])
def test_stopping_and_resuming_gives_the_weights_of_not_stopping(
    ct: LabelledCase, tmp_path: Path, whole: dict[str, torch.Tensor], stop_after: int
) -> None:
    train([ct], tmp_path, stop_after)
    train([ct], tmp_path)
    resumed = load_file(tmp_path / "weights.safetensors")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, msg=name)


@pytest.fixture(scope="module")
def whole(ct: LabelledCase, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("whole")
    steps = train([ct], folder)
    assert isinstance(steps[-1], Result)
    assert len(steps) == 7
    return load_file(folder / "weights.safetensors")


def test_both_looks_are_trained_and_fit_the_network(whole: dict[str, torch.Tensor]) -> None:
    torch.manual_seed(RECIPE.first.seed)
    untrained = ClickNetwork(CONFIG).state_dict()
    assert whole.keys() == untrained.keys()
    for part in ("encoder.", "decoder.", "focus."):
        moved = [
            not torch.equal(whole[k].float(), v.half().float()) for k, v in untrained.items() if k.startswith(part)
        ]
        assert sum(moved) > 0.8 * len(moved), part


def test_every_checkpoint_is_logged_with_a_sheet_of_fixed_targets(ct: LabelledCase, tmp_path: Path) -> None:
    train([ct], tmp_path)
    for part in ("first", "second"):
        lines = [json.loads(line) for line in (tmp_path / part / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [2, 3]
        for line in lines:
            assert 0 <= line["validation_click"] <= 1
            picture = tmp_path / part / "pictures" / f"step-{line['step']:06d}.png"
            assert picture.stat().st_size > 10_000


def test_another_networks_checkpoint_is_refused(ct: LabelledCase, tmp_path: Path) -> None:
    train([ct], tmp_path, stop_after=3)
    other = ClickConfig(input_size=64, stem_channels=(8, 16, 24), width=48, depth=1, heads=2, decoder_width=32)
    with pytest.raises(UnreadableWeights, match="another training"):
        list(train_click([ct], tmp_path, RECIPE, config=other))


def saved(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_training_of_other_data_start_or_recipe_is_refused_and_left_as_it_is(
    ct: LabelledCase, tmp_path: Path
) -> None:
    train([ct], tmp_path)
    kept = saved(tmp_path)
    begun = tmp_path.with_name("begun.pt")
    torch.save(ClickNetwork(CONFIG).state_dict(), begun)
    seeded = replace(RECIPE, first=replace(RECIPE.first, seed=7))
    for cases, recipe, start, words in (
        ([ct, replace(ct, name="another")], RECIPE, None, "data"),
        ([replace(ct, labels=np.where(ct.labels == 5, 6, ct.labels))], RECIPE, None, "data"),
        ([replace(ct, axes=(0,))], RECIPE, None, "all planes True, not False"),
        ([ct], RECIPE, begun, "from 'nothing', not "),
        ([ct], seeded, None, r"first seed 1, not 7\."),
    ):
        with pytest.raises(UnreadableWeights, match=rf"belongs to another training: .*{words}.*--output"):
            list(train_click(cases, tmp_path, recipe, config=CONFIG, start_from=start))
        assert saved(tmp_path) == kept


def test_a_training_of_a_version_that_noted_less_goes_on_with_the_same_recipe(
    ct: LabelledCase, tmp_path: Path, whole: dict[str, torch.Tensor]
) -> None:
    train([ct], tmp_path, stop_after=5)
    noted = json.loads((tmp_path / "recipe.json").read_text())
    older = {
        look: {name: value for name, value in noted[look].items() if name != "slices"} for look in ("first", "second")
    }
    (tmp_path / "recipe.json").write_text(json.dumps(older))
    with pytest.raises(UnreadableWeights, match="second seed 1, not 2"):
        list(train_click([ct], tmp_path, replace(RECIPE, second=replace(RECIPE.second, seed=2)), config=CONFIG))
    assert len(train([ct], tmp_path)) < 7
    for name, value in load_file(tmp_path / "weights.safetensors").items():
        torch.testing.assert_close(whole[name], value, rtol=0, atol=0, msg=name)
    assert json.loads((tmp_path / "recipe.json").read_text()) == noted


def test_a_training_that_kept_nothing_yet_may_begin_with_another_recipe(ct: LabelledCase, tmp_path: Path) -> None:
    train([ct], tmp_path, stop_after=1)
    seeded = replace(RECIPE, first=replace(RECIPE.first, seed=7))
    next(train_click([ct], tmp_path, seeded, config=CONFIG))
    assert json.loads((tmp_path / "recipe.json").read_text())["first"]["seed"] == 7
