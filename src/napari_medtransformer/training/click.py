"""Training of the click model, from nothing or from weights: the first look, then the second on its mistakes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from napari_medtransformer.errors import UnreadableWeights
from napari_medtransformer.files import write_text
from napari_medtransformer.models.click_network import ClickConfig, ClickNetwork
from napari_medtransformer.models.weights import fill, load_state
from napari_medtransformer.progress import Progress, Result, Steps
from napari_medtransformer.training.cases import LabelledCase
from napari_medtransformer.training.crop_stream import SecondLookRecipe
from napari_medtransformer.training.first_look import FirstLookRecipe, train_first_look
from napari_medtransformer.training.identity import check_identity
from napari_medtransformer.training.loop import Schedule
from napari_medtransformer.training.second_look import train_second_look


@dataclass(frozen=True)
class ClickRecipe:
    """Everything that decides what weights come out, beside the data and the weights begun with."""

    first: FirstLookRecipe = field(default_factory=FirstLookRecipe)
    second: SecondLookRecipe = field(default_factory=SecondLookRecipe)


def fine_tuning(steps: int, seed: int = 2026, workers: int = 1) -> ClickRecipe:
    """A recipe that starts from trained weights: low rates, a short memory of the average, `steps` for each look."""
    schedule = Schedule(
        steps, learning_rate=2e-4, warmup_steps=max(1, steps // 10), ema_decay=0.98, checkpoint_every=max(1, steps // 4)
    )
    return ClickRecipe(
        FirstLookRecipe(schedule, images_per_step=4, seed=seed, workers=workers),
        SecondLookRecipe(schedule, images_per_step=4, seed=seed, workers=workers),
    )


def from_nothing(steps: int | None = None, seed: int | None = None) -> ClickRecipe:
    """The shipped recipe. steps: of each look, fewer to try it out; None for its own. seed: None for its own."""
    recipe = ClickRecipe()
    first, second = recipe.first, recipe.second
    if steps is not None:
        first = replace(first, schedule=_cut(first.schedule, steps))
        second = replace(second, schedule=_cut(second.schedule, steps))
    if seed is not None:
        first, second = replace(first, seed=seed), replace(second, seed=seed)
    return ClickRecipe(first, second)


def _cut(schedule: Schedule, steps: int) -> Schedule:
    """A schedule of other length: its warm-up and its checkpoints take no more than a tenth and a half of it."""
    return replace(
        schedule,
        steps=steps,
        warmup_steps=min(schedule.warmup_steps, max(1, steps // 10)),
        checkpoint_every=min(schedule.checkpoint_every, max(1, steps // 2)),
    )


def train_click(
    cases: Sequence[LabelledCase],
    folder: Path,
    recipe: ClickRecipe,
    *,
    config: ClickConfig | None = None,
    device: str = "cpu",
    start_from: Path | None = None,
) -> Steps[Path]:
    """Train both looks in turn, resuming where the folder's checkpoints are; ends with the weights' path.

    start_from: weights of the same architecture to fine-tune. Stopping and resuming gives the weights of not stopping,
    on the CPU and with the same seed. folder/recipe.json tells what decides them. Raises UnreadableWeights if
    start_from or a checkpoint does not fit, or if the folder's checkpoints come from other data, start or recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.first.seed)
    network = ClickNetwork(config)
    if start_from is not None:
        fill(network, load_state(start_from), start_from.name)
    identity = _identity(cases, recipe, start_from)
    if any(folder.glob("*/checkpoint.pt")):
        check_identity(_noted(folder / "recipe.json"), identity, folder)
    write_text(folder / "recipe.json", json.dumps(identity, indent=1))
    steps = recipe.first.schedule.steps + recipe.second.schedule.steps
    first = yield from _part(
        train_first_look(cases, folder / "first", recipe.first, network, device), "first look", 0, steps
    )
    network.load_state_dict(load_file(first))
    done = recipe.first.schedule.steps
    second = yield from _part(
        train_second_look(cases, folder / "second", recipe.second, network, device), "second look", done, steps
    )
    state = {name: value.cpu() for name, value in network.state_dict().items() if not name.startswith("focus.")}
    state |= {f"focus.{name}": value for name, value in load_file(second).items()}
    weights = folder / "weights.safetensors"
    partial = weights.with_suffix(".part")
    save_file({name: value.half().contiguous() for name, value in state.items()}, partial)
    partial.replace(weights)
    yield Result(weights)


def _identity(cases: Sequence[LabelledCase], recipe: ClickRecipe, start_from: Path | None) -> dict[str, Any]:
    """What decides the weights, as JSON reads it back: data and start as 16 hex digits, planes, and the recipe."""
    data = hashlib.sha256()
    for case in cases:
        data.update(repr((case.name, case.modality, case.weight, case.held_out, case.image.shape)).encode())
        data.update(np.ascontiguousarray(case.image).data)
        data.update(np.ascontiguousarray(case.labels).data)
    facts = {
        "data": data.hexdigest()[:16],
        "all_planes": all(len(case.axes) == 3 for case in cases),
        "from": "nothing" if start_from is None else hashlib.sha256(start_from.read_bytes()).hexdigest()[:16],
    }
    return dict(json.loads(json.dumps({**facts, **asdict(recipe)})))


def _noted(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UnreadableWeights(
            f"{path.parent} has checkpoints, but no recipe.json that can be read. "
            "Train into another folder (--output), or remove it to begin anew."
        ) from error


def _part(steps: Steps[Path], what: str, done: int, total: int) -> Generator[Progress, None, Path]:
    """Pass progress on, counted from `done`; returns the result."""
    for step in steps:
        if isinstance(step, Result):
            return step.value
        if isinstance(step, Progress):
            yield Progress(done + step.done, total, f"{what}: {step.message}")
    raise RuntimeError("the training ended without weights")
