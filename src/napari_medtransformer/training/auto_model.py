"""From a folder of labelled volumes to a model that loads by its card: prepare, train, score, write."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from napari_medtransformer.errors import InvalidOption, UnsupportedModel, UnsupportedVolume
from napari_medtransformer.files import folder_to_write, write_text
from napari_medtransformer.given import one_of, reals, record, wholes
from napari_medtransformer.given import path as path_of
from napari_medtransformer.given import text as text_of
from napari_medtransformer.models.card import InputContract, LabelInfo, ModelCard
from napari_medtransformer.models.card_files import write_card
from napari_medtransformer.models.compact import MULTIPLE, CompactConfig, Kind, compact_network
from napari_medtransformer.models.devices import choose_device
from napari_medtransformer.progress import Partial, Progress, Result, Steps
from napari_medtransformer.segmentation.evaluation import agreement
from napari_medtransformer.training.augment import Augmentation
from napari_medtransformer.training.auto import AutoRecipe, predict_case, train_network
from napari_medtransformer.training.auto_cases import (
    AutoCase,
    CaseFiles,
    find_cases,
    fingerprint,
    load_case,
    prepare_case,
    read_pair,
    split_cases,
    store_case,
)
from napari_medtransformer.training.auto_plan import AutoPlan, named_labels, plan_training
from napari_medtransformer.training.auto_report import CaseScore, card_text
from napari_medtransformer.training.identity import check_identity
from napari_medtransformer.volumes.label_table import Label, label_table

T = TypeVar("T")

_BUILDERS = {
    "unetr": "napari_medtransformer.models.unetr:build",
    "swin-unetr": "napari_medtransformer.models.swin_unetr:build",
}


@dataclass(frozen=True)
class TrainedModel:
    """What a training left. card: with the path of its weights. scores: of every validation case and class."""

    card: ModelCard
    card_file: Path
    text_file: Path
    scores: tuple[CaseScore, ...]


@dataclass(frozen=True)
class AutoTraining:
    """What to train: where the data lie, where results go, and what else was asked for.

    name: of the model, as users will call it. kind: its architecture. spacing_mm, window: (z, y, x), None to let the
    data decide. Raises InvalidOption.
    """

    folder: Path
    output: Path
    name: str
    kind: Kind = "swin-unetr"
    recipe: AutoRecipe = field(default_factory=AutoRecipe)
    spacing_mm: tuple[float, float, float] | None = None
    window: tuple[int, int, int] | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", path_of(self.folder, "a folder of cases"))
        object.__setattr__(self, "output", path_of(self.output, "the folder of a training"))
        for what in ("name", "device"):
            text_of(getattr(self, what), f"a training's {what}")
        one_of(self.kind, get_args(Kind), "a kind of model")
        record(self.recipe, AutoRecipe, "an AutoRecipe")
        if self.spacing_mm is not None and min(reals(self.spacing_mm, 3, "millimetres along z, y and x")) <= 0:
            raise InvalidOption(f"a spacing is three millimetres above 0, not {self.spacing_mm}.")
        if self.window is not None and (
            len(wholes(self.window, "voxels along z, y and x")) != 3 or any(n < 8 or n % 8 for n in self.window)
        ):
            raise InvalidOption(f"a window's three axes are multiples of 8, unlike {self.window}.")
        if self.kind == "swin-unetr" and self.window is not None and max(self.window) < 2 * MULTIPLE:
            raise InvalidOption(
                f"a swin-unetr's window has {2 * MULTIPLE} voxels along one axis at least, unlike {self.window}; "
                "with fewer it is a single token in the end. Give a larger window, or --kind unetr."
            )


def train_auto(wanted: AutoTraining) -> Steps[TrainedModel]:
    """Train a model on a folder's labelled volumes; the same call goes on where an interrupted one stopped.

    Writes into wanted.output: NAME.safetensors (float16), NAME.json (the card, by which it loads), NAME.md (for
    people), checkpoint.pt, log.jsonl and prepared/. Raises UnreadableFile, UnsupportedVolume, UnreadableWeights,
    UnsupportedModel for a device that is not there, CannotWrite.
    """
    device = choose_device(wanted.device)
    files = find_cases(wanted.folder)
    known = named_labels(wanted.folder)
    folder_to_write(wanted.output)
    data = fingerprint(files)
    plan = yield from _value(_plan(wanted, files, data))
    labels = label_table(plan.values, known)
    training_files, validation_files = split_cases(files)
    prepared = wanted.output / "prepared"
    training = yield from _value(_prepare(training_files, plan, prepared))
    validation = yield from _value(_prepare(validation_files, plan, prepared))
    if not any(len(case.labelled) for case in training):
        raise UnsupportedVolume(f"no training case in {wanted.folder} has a label; every fifth case is validation.")
    config = CompactConfig(wanted.kind, len(plan.values) + 1, plan.window)
    change = Augmentation(mirror_axes=wanted.recipe.mirror_axes)
    if plan.clip is not None:  # intensities in [0, 1] deviate a quarter as much as normalised ones
        change = replace(change, noise=change.noise / 4)
    steps = train_network(
        config,
        training,
        validation,
        wanted.output,
        wanted.recipe,
        change=change,
        device=device,
        data=data,
        plan={"spacing_mm": plan.spacing_mm, "clip": plan.clip, "values": plan.values},
    )
    best = yield from _value(steps)
    state = load_file(wanted.output / "weights.safetensors")
    weights = wanted.output / f"{wanted.name}.safetensors"
    _write_half(state, weights)
    network = compact_network(config, wanted.recipe.seed).to(device).eval()
    network.load_state_dict(load_file(weights))  # what is scored is what is written, float16 included
    scores = yield from _value(score_cases(network, validation, plan, labels, device))
    card = _card(wanted, plan, labels, weights, len(training))
    card_file, text_file = weights.with_suffix(".json"), weights.with_suffix(".md")
    write_card(card, card_file)
    write_text(text_file, card_text(card, plan, wanted.recipe, config, scores, best, data, len(training)))
    yield Result(TrainedModel(card, card_file, text_file, tuple(scores)))


def score_cases(
    network: torch.nn.Module, cases: list[AutoCase], plan: AutoPlan, labels: list[Label], device: torch.device
) -> Steps[list[CaseScore]]:
    """Dice and HD95 of every validation case and class, at the training's voxel size, and each case's seconds.

    labels: of the classes 1, 2, …
    """
    scores: list[CaseScore] = []
    names = {i: label.name for i, label in enumerate(labels, start=1)}
    for i, case in enumerate(cases):
        started = time.perf_counter()
        predicted = predict_case(network, case, plan.window, device)
        seconds = time.perf_counter() - started
        for found in agreement(predicted, np.asarray(case.classes), plan.spacing_mm, names=names):
            scores.append(CaseScore(case.name, found.label.name, found.dice, found.hd95_mm, seconds))
        yield Progress(i + 1, len(cases), f"scoring {case.name}")
    yield Result(scores)


def _value(steps: Steps[T]) -> Generator[Progress | Partial[Any], None, T]:
    """Pass the progress of `steps` on and return its Result's value: `value = yield from _value(steps)`."""
    for step in steps:
        if isinstance(step, Result):
            return step.value
        yield step
    raise RuntimeError("the steps ended without a Result")


def _plan(wanted: AutoTraining, files: list[CaseFiles], data: str) -> Steps[AutoPlan]:
    """The plan of an earlier call on the same data, or a new one; UnreadableWeights if one was trained otherwise."""
    path = wanted.output / "plan.json"
    asked = {"data": data, "spacing_mm": wanted.spacing_mm, "window": wanted.window}
    asked = json.loads(json.dumps(asked))  # tuples become lists, as they are read back
    if path.is_file():
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["asked"] == asked:
            yield Result(_plan_from(saved["plan"]))
            return
        checkpoint = wanted.output / "checkpoint.pt"
        if checkpoint.exists():
            check_identity(saved["asked"], asked, checkpoint)
        for stale in (wanted.output / "prepared").glob("*.npy"):
            stale.unlink()
    steps = plan_training(files, wanted.folder, spacing_mm=wanted.spacing_mm, window=wanted.window)
    for step in steps:
        if isinstance(step, Result):
            write_text(path, json.dumps({"asked": asked, "plan": step.value.as_dict()}, indent=1))
        yield step


def _plan_from(values: dict[str, Any]) -> AutoPlan:
    plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    plain.pop("names", None)  # of an earlier version
    return AutoPlan(**plain)


def _prepare(files: list[CaseFiles], plan: AutoPlan, folder: Path) -> Steps[list[AutoCase]]:
    """The cases at the training's voxel size, mapped from files that are made once."""
    cases = []
    for i, one in enumerate(files):
        case = load_case(one.name, folder)
        if case is None:
            volume, labels = read_pair(one)
            store_case(prepare_case(volume, labels, one.name, plan.spacing_mm, plan.values, plan.scaling), folder)
            case = load_case(one.name, folder)
        if case is not None:
            cases.append(case)
        yield Progress(i + 1, len(files), f"preparing {one.name}")
    yield Result(cases)


def _write_half(state: dict[str, torch.Tensor], path: Path) -> None:
    """Weights as float16: half the file, and no voxel of difference worth a word."""
    partial = path.with_suffix(".part")
    save_file({k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}, partial)
    partial.replace(path)


def _card(wanted: AutoTraining, plan: AutoPlan, labels: list[Label], weights: Path, cases: int) -> ModelCard:
    intensities = (
        "clipped to the volume's 0.5 to 99.5 percentiles, then mean 0 and deviation 1"
        if plan.clip is None
        else f"{plan.clip[0]:g} to {plan.clip[1]:g} become 0 to 1"
    )
    try:
        return ModelCard(
            name=wanted.name,
            title=wanted.name,
            family=wanted.kind,
            architecture="compact",
            builder=_BUILDERS[wanted.kind],
            task="automatic",
            dimensions=3,
            input=InputContract(
                plan.window,
                spacing_mm=plan.spacing_mm,
                intensities=intensities,
                clip=plan.clip,
                mirrored=wanted.recipe.mirror_axes,
            ),
            modalities=() if plan.modality in ("unknown", "mixed") else (plan.modality,),
            labels=tuple(LabelInfo(label.number, label.name, label.color) for label in labels),
            weights=weights.resolve(),
            licence="that of its training data",
            citation="napari-medtransformer, trained by `medtransformer train auto`",
            description=f"Trained on {cases} labelled volumes of {wanted.folder.resolve().name}.",
            training=f"{cases} labelled volumes of {wanted.folder.resolve().name}, every fifth other one held out.",
        )
    except ValueError as error:
        raise UnsupportedModel(f"no card can be written: {str(error).rstrip('.')}.") from error
