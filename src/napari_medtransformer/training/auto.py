"""Training of automatic models: the loop with checkpoints, validation by Dice, and the best weights with their card."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from safetensors.torch import save_file
from torch import Tensor

from napari_medtransformer.errors import InvalidOption
from napari_medtransformer.given import real, whole, wholes
from napari_medtransformer.models.compact import CompactConfig, CompactSwinUNETR, CompactUNETR, compact_network
from napari_medtransformer.progress import Progress, Result, Steps
from napari_medtransformer.training.augment import Augmentation, draw_window
from napari_medtransformer.training.auto_cases import AutoCase
from napari_medtransformer.training.identity import check_identity

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AutoRecipe:
    """Everything that decides what weights come out, beside the data.

    steps: optimiser steps. windows_per_step: the batch. learning_rate: its peak, after warmup_steps; a cosine follows,
    down to final_learning_rate of the peak. ema_decay: of the averaged weights, which are the ones validated and kept.
    validate_every: steps between validations on every validation case. mirror_axes: axes (0 z, 1 y, 2 x) along which
    the anatomy may be mirrored: none where labels name a side. Raises InvalidOption.
    """

    steps: int = 2400
    windows_per_step: int = 2
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    warmup_steps: int = 100
    final_learning_rate: float = 0.01
    ema_decay: float = 0.995
    gradient_norm: float = 1.0
    foreground: float = 0.5
    seed: int = 2026
    validate_every: int = 200
    checkpoint_every: int = 50
    mirror_axes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for what in ("steps", "windows_per_step", "validate_every", "checkpoint_every"):
            whole(getattr(self, what), f"a recipe's {what}", least=1)
        for what in ("warmup_steps", "seed"):
            whole(getattr(self, what), f"a recipe's {what}", least=0)
        for what in ("learning_rate", "gradient_norm"):
            real(getattr(self, what), f"a recipe's {what}", above=0)
        for what in ("weight_decay", "final_learning_rate", "ema_decay", "foreground"):
            if not 0 <= real(getattr(self, what), f"a recipe's {what}") <= 1:
                raise InvalidOption(f"a recipe's {what} lies in [0, 1], not at {getattr(self, what)}.")
        if not set(wholes(self.mirror_axes, "mirrored axes")) <= {0, 1, 2}:
            raise InvalidOption(f"mirrored axes are some of 0 (z), 1 (y) and 2 (x), not {self.mirror_axes}.")


@dataclass(frozen=True)
class Validation:
    """Mean Dice of each class 1, 2, … over the cases, in the order of the classes, after `step` steps."""

    step: int
    dice: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the classes."""
        return float(np.mean(self.dice))


def segmentation_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy plus one minus the soft Dice of the batch, averaged over the classes but the background.

    logits: (b, 1 + classes, *window). classes: (b, *window) int64. Milletari et al. 2016; both together as in nnU-Net
    (Isensee et al. 2021).
    """
    entropy = F.cross_entropy(logits, classes)
    chance = logits.softmax(dim=1)[:, 1:]
    truth = F.one_hot(classes, logits.shape[1]).movedim(-1, 1)[:, 1:].to(chance.dtype)
    axes = (0, *range(2, logits.ndim))
    dice = (2 * (chance * truth).sum(axes) + 1e-5) / ((chance + truth).sum(axes) + 1e-5)
    return entropy + 1 - dice.mean()


def learning_rate(recipe: AutoRecipe, step: int) -> float:
    """Linear warm-up, then a cosine down to final_learning_rate of the peak."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    floor = recipe.final_learning_rate
    return recipe.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def predict_case(network: torch.nn.Module, case: AutoCase, window: Sequence[int], device: torch.device) -> np.ndarray:
    """The classes of one case, (z, y, x) uint8, from windows that overlap by half."""
    image = torch.from_numpy(np.array(case.image))[None, None].to(device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        logits = sliding_window_inference(image, tuple(window), 1, network, overlap=0.5, mode="gaussian")
    return torch.as_tensor(logits)[0].argmax(dim=0).to(torch.uint8).cpu().numpy()


def dice_per_class(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Dice of classes 1 to `classes`; nan where neither volume has the class."""
    scores = np.full(classes, np.nan)
    for i in range(classes):
        a, b = predicted == i + 1, truth == i + 1
        if a.any() or b.any():
            scores[i] = 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))
    return scores


def train_network(
    config: CompactConfig,
    training: Sequence[AutoCase],
    validation: Sequence[AutoCase],
    folder: Path,
    recipe: AutoRecipe,
    *,
    change: Augmentation | None = None,
    device: torch.device | None = None,
    data: str = "",
    plan: Mapping[str, object] | None = None,
) -> Steps[Validation]:
    """Train a compact network; resumes from folder/checkpoint.pt. Ends with the best validation.

    folder/weights.safetensors holds the averaged weights with the best mean Dice so far, folder/log.jsonl a line per
    validation. data: what tells the training data apart. plan: how they were prepared. A checkpoint of other data,
    plan, network or recipe is refused with UnreadableWeights. The same seed draws the same windows, resumed or not.
    """
    change = change or Augmentation(mirror_axes=recipe.mirror_axes)
    device = device or torch.device("cpu")
    folder.mkdir(parents=True, exist_ok=True)
    network = compact_network(config, recipe.seed).to(device).train()
    averaged = compact_network(config, recipe.seed).to(device).eval()
    optimizer = _optimizer(network, recipe)
    # As JSON reads it back, so that the two compare equal.
    facts = {"data": data, "plan": dict(plan or {}), "config": asdict(config), "recipe": asdict(recipe)}
    identity = json.loads(json.dumps(facts))
    step, best = 0, Validation(0, (0.0,) * (config.classes - 1))
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        check_identity(saved["identity"], identity, checkpoint)
        network.load_state_dict(saved["network"])
        averaged.load_state_dict(saved["averaged"])
        optimizer.load_state_dict(saved["optimizer"])
        step, best = int(saved["step"]), Validation(int(saved["best_step"]), tuple(saved["best_dice"]))
    running = math.nan
    started, first = time.monotonic(), step
    while step < recipe.steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        images, classes = _draw_batch(training, config, recipe, change, step)
        with torch.autocast(device.type, torch.bfloat16):
            logits = network(images.to(device))
        loss = segmentation_loss(logits.float(), classes.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.gradient_norm)
        optimizer.step()
        _average(averaged, network, min(recipe.ema_decay, (step + 1) / (step + 10)))
        step += 1
        value = float(loss.detach())
        running = value if math.isnan(running) else 0.98 * running + 0.02 * value
        if step % recipe.validate_every == 0 or step == recipe.steps:
            for scored in validate(averaged, validation, config, device, step):
                if isinstance(scored, Progress):
                    yield scored
                    continue
                if scored.mean > best.mean or best.step == 0:
                    best = scored
                    _save_whole(averaged, folder / "weights.safetensors")
                speed = (step - first) / (time.monotonic() - started)
                line = {"step": step, "loss": running, "dice": scored.dice, "mean_dice": scored.mean, "per_s": speed}
                with (folder / "log.jsonl").open("a") as log:
                    log.write(json.dumps(line) + "\n")
                logger.info("%s", line)
        if step % recipe.checkpoint_every == 0 or step == recipe.steps:
            partial = checkpoint.with_suffix(".part")
            state = {"network": network.state_dict(), "averaged": averaged.state_dict()}
            state["optimizer"] = optimizer.state_dict()
            reached = {"step": step, "best_step": best.step, "best_dice": list(best.dice)}
            torch.save({**state, **reached, "identity": identity}, partial)
            partial.replace(checkpoint)
        yield Progress(step, recipe.steps, f"loss {running:.3f}, best validation Dice {best.mean:.3f}")
    yield Result(best)


def validate(
    network: torch.nn.Module, cases: Sequence[AutoCase], config: CompactConfig, device: torch.device, step: int
) -> Iterator[Progress | Validation]:
    """Score a network on every validation case: progress, then the Validation. Leaves the network in eval mode."""
    network.eval()
    scores = []
    for i, case in enumerate(cases):
        predicted = predict_case(network, case, config.window, device)
        scores.append(dice_per_class(predicted, case.classes, config.classes - 1))
        yield Progress(i + 1, len(cases), f"validating after {step} steps")
    table = np.stack(scores)
    present = ~np.isnan(table).all(axis=0)
    dice = np.zeros(table.shape[1])
    dice[present] = np.nanmean(table[:, present], axis=0)
    yield Validation(step, tuple(float(d) for d in dice))


def _draw_batch(
    cases: Sequence[AutoCase], config: CompactConfig, recipe: AutoRecipe, change: Augmentation, step: int
) -> tuple[Tensor, Tensor]:
    """The windows of one step; every case once before any comes again."""
    images, classes = [], []
    for i in range(step * recipe.windows_per_step, (step + 1) * recipe.windows_per_step):
        turn, place = divmod(i, len(cases))
        order = np.random.default_rng((recipe.seed, turn, 0)).permutation(len(cases))
        rng = np.random.default_rng((recipe.seed, i, 1))
        image, truth = draw_window(cases[order[place]], config.window, rng, change, foreground=recipe.foreground)
        images.append(image)
        classes.append(truth)
    return torch.stack(images), torch.stack(classes)


def _optimizer(network: torch.nn.Module, recipe: AutoRecipe) -> torch.optim.Optimizer:
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.99))


@torch.no_grad()
def _average(averaged: torch.nn.Module, network: torch.nn.Module, decay: float) -> None:
    state = network.state_dict()
    for name, value in averaged.state_dict().items():
        if value.is_floating_point():
            value.lerp_(state[name], 1 - decay)
        else:
            value.copy_(state[name])


def _save_whole(network: CompactUNETR | CompactSwinUNETR, path: Path) -> None:
    partial = path.with_suffix(".part")
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, partial)
    partial.replace(path)
