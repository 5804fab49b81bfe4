"""Training of the first look: slices with prompts, losses over three candidates, and corrective clicks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from napari_medtransformer.models.click_network import ClickConfig, ClickNetwork, PromptBatch
from napari_medtransformer.progress import Steps
from napari_medtransformer.training.cases import LabelledCase
from napari_medtransformer.training.clicks import (
    ObjectPrompts,
    add_correction,
    as_refined,
    draw_targets,
    first_prompts,
)
from napari_medtransformer.training.loop import Schedule, optimise, slice_batches
from napari_medtransformer.training.losses import SCORE_WEIGHT, intersection_over_union, mask_losses
from napari_medtransformer.training.slices import SliceShares, draw_slice
from napari_medtransformer.training.validation import fixed_targets, validate


@dataclass(frozen=True)
class FirstLookRecipe:
    """Everything that decides what weights of the first look come out, beside the data.

    corrected_share: of the objects that are trained after corrective clicks, up to most_corrections of them.
    watched: targets predicted and drawn at every checkpoint.
    """

    schedule: Schedule = field(default_factory=lambda: Schedule(steps=3000))
    slices: SliceShares = field(default_factory=SliceShares)
    images_per_step: int = 6
    targets_per_image: int = 3
    corrected_share: float = 0.5
    most_corrections: int = 4
    seed: int = 2026
    watched: int = 12
    workers: int = 1


class SliceStream(Dataset[tuple[Tensor, Tensor]]):
    """Item i is the i-th training image and its targets, whatever the worker: deterministic by seed and index."""

    def __init__(self, cases: Sequence[LabelledCase], config: ClickConfig, recipe: FirstLookRecipe, first: int) -> None:
        self.cases, self.config, self.recipe, self.first = cases, config, recipe, first

    def __len__(self) -> int:
        return self.recipe.schedule.steps * self.recipe.images_per_step - self.first

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        """image (1, S, S) float32 and targets (T, S, S) bool."""
        rng = np.random.default_rng((self.recipe.seed, self.first + item))
        while True:
            drawn = draw_slice(self.cases, self.config.input_size, self.recipe.slices, rng)
            targets = draw_targets(drawn.labels, self.recipe.targets_per_image, rng)
            if targets:
                break
        while len(targets) < self.recipe.targets_per_image:  # the same target again gets other prompts
            targets.append(targets[int(rng.integers(len(targets)))])
        return torch.from_numpy(drawn.image)[None], torch.from_numpy(np.stack(targets))


def make_batch(prompts: Sequence[ObjectPrompts], masks: Tensor, has_mask: Tensor, image_index: Tensor) -> PromptBatch:
    """A PromptBatch of objects with unlike numbers of points; masks (B, 1, S/2, S/2) logits."""
    most = max(1, max(len(p.points) for p in prompts))
    points = torch.zeros(len(prompts), most, 2)
    labels = torch.full((len(prompts), most), -1, dtype=torch.long)
    boxes = torch.zeros(len(prompts), 4)
    for i, p in enumerate(prompts):
        if p.points:
            points[i, : len(p.points)] = torch.tensor(p.points)
            labels[i, : len(p.labels)] = torch.tensor(p.labels)
        if p.box is not None:
            boxes[i] = torch.tensor(p.box)
    has_box = torch.tensor([p.box is not None for p in prompts])
    device = masks.device
    return PromptBatch(
        points.to(device),
        labels.to(device),
        boxes.to(device),
        has_box.to(device),
        masks,
        has_mask.to(device),
        image_index.to(device),
    )


def best_candidate(logits: Tensor, scores: Tensor) -> Tensor:
    """The candidate a user would be shown: (B, h, w)."""
    return logits[torch.arange(len(logits), device=logits.device), scores.argmax(dim=1)]


def step_loss(
    network: ClickNetwork, images: Tensor, targets: Tensor, recipe: FirstLookRecipe, rng: np.random.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Loss of one batch: half of the objects after a first prompt, half after some rounds of corrections.

    images (B, 1, S, S), targets (B, T, S, S) bool.
    """
    size = images.shape[-1]
    full = targets.flatten(0, 1)
    target = F.avg_pool2d(full[:, None].float(), 2)[:, 0] >= 0.5
    image_index = torch.arange(len(images)).repeat_interleave(targets.shape[1])
    prompts = [first_prompts(mask.numpy(), rng) for mask in full.cpu()]
    masks = torch.zeros(len(full), 1, size // 2, size // 2, device=images.device)
    for number, given in enumerate(prompts):
        if given.drawn is not None:
            masks[number] = F.avg_pool2d(torch.from_numpy(given.drawn)[None], 2)
    has_mask = torch.tensor([given.drawn is not None for given in prompts])
    autocast = torch.autocast(images.device.type, torch.bfloat16)
    with autocast:
        features = network.encode(images)
    rounds = np.where(
        rng.random(len(full)) < recipe.corrected_share, rng.integers(1, recipe.most_corrections + 1, len(full)), 0
    )
    with torch.no_grad(), autocast:
        frozen = tuple(f.detach() for f in features)
        seen = network.image_parts(frozen)
    for turn in range(recipe.most_corrections):
        chosen = np.flatnonzero(rounds > turn)
        if len(chosen) == 0:
            break
        index = torch.from_numpy(chosen)
        batch = make_batch([prompts[i] for i in chosen], masks[index], has_mask[index], image_index[index])
        with torch.no_grad(), autocast:
            logits, scores = network.decode(frozen, batch, seen)
        shown = best_candidate(logits, scores)
        for i, picture in zip(chosen, (shown > 0).cpu().numpy(), strict=True):
            if not add_correction(prompts[i], target[i].cpu().numpy(), picture, rng):
                rounds[i] = turn
        masks[index, 0] = as_refined(shown, rng)
        has_mask[index] = torch.from_numpy(rng.random(len(chosen)) < 0.9)
    with autocast:
        logits, scores = network.decode(features, make_batch(prompts, masks, has_mask, image_index))
    losses = mask_losses(logits, target)
    best = losses.min(dim=1)
    true_iou = intersection_over_union(logits, target)
    score_loss = F.mse_loss(scores, true_iou)
    loss = best.values.mean() + 0.1 * losses.mean() + SCORE_WEIGHT * score_loss
    shown_iou = true_iou[torch.arange(len(logits)), scores.argmax(dim=1)]
    dice = 2 * shown_iou / (1 + shown_iou)
    first = torch.from_numpy(rounds == 0)
    boxed = torch.tensor([p.box is not None for p in prompts])
    drawn = torch.tensor([p.drawn is not None for p in prompts])
    facts = {
        "loss": float(loss.detach()),
        "score_loss": float(score_loss.detach()),
        "dice_box": float(dice[first & boxed].mean()),
        "dice_click": float(dice[first & ~boxed & ~drawn].mean()),
        "dice_drawn": float(dice[first & drawn].mean()),
        "dice_corrected": float(dice[~first].mean()),
    }
    return loss, facts


def train_first_look(
    cases: Sequence[LabelledCase], folder: Path, recipe: FirstLookRecipe, network: ClickNetwork, device: str = "cpu"
) -> Steps[Path]:
    """Train all of `network` but its second look, resuming from folder/checkpoint.pt; ends with the average's path."""
    network.to(device)
    network.focus.requires_grad_(False)

    def batches(step: int) -> Iterator[tuple[Tensor, ...]]:
        stream = SliceStream(cases, network.config, recipe, step * recipe.images_per_step)
        return slice_batches(stream, recipe.images_per_step, recipe.workers)

    def loss_of(batch: tuple[Tensor, ...], step: int) -> tuple[Tensor, dict[str, float]]:
        images, targets = (tensor.to(device) for tensor in batch)
        return step_loss(network, images, targets, recipe, np.random.default_rng((recipe.seed, step, 1)))

    watched = fixed_targets(cases, recipe.seed, recipe.watched)

    def check(step: int) -> dict[str, float]:
        return validate(network, watched, folder / "pictures" / f"step-{step:06d}.png", device, first_look=True)

    return optimise(network, batches, loss_of, recipe.schedule, folder, check)
