"""`medtransformer train`: models from a user's own labelled volumes."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from napari_medtransformer.cli.options import AsJson, Device
from napari_medtransformer.progress import Steps

T = TypeVar("T")

train_app = typer.Typer(invoke_without_command=True)

_KINDS = ("swin-unetr", "unetr")


@train_app.callback()
def train(context: typer.Context) -> None:
    """Train models on your own labelled volumes."""
    from napari_medtransformer.cli.messages import help_without_command

    help_without_command(context)


@train_app.command("auto")
def train_auto(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Holds images/ and labels/, files of the same names in any format."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="Where the model goes; by default FOLDER-model beside it."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="What the model is called; by default the folder's name."),
    ] = None,
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="swin-unetr or unetr.")] = "swin-unetr",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps.")] = 2400,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Windows per step.")] = 2,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Its peak.")] = 1.5e-3,
    seed: Annotated[int, typer.Option("--seed", help="Draws the first weights and every window.")] = 2026,
    validate_every: Annotated[int, typer.Option("--validate-every", min=1, help="Steps between validations.")] = 200,
    mirror: Annotated[
        str,
        typer.Option(
            "--mirror", metavar="AXES", help="Axes that may be mirrored, such as x; none where labels name a side."
        ),
    ] = "",
    window: Annotated[
        str | None,
        typer.Option("--window", metavar="Z,Y,X", help="Voxels per window, multiples of 8; by default what fits."),
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option("--spacing", metavar="Z,Y,X", help="Voxel size in mm to train at; by default the median."),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train an automatic model on FOLDER's labelled volumes.

    The same call goes on where it was interrupted. Every fifth volume by name is for validation. Names of labels are
    read from labels.csv, labels.json or dataset.json in FOLDER. Use the result with --model OUT/NAME.json.
    """
    from napari_medtransformer.cli.messages import say, say_json
    from napari_medtransformer.errors import InvalidOption

    if kind not in _KINDS:
        raise InvalidOption(f"no kind of model {kind!r} can be trained; give one of {', '.join(_KINDS)}.")
    if not learning_rate > 0:
        raise InvalidOption(f"a learning rate is positive, not {learning_rate}; 0.0015 is usual.")
    chosen = _model_name(name, folder)
    target = output or folder.resolve().with_name(f"{folder.resolve().name}-model")
    window_zyx = _triple(window, "window", int)
    spacing_zyx = _triple(spacing, "spacing", float)
    if window_zyx is not None and any(n % 8 for n in window_zyx):
        raise InvalidOption(f"a window's axes are multiples of 8, unlike {window}.")

    # torch is loaded only now, when every word of the user's makes sense.
    from napari_medtransformer.training.auto import AutoRecipe
    from napari_medtransformer.training.auto_model import AutoTraining
    from napari_medtransformer.training.auto_model import train_auto as training_steps

    recipe = AutoRecipe(
        steps=steps,
        windows_per_step=batch,
        learning_rate=learning_rate,
        warmup_steps=min(100, max(1, steps // 10)),
        seed=seed,
        validate_every=validate_every,
        mirror_axes=_axes(mirror),
    )
    wanted = AutoTraining(
        folder, target, chosen, "unetr" if kind == "unetr" else "swin-unetr", recipe, spacing_zyx, window_zyx, device
    )
    trained = _run(training_steps(wanted), chosen, target)
    dice = {
        label.name: _mean([s.dice for s in trained.scores if s.label == label.name]) for label in trained.card.labels
    }
    mean = _mean([value for value in dice.values() if value is not None])
    summary: dict[str, Any] = {
        "model": trained.card.name,
        "weights": str(trained.card.weights),
        "card": str(trained.card_file),
        "text": str(trained.text_file),
        "validation_cases": len({s.case for s in trained.scores}),
        "dice": dice,
        "mean_dice": mean,
    }
    if as_json:
        say_json(summary)
        return
    each = ", ".join(
        f"{label}: in no validation case" if value is None else f"{label} {value:.3f}" for label, value in dice.items()
    )
    said = "no validation Dice" if mean is None else f"validation Dice {mean:.3f}"
    say(f"{trained.card_file}: {said} ({each})")


@train_app.command("click")
def train_click(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Holds images/ and labels/, files of the same names in any format; or the sets of the shipped recipe.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="Where the model goes; by default FOLDER-model beside it."),
    ] = None,
    start: Annotated[
        str,
        typer.Option("--from", metavar="MODEL", help="Weights to begin with: medt-click-tiny, a file, or 'nothing'."),
    ] = "medt-click-tiny",
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="What the model is called; by default the folder's name."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="Steps of each look: 100 by default, from nothing the shipped recipe's."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Draws every slice and prompt.")] = None,
    all_planes: Annotated[
        bool,
        typer.Option("--all-planes", help="Labels fill whole volumes, so that slices across them can be learned too."),
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Fine-tune the click model on FOLDER's labelled slices.

    The same call goes on where it was interrupted. Ten labelled slices of a structure help. Use the result with
    --model OUT/NAME.json, or add it in the model picker.
    """
    from napari_medtransformer.cli.messages import say, say_json

    chosen = _model_name(name, folder)
    target = output or folder.resolve().with_name(f"{folder.resolve().name}-model")

    from napari_medtransformer.training.click_report import ClickTraining, train_click_model

    wanted = ClickTraining(folder, target, chosen, start, steps, seed, all_planes, device)
    trained = _run(train_click_model(wanted), chosen, target)
    summary = {
        "model": trained.card.name,
        "weights": str(trained.card.weights),
        "card": str(trained.card_file),
        "cases": trained.cases,
        "minutes": trained.seconds / 60,
    }
    if as_json:
        say_json(summary)
        return
    say(f"{trained.card_file}: trained on {trained.cases} volumes in {trained.seconds / 60:.1f} minutes")


def _mean(values: list[float]) -> float | None:
    """None of no values."""
    return sum(values) / len(values) if values else None


def _run(steps: Steps[T], name: str, target: Path) -> T:
    """A training to its end; what it has kept stays when the user interrupts. Raises Interrupted."""
    from napari_medtransformer.cli.messages import Interrupted, run_with_progress

    try:
        return run_with_progress(steps, f"training {name}")
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; the same command goes on from what is kept in {target}") from None


def _model_name(name: str | None, folder: Path) -> str:
    """The name given, or one made of the folder's. Raises InvalidOption."""
    from napari_medtransformer.errors import InvalidOption

    chosen = name or re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or "model"
    if not re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*", chosen):
        raise InvalidOption(f"a model's name has lower-case letters, digits, '-' and '.', unlike {chosen!r}.")
    return chosen


def _triple(text: str | None, what: str, number: type[int] | type[float]) -> Any:
    """Z,Y,X as three positive numbers. Raises InvalidOption."""
    from napari_medtransformer.errors import InvalidOption

    if text is None:
        return None
    try:
        values = tuple(number(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3 or not all(0 < value < math.inf for value in values):
        raise InvalidOption(f"--{what} takes three positive numbers Z,Y,X, not {text!r}.")
    return values


def _axes(text: str) -> tuple[int, ...]:
    """Axis letters as numbers, z 0. Raises InvalidOption."""
    from napari_medtransformer.errors import InvalidOption

    letters = text.lower().replace(",", "").replace(" ", "")
    if len(set(letters)) != len(letters) or not set(letters) <= set("zyx"):
        raise InvalidOption(f"--mirror takes some of the letters x, y and z, not {text!r}.")
    return tuple(sorted("zyx".index(letter) for letter in letters))
