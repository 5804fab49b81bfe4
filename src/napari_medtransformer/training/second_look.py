"""Training of the second look: crops with guesses to mend, and corrective clicks on its own mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_medtransformer.models.click_network import ClickNetwork, PromptBatch
from napari_medtransformer.models.focus_crops import OUTSIDE_LOGIT, crop, crop_window
from napari_medtransformer.models.focus_network import FOCUS_SIZE, FocusBatch, FocusNetwork
from napari_medtransformer.progress import Steps
from napari_medtransformer.training.cases import LabelledCase
from napari_medtransformer.training.clicks import ObjectPrompts, add_correction, as_refined
from napari_medtransformer.training.crop_stream import CropBatch, CropStream, SecondLookRecipe
from napari_medtransformer.training.loop import optimise, slice_batches
from napari_medtransformer.training.losses import SCORE_WEIGHT, mask_losses
from napari_medtransformer.training.validation import fixed_targets, validate


def second_loss(
    network: FocusNetwork,
    batch: CropBatch,
    recipe: SecondLookRecipe,
    rng: np.random.Generator,
    first_look: ClickNetwork | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Loss of one batch of slices: some crops after a first prompt, some after corrections.

    first_look: where given, a share of the slices takes its guesses, right or wrong, in place of spoilt masks.
    """
    if first_look is not None:
        batch = _with_first_guesses(first_look, batch, recipe.first_look_share, rng)
    count = batch.targets.shape[1]
    windows, boxed, drawn = (t.flatten(0, 1) for t in (batch.windows, batch.has_box, batch.has_drawn))
    truth = crop(batch.targets.flatten(0, 1)[:, None].float(), windows) >= 0.5
    pictures = crop(batch.images.repeat_interleave(count, dim=0), windows)
    coarse, previous = (
        crop(logits.flatten(0, 1)[:, None], windows, outside=OUTSIDE_LOGIT) for logits in (batch.guesses, batch.drawn)
    )
    has_coarse, has_previous = batch.has_guess.flatten(0, 1), drawn.cpu().clone()
    prompts = _prompts_in_crops(batch, windows)
    rounds = np.where(
        rng.random(len(windows)) < recipe.corrected_share,
        rng.integers(1, recipe.most_corrections + 1, len(windows)),
        0,
    )
    autocast = torch.autocast(truth.device.type, torch.bfloat16)
    small_truth = F.avg_pool2d(truth.float(), 2)[:, 0] >= 0.5

    def gathered(index: Tensor) -> FocusBatch:
        return focus_batch(
            [prompts[i] for i in index.tolist()],
            pictures[index],
            coarse[index],
            has_coarse[index],
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
    area = batch.targets.flatten(0, 1).sum(dim=(1, 2)) * (FOCUS_SIZE / windows[:, 2]) ** 2
    true_iou = overlap_with_whole(logits[:, 0] > 0, truth[:, 0], area)
    score_each = (scores - true_iou).square()
    loss = loss_each[there].mean() + SCORE_WEIGHT * score_each.mean()
    dice = (2 * true_iou / (1 + true_iou)).detach()
    first = torch.from_numpy(rounds == 0).to(there.device) & there
    facts = {
        "loss": float(loss.detach()),
        "score_loss": float(score_each.mean().detach()),
        "dice_box": float(dice[first & boxed].mean()),
        "dice_click": float(dice[first & ~boxed & ~drawn].mean()),
        "dice_drawn": float(dice[first & drawn].mean()),
        "dice_corrected": float(dice[~first & there].mean()),
    }
    return loss, facts


def _with_first_guesses(
    first_look: ClickNetwork, batch: CropBatch, share: float, rng: np.random.Generator
) -> CropBatch:
    """The batch with the first look's own guesses, and the windows around them, on a share of its slices."""
    guesses, windows, has_guess = batch.guesses.clone(), batch.windows.clone(), batch.has_guess.clone()
    for i in np.flatnonzero(rng.random(len(guesses)) < share).tolist():
        guesses[i] = _first_guesses(first_look, batch, i, rng)
        has_guess[i] = True
        for t in torch.nonzero(~batch.has_box[i])[:, 0].tolist():
            marked = batch.points[i, t, batch.has_point[i, t]]
            windows[i, t] = _guessed_window((guesses[i, t], batch.drawn[i, t]), marked, windows[i, t])
    return batch._replace(guesses=guesses, windows=windows, has_guess=has_guess)


@torch.no_grad()
def _first_guesses(first_look: ClickNetwork, batch: CropBatch, number: int, rng: np.random.Generator) -> Tensor:
    """What the first look answers to the prompts on one image: (T, S, S) logits, one candidate each."""
    image, has_box, has_drawn = batch.images[number], batch.has_box[number], batch.has_drawn[number]
    count, size = len(has_box), image.shape[-1]
    prompts = PromptBatch(
        points_yx=batch.points[number],
        point_labels=torch.where(batch.has_point[number], 1, -1),
        boxes=batch.boxes[number],
        has_box=has_box,
        mask_logits=F.avg_pool2d(batch.drawn[number][:, None], 2),
        has_mask=has_drawn,
        image_index=torch.zeros(count, dtype=torch.long, device=image.device),
    )
    with torch.autocast(image.device.type, torch.bfloat16):
        logits, scores = first_look.decode(first_look.encode(image[None]), prompts)
    # After a click every candidate is looked at again; with more to go by the likeliest alone.
    any_candidate = torch.from_numpy(rng.integers(logits.shape[1], size=count)).to(scores.device)
    candidate = torch.where(has_box | has_drawn, scores.argmax(dim=1), any_candidate)
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


def _prompts_in_crops(batch: CropBatch, windows: Tensor) -> list[ObjectPrompts]:
    """Points and boxes of all targets in pixels of their crops; windows: (B × T, 4)."""
    scale, edges = FOCUS_SIZE / windows[:, 2:], windows[:, :2]
    boxes = (batch.boxes.flatten(0, 1) - edges.repeat(1, 2)) * scale.repeat(1, 2)
    points = (batch.points.flatten(0, 1) + 0.5 - edges[:, None]) * scale[:, None] - 0.5
    prompts = []
    for box, has_box, places, there in zip(
        boxes.tolist(), batch.has_box.flatten().tolist(), points, batch.has_point.flatten(0, 1), strict=True
    ):
        given = [(y, x) for y, x in places[there].tolist()]
        prompts.append(ObjectPrompts(given, [1] * len(given), tuple(box) if has_box else None))
    return prompts


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
        return second_loss(network.focus, CropBatch(*(t.to(device) for t in batch)), recipe, rng, network)

    network.focus.requires_grad_(True)
    watched = fixed_targets(cases, recipe.seed, recipe.watched)

    def check(step: int) -> dict[str, float]:
        return validate(network, watched, folder / "pictures" / f"step-{step:06d}.png", device)

    return optimise(network.focus, batches, loss_of, recipe.schedule, folder, check)
