"""A click model trained on a folder: its weights, its card for the program and its card for people."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path

from napari_medtransformer.files import folder_to_write, write_text
from napari_medtransformer.given import flag, whole
from napari_medtransformer.given import path as path_of
from napari_medtransformer.given import text as text_of
from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.card_files import write_card
from napari_medtransformer.models.devices import choose_device
from napari_medtransformer.models.registry import find_card
from napari_medtransformer.models.weights import find_weights, load_state
from napari_medtransformer.progress import Progress, Result, Steps
from napari_medtransformer.training.cases import LabelledCase, read_cases
from napari_medtransformer.training.click import ClickRecipe, fine_tuning, from_nothing, train_click

_BASE = "medt-click-tiny"
_FINE_TUNING_STEPS, _SEED = 100, 2026


@dataclass(frozen=True)
class ClickTraining:
    """What is to be trained. folder: the data. output: where everything is written. name: of the model.

    start: "medt-click-tiny", a weights file, or "nothing". steps: of each look; None is 100 for fine-tuning and the
    shipped recipe's own from nothing. seed: None for the recipe's own. all_planes: whether labels fill whole volumes.
    Raises InvalidOption.
    """

    folder: Path
    output: Path
    name: str
    start: str = _BASE
    steps: int | None = None
    seed: int | None = None
    all_planes: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", path_of(self.folder, "a folder of cases"))
        object.__setattr__(self, "output", path_of(self.output, "the folder of a training"))
        for what in ("name", "start", "device"):
            text_of(getattr(self, what), f"a training's {what}")
        for what, least in (("steps", 1), ("seed", 0)):
            if getattr(self, what) is not None:
                whole(getattr(self, what), f"a training's {what}", least=least)
        flag(self.all_planes, "whether labels fill whole volumes")


@dataclass(frozen=True)
class TrainedClick:
    """A finished training: the card, where it lies, how many volumes it saw, and the seconds of this call."""

    card: ModelCard
    card_file: Path
    cases: int
    seconds: float


def train_click_model(wanted: ClickTraining) -> Steps[TrainedClick]:
    """Read the cases, train both looks, and write weights, card and text into the output folder.

    Resumes an interrupted training of the same output. Raises UnreadableFile, UnsupportedVolume, UnreadableWeights or
    CannotWrite, each naming the file, and UnsupportedModel for a device that is not there.
    """
    started = time.monotonic()
    device = str(choose_device(wanted.device))
    if wanted.start == "nothing":
        recipe, begin = from_nothing(wanted.steps, wanted.seed), None
    else:
        recipe = fine_tuning(wanted.steps or _FINE_TUNING_STEPS, _SEED if wanted.seed is None else wanted.seed)
        begin = find_weights(find_card(_BASE), None if wanted.start == _BASE else wanted.start)
        load_state(begin)  # better now than after every case was read
    cases: list[LabelledCase] = []
    for case in read_cases(wanted.folder, all_planes=wanted.all_planes):
        if not cases:
            folder_to_write(wanted.output)  # once the folder is found to hold cases, and before all are read
        cases.append(case)
        yield Progress(len(cases), None, f"read {case.name}")
    weights: Path | None = None
    for step in train_click(cases, wanted.output / "training", recipe, device=device, start_from=begin):
        if isinstance(step, Result):
            weights = step.value
        else:
            yield step
    if weights is None:
        raise RuntimeError("the training ended without weights")
    final = wanted.output / f"{wanted.name}.safetensors"
    weights.replace(final)
    seconds = time.monotonic() - started
    card = replace(
        find_card(_BASE),
        name=wanted.name,
        title=wanted.name,
        weights=final.resolve(),
        licence="that of the data it was trained on",
        citation=f"trained by you from {wanted.start}",
        description=f"The click model trained on {len(cases)} labelled volumes of {wanted.folder.name}.",
        modalities=tuple(sorted({case.modality for case in cases} - {"unknown"})),
        training=f"{len(cases)} labelled volumes of {wanted.folder.name}",
    )
    card_file = wanted.output / f"{wanted.name}.json"
    write_card(card, card_file)
    text = _card_text(wanted, recipe, cases, device, seconds)
    write_text(wanted.output / f"{wanted.name}.md", text)
    yield Result(TrainedClick(card, card_file, len(cases), seconds))


def _card_text(
    wanted: ClickTraining, recipe: ClickRecipe, cases: list[LabelledCase], device: str, seconds: float
) -> str:
    """The card as Markdown: what was done, and that nothing was measured."""
    first, second = recipe.first, recipe.second
    begun = "random weights" if wanted.start == "nothing" else f"the weights of {wanted.start}"
    rows = [
        f"| {what} | {look.schedule.steps} | {look.images_per_step} × {look.targets_per_image} "
        f"| {look.schedule.learning_rate:g} | {look.seed} |"
        for what, look in (("first look", first), ("second look", second))
    ]
    return "\n".join(
        [
            f"# {wanted.name}",
            "",
            f"The click model of napari-medtransformer, trained from {begun} on {len(cases)} labelled volumes: "
            f"{', '.join(case.name for case in cases[:20])}{' and more' if len(cases) > 20 else ''}.",
            "",
            "**Research use only.** Nothing was held out, so no score is given here: measure it on volumes of your own "
            "that are not in this list.",
            "",
            "| part | steps | images × targets per step | peak rate | seed |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"On {device} ({platform.machine()}), {seconds / 60:.1f} minutes in the last call.",
            "",
        ]
    )
