"""Training of the bundled click model: batches, losses, the loop with checkpoints, and scores on fixed prompts."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from napari_medtransformer.models.click_network import ClickConfig, ClickNetwork, PromptBatch
from napari_medtransformer.progress import Progress, Result, Steps
from napari_medtransformer.training.cases import LabelledCase
from napari_medtransformer.training.clicks import (
    ObjectPrompts,
    add_correction,
    draw_targets,
    first_prompts,
)
from napari_medtransformer.training.slices import draw_slice

SCORE_WEIGHT = 3.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClickRecipe:
    """Everything that decides what weights come out, beside the data."""

    steps: int = 3000
    images_per_step: int = 8
    targets_per_image: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 0.03
    warmup_steps: int = 150
    final_learning_rate: float = 0.02
    ema_decay: float = 0.998
    gradient_norm: float = 1.0
    corrected_share: float = 0.5
    most_corrections: int = 4
    seed: int = 2026
    checkpoint_every: int = 100
    workers: int = 1


class SliceStream(Dataset[tuple[Tensor, Tensor]]):
    """Item i is the i-th training image and its targets, whatever the worker: deterministic by seed and index."""

    def __init__(self, cases: Sequence[LabelledCase], config: ClickConfig, recipe: ClickRecipe, first: int) -> None:
        self.cases, self.config, self.recipe, self.first = cases, config, recipe, first

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.images_per_step - self.first

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        """image (1, S, S) float32 and targets (T, S, S) bool."""
        rng = np.random.default_rng((self.recipe.seed, self.first + item))
        while True:
            drawn = draw_slice(self.cases, self.config.input_size, rng)
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


def mask_losses(logits: Tensor, target: Tensor) -> Tensor:
    """Class-balanced cross-entropy plus Dice for every candidate. logits (B, m, h, w), target (B, h, w): (B, m)."""
    truth = target[:, None].float().expand_as(logits)
    inside = truth.mean(dim=(2, 3), keepdim=True).clamp(1e-3, 0.999)
    # Square roots: full balance makes small targets bleed, none lets them vanish.
    weight = torch.where(truth > 0.5, (0.5 / inside).sqrt(), (0.5 / (1 - inside)).sqrt())
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    chance = logits.sigmoid()
    overlap = (chance * truth).sum(dim=(2, 3))
    dice = 1 - (2 * overlap + 1) / (chance.sum(dim=(2, 3)) + truth.sum(dim=(2, 3)) + 1)
    return 2 * (entropy * weight).mean(dim=(2, 3)) + dice


def intersection_over_union(logits: Tensor, target: Tensor) -> Tensor:
    """True IoU of every candidate: (B, m)."""
    predicted = logits > 0
    truth = target[:, None].expand_as(predicted)
    return (predicted & truth).sum(dim=(2, 3)) / (predicted | truth).sum(dim=(2, 3)).clamp(min=1)


def best_candidate(logits: Tensor, scores: Tensor) -> Tensor:
    """The candidate a user would be shown: (B, h, w)."""
    return logits[torch.arange(len(logits), device=logits.device), scores.argmax(dim=1)]


def step_loss(
    network: ClickNetwork, images: Tensor, targets: Tensor, recipe: ClickRecipe, rng: np.random.Generator
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
    has_mask = torch.zeros(len(full), dtype=torch.bool)
    autocast = torch.autocast(images.device.type, torch.bfloat16)
    with autocast:
        features = network.encode(images)
    rounds = np.where(
        rng.random(len(full)) < recipe.corrected_share, rng.integers(1, recipe.most_corrections + 1, len(full)), 0
    )
    frozen = tuple(f.detach() for f in features)
    for turn in range(recipe.most_corrections):
        chosen = np.flatnonzero(rounds > turn)
        if len(chosen) == 0:
            break
        index = torch.from_numpy(chosen)
        batch = make_batch([prompts[i] for i in chosen], masks[index], has_mask[index], image_index[index])
        with torch.no_grad(), autocast:
            logits, scores = network.decode(frozen, batch)
        shown = best_candidate(logits, scores)
        for i, picture in zip(chosen, (shown > 0).cpu().numpy(), strict=True):
            if not add_correction(prompts[i], target[i].cpu().numpy(), picture, rng):
                rounds[i] = turn
        masks[index, 0] = shown
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
    facts = {
        "loss": float(loss.detach()),
        "score_loss": float(score_loss.detach()),
        "dice_box": float(dice[first & boxed].mean()),
        "dice_click": float(dice[first & ~boxed].mean()),
        "dice_corrected": float(dice[~first].mean()),
    }
    return loss, facts


def learning_rate(recipe: ClickRecipe, step: int) -> float:
    """Linear warm-up, then a cosine down to final_learning_rate of the peak."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    floor = recipe.final_learning_rate
    return recipe.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


def train_click(
    cases: Sequence[LabelledCase],
    folder: Path,
    recipe: ClickRecipe,
    *,
    config: ClickConfig | None = None,
    device: str = "cpu",
    start_from: Path | None = None,
) -> Steps[Path]:
    """Train, resuming from folder/checkpoint.pt if it is there; yields progress, ends with the EMA weights' path.

    start_from: weights (safetensors) of the same architecture to fine-tune.
    """
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    network = ClickNetwork(config)
    if start_from is not None:
        network.load_state_dict(load_file(start_from))
    network.to(device).train()
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.99),
    )
    step = 0
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        average, step = saved["average"], int(saved["step"])
    stream = SliceStream(cases, network.config, recipe, step * recipe.images_per_step)
    prefetch = 4 if recipe.workers else None
    loader = DataLoader(stream, recipe.images_per_step, num_workers=recipe.workers, prefetch_factor=prefetch)
    weights = folder / "weights.safetensors"
    running: dict[str, float] = {}
    started, first = time.monotonic(), step
    for images, targets in loader:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        rng = np.random.default_rng((recipe.seed, step, 1))
        loss, facts = step_loss(network, images.to(device), targets.to(device), recipe, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.gradient_norm)
        optimizer.step()
        decay = min(recipe.ema_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                average[name].lerp_(value, 1 - decay)
        step += 1
        for name, fact in facts.items():
            if not math.isnan(fact):
                running[name] = fact if name not in running else 0.98 * running[name] + 0.02 * fact
        if step % recipe.checkpoint_every == 0 or step == recipe.steps:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            partial = checkpoint.with_suffix(".part")
            torch.save({**state, "average": average, "step": step}, partial)
            partial.replace(checkpoint)
            save_file(average, weights)
            speed = (step - first) * recipe.images_per_step / (time.monotonic() - started)
            line = {"step": step, "images_per_second": speed, **running}
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            logger.info("%s", line)
        yield Progress(step, recipe.steps, f"loss {running['loss']:.3f}, click Dice {running.get('dice_click', 0):.2f}")
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1))
    yield Result(weights)
