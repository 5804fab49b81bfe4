"""Training of the second look: crops around objects of any size, with spoilt masks and corrective clicks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from napari_medtransformer.models.click_network import ClickNetwork, PromptBatch
from napari_medtransformer.models.focus_crops import OUTSIDE_LOGIT, crop, crop_window
from napari_medtransformer.models.focus_network import FOCUS_SIZE, FocusBatch, FocusNetwork
from napari_medtransformer.progress import Steps
from napari_medtransformer.prompting.model_prompts import POINTS_PER_STROKE
from napari_medtransformer.training.cases import LabelledCase
from napari_medtransformer.training.clicks import (
    ObjectPrompts,
    add_correction,
    as_refined,
    draw_targets,
    first_prompts,
)
from napari_medtransformer.training.loop import Schedule, optimise, slice_batches
from napari_medtransformer.training.losses import SCORE_WEIGHT, mask_losses
from napari_medtransformer.training.slices import draw_slice
from napari_medtransformer.training.spoiling import spoilt_logits
from napari_medtransformer.training.validation import fixed_targets, validate


@dataclass(frozen=True)
class SecondLookRecipe:
    """Everything that decides what weights of the second look come out, beside the data.

    coarse_share: of the objects that come with a guess, most of them spoilt masks; on first_look_share of the slices
    the guesses are the first look's own. corrected_share: of the objects that are trained after corrective clicks.
    watched: targets predicted and drawn at every checkpoint.
    """

    schedule: Schedule = field(
        default_factory=lambda: Schedule(steps=1450, learning_rate=1.2e-3, warmup_steps=100, checkpoint_every=25)
    )
    images_per_step: int = 6
    targets_per_image: int = 8
    slice_size: int = 256
    coarse_share: float = 0.75
    corrected_share: float = 0.45
    most_corrections: int = 5
    first_look_share: float = 0.5
    seed: int = 2031
    watched: int = 12
    workers: int = 1


class CropStream(Dataset[tuple[Tensor, ...]]):
    """Item i is the i-th slice with its targets, prompts and spoilt masks: deterministic by seed and index.

    image (1, S, S); targets (T, S, S) bool; guesses and drawn, strokes and lassos, (T, S, S) logits; windows (T, 4);
    points (T, P, 2) on the object and has_point (T, P) bool; has (T, 3) bool: a box, a guess, a stroke or lasso;
    boxes (T, 4). Everything in pixels of the slice.
    """

    def __init__(self, cases: Sequence[LabelledCase], recipe: SecondLookRecipe, first: int) -> None:
        self.cases, self.recipe, self.first = cases, recipe, first

    def __len__(self) -> int:
        return self.recipe.schedule.steps * self.recipe.images_per_step - self.first

    def __getitem__(self, item: int) -> tuple[Tensor, ...]:
        recipe = self.recipe
        rng = np.random.default_rng((recipe.seed, self.first + item))
        while True:
            drawn = draw_slice(self.cases, recipe.slice_size, rng)
            targets = draw_targets(drawn.labels, recipe.targets_per_image, rng)
            if targets:
                break
        while len(targets) < recipe.targets_per_image:
            targets.append(targets[int(rng.integers(len(targets)))])
        made = [self._prompted(mask, drawn.labels, drawn.image, rng) for mask in targets]
        image = torch.from_numpy(drawn.image)[None]
        return image, torch.from_numpy(np.stack(targets)), *(torch.stack(group) for group in zip(*made, strict=True))

    def _prompted(
        self, mask: np.ndarray, labels: np.ndarray, picture: np.ndarray, rng: np.random.Generator
    ) -> tuple[Tensor, ...]:
        prompts = first_prompts(mask, rng)
        has_guess = rng.random() < self.recipe.coarse_share
        nothing = np.zeros(mask.shape, np.float32)
        click = prompts.points[0] if prompts.points else _middle(mask)
        guess = spoilt_logits(mask, labels, picture, click, rng) if has_guess else nothing
        low, high = _region(prompts, guess if has_guess else None, mask, rng)
        window = crop_window(torch.from_numpy(low), torch.from_numpy(high))
        side = float(window[2])
        jittered = side * np.exp(rng.normal(0, 0.1))
        window[:2] += (side - jittered) / 2 + torch.from_numpy(rng.normal(0, 0.04, 2)) * side
        window[2:] = jittered
        points = np.zeros((POINTS_PER_STROKE, 2), np.float32)
        points[: len(prompts.points)] = np.reshape(prompts.points, (-1, 2))
        return (
            torch.from_numpy(guess),
            torch.from_numpy(nothing if prompts.drawn is None else prompts.drawn),
            window.float(),
            torch.from_numpy(points),
            torch.arange(POINTS_PER_STROKE) < len(prompts.points),
            torch.tensor([prompts.box is not None, has_guess, prompts.drawn is not None]),
            torch.tensor(prompts.box or (0.0, 0.0, 1.0, 1.0), dtype=torch.float32),
        )


def second_loss(
    network: FocusNetwork,
    batch: tuple[Tensor, ...],
    recipe: SecondLookRecipe,
    rng: np.random.Generator,
    first_look: ClickNetwork | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Loss of one batch of slices (see CropStream): some crops after a first prompt, some after corrections.

    first_look: where given, a share of the slices takes its guesses, right or wrong, in place of spoilt masks.
    """
    images, targets, guesses, drawn, windows, points, has_point, has, boxes = batch
    count = targets.shape[1]
    if first_look is not None:
        looked_at = np.flatnonzero(rng.random(len(images)) < recipe.first_look_share)
        guesses, windows, has = guesses.clone(), windows.clone(), has.clone()
        for i in looked_at.tolist():
            prompts_there = (points[i], has_point[i], has[i], boxes[i], drawn[i])
            guesses[i] = _first_guesses(first_look, images[i], *prompts_there, rng)
            has[i, :, 1] = True
            for t in range(count):
                if not has[i, t, 0]:
                    marked = points[i, t, has_point[i, t]]
                    windows[i, t] = _guessed_window((guesses[i, t], drawn[i, t]), marked, windows[i, t])
    guesses, drawn, windows, points, has_point, has, boxes = (
        t.flatten(0, 1) for t in (guesses, drawn, windows, points, has_point, has, boxes)
    )
    shown = images.repeat_interleave(count, dim=0)
    truth = crop(targets.flatten(0, 1)[:, None].float(), windows) >= 0.5
    scale = FOCUS_SIZE / windows[:, 2:]
    edges = windows[:, :2].repeat(1, 2)
    in_crop = (boxes - edges) * scale.repeat(1, 2)
    clicks = (points + 0.5 - windows[:, None, :2]) * scale[:, None] - 0.5
    prompts = []
    for places, there, box, has_box in zip(clicks, has_point, in_crop.tolist(), has[:, 0].tolist(), strict=True):
        given = [(y, x) for y, x in places[there].tolist()]
        prompts.append(ObjectPrompts(given, [1] * len(given), tuple(box) if has_box else None))
    pictures = crop(shown, windows)
    coarse, previous = (crop(logits[:, None], windows, outside=OUTSIDE_LOGIT) for logits in (guesses, drawn))
    has_previous = has[:, 2].clone()
    rounds = np.where(
        rng.random(len(windows)) < recipe.corrected_share,
        rng.integers(1, recipe.most_corrections + 1, len(windows)),
        0,
    )
    autocast = torch.autocast(images.device.type, torch.bfloat16)
    small_truth = F.avg_pool2d(truth.float(), 2)[:, 0] >= 0.5

    def gathered(index: Tensor) -> FocusBatch:
        return focus_batch(
            [prompts[i] for i in index.tolist()],
            pictures[index],
            coarse[index],
            has[index, 1],
            previous[index],
            has_previous[index],
        )

    for turn in range(recipe.most_corrections):
        chosen = torch.from_numpy(np.flatnonzero(rounds > turn))
        if len(chosen) == 0:
            break
        with torch.no_grad(), autocast:
            logits, _ = network(gathered(chosen))
        guessed = (F.avg_pool2d(logits, 2)[:, 0] > 0).cpu().numpy()
        for i, picture in zip(chosen.tolist(), guessed, strict=True):
            if not add_correction(prompts[i], small_truth[i].cpu().numpy(), picture, rng):
                rounds[i] = turn
        previous[chosen] = as_refined(logits, rng)
        has_previous[chosen] = torch.from_numpy(rng.random(len(chosen)) < 0.9)
    with autocast:
        logits, scores = network(gathered(torch.arange(len(windows))))
    # A crop that misses the object has nothing to teach.
    there = truth.flatten(1).any(dim=1)
    loss_each = mask_losses(logits, truth[:, 0])[:, 0]
    # Over the whole object: a crop in the midst of it, filled to the edge, is no good mask.
    area = targets.flatten(0, 1).sum(dim=(1, 2)) * scale[:, 0] ** 2
    true_iou = overlap_with_whole(logits[:, 0] > 0, truth[:, 0], area)
    score_each = (scores - true_iou).square()
    loss = loss_each[there].mean() + SCORE_WEIGHT * score_each.mean()
    dice = (2 * true_iou / (1 + true_iou)).detach()
    first = torch.from_numpy(rounds == 0) & there
    boxed, by_hand = has[:, 0], has[:, 2]
    facts = {
        "loss": float(loss.detach()),
        "score_loss": float(score_each.mean().detach()),
        "dice_box": float(dice[first & boxed].mean()),
        "dice_click": float(dice[first & ~boxed & ~by_hand].mean()),
        "dice_drawn": float(dice[first & by_hand].mean()),
        "dice_corrected": float(dice[~first & there].mean()),
    }
    return loss, facts


@torch.no_grad()
def _first_guesses(
    first_look: ClickNetwork,
    image: Tensor,
    points: Tensor,
    has_point: Tensor,
    has: Tensor,
    boxes: Tensor,
    drawn: Tensor,
    rng: np.random.Generator,
) -> Tensor:
    """What the first look answers to the prompts on one image (1, S, S): (T, S, S) logits, one candidate each."""
    count, size = len(points), image.shape[-1]
    has_box = has[:, 0]
    prompts = PromptBatch(
        points_yx=points,
        point_labels=torch.where(has_point, 1, -1),
        boxes=boxes,
        has_box=has_box,
        mask_logits=F.avg_pool2d(drawn[:, None], 2),
        has_mask=has[:, 2],
        image_index=torch.zeros(count, dtype=torch.long, device=image.device),
    )
    with torch.autocast(image.device.type, torch.bfloat16):
        logits, scores = first_look.decode(first_look.encode(image[None]), prompts)
    # After a click every candidate is looked at again; with more to go by the likeliest alone.
    any_candidate = torch.from_numpy(rng.integers(logits.shape[1], size=count)).to(scores.device)
    candidate = torch.where(has_box | has[:, 2], scores.argmax(dim=1), any_candidate)
    picked = logits[torch.arange(count), candidate]
    return F.interpolate(picked[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0].clamp(-8, 8)


def _guessed_window(masks: Sequence[Tensor], points: Tensor, window: Tensor) -> Tensor:
    """The window around masks (S, S), logits, and points (P, 2); `window` where there is nothing in the masks."""
    low, high = [points], [points + 1]
    for mask in masks:
        rows, columns = (torch.nonzero((mask > 0).any(dim=dim))[:, 0] for dim in (1, 0))
        if len(rows):
            low.append(torch.stack([rows[0], columns[0]]).float()[None])
            high.append(torch.stack([rows[-1] + 1, columns[-1] + 1]).float()[None])
    if len(low) == 1:
        return window
    return crop_window(torch.cat(low).amin(dim=0), torch.cat(high).amax(dim=0))


def overlap_with_whole(predicted: Tensor, truth: Tensor, area: Tensor) -> Tensor:
    """IoU of masks (B, S, S) with objects that a crop may show in part; area: (B,) of the whole, in crop pixels."""
    shared = (predicted & truth).sum(dim=(1, 2))
    whole = torch.maximum(area, truth.sum(dim=(1, 2)).to(area.dtype))
    return shared / (predicted.sum(dim=(1, 2)) + whole - shared).clamp(min=1)


def focus_batch(
    prompts: Sequence[ObjectPrompts],
    images: Tensor,
    coarse: Tensor,
    has_coarse: Tensor,
    previous: Tensor,
    has_previous: Tensor,
) -> FocusBatch:
    """A FocusBatch of crops (B, 1, S, S) with unlike numbers of points, all in crop pixels."""
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
    device = images.device
    return FocusBatch(
        images,
        points.to(device),
        labels.to(device),
        boxes.to(device),
        has_box.to(device),
        coarse,
        has_coarse.to(device),
        previous,
        has_previous.to(device),
    )


def train_second_look(
    cases: Sequence[LabelledCase], folder: Path, recipe: SecondLookRecipe, network: ClickNetwork, device: str = "cpu"
) -> Steps[Path]:
    """Train network.focus on crops and on the mistakes of the first look, which stays as it is.

    Resumes from folder/checkpoint.pt; ends with the path of the averaged weights of network.focus alone.
    """
    network.to(device).eval()

    def batches(step: int) -> Iterator[tuple[Tensor, ...]]:
        stream = CropStream(cases, recipe, step * recipe.images_per_step)
        return slice_batches(stream, recipe.images_per_step, recipe.workers)

    def loss_of(batch: tuple[Tensor, ...], step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng((recipe.seed, step, 1))
        return second_loss(network.focus, tuple(t.to(device) for t in batch), recipe, rng, network)

    network.focus.requires_grad_(True)
    watched = fixed_targets(cases, recipe.seed, recipe.watched)

    def check(step: int) -> dict[str, float]:
        return validate(network, watched, folder / "pictures" / f"step-{step:06d}.png", device)

    return optimise(network.focus, batches, loss_of, recipe.schedule, folder, check)


def _middle(mask: np.ndarray) -> tuple[float, float]:
    inside = np.argwhere(mask)
    y, x = inside[len(inside) // 2]
    return float(y), float(x)


def _region(
    prompts: ObjectPrompts, guess: np.ndarray | None, mask: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What the crop is about, [low, high) in pixels: the box, else guess and drawing, else a disc of about its size."""
    corners = [np.asarray(p) + offset for p in prompts.points for offset in (0, 1)]
    masks = [logits > 0 for logits in (guess, prompts.drawn) if logits is not None and (logits > 0).any()]
    if prompts.box is not None:
        corners += [np.array(prompts.box[:2]), np.array(prompts.box[2:])]
    elif masks:
        for there in masks:
            rows, columns = (np.flatnonzero(there.any(axis=axis)) for axis in (1, 0))
            corners += [np.array([rows[0], columns[0]]), np.array([rows[-1] + 1, columns[-1] + 1])]
    else:
        inside = np.argwhere(mask)
        half = float(np.ptp(inside, axis=0).max() + 1) / 2 * np.exp(rng.normal(0, 0.4))
        centre = np.asarray(prompts.points[0] if prompts.points else inside.mean(axis=0))
        corners += [centre - half, centre + half]
    stacked = np.stack(corners).astype(np.float64)
    return stacked.min(axis=0), stacked.max(axis=0)
