"""Training both looks learns, resumes exactly, and gives weights that the model takes."""

from __future__ import annotations

import json
from pathlib import Path

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
