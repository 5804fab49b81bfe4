"""What the second look is trained on: crops around objects of any size, with prompts and spoilt masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from napari_medtransformer.models.focus_crops import crop_window
from napari_medtransformer.prompting.model_prompts import POINTS_PER_STROKE
from napari_medtransformer.training.cases import LabelledCase
from napari_medtransformer.training.clicks import ObjectPrompts, draw_targets, first_prompts
from napari_medtransformer.training.loop import Schedule
from napari_medtransformer.training.slices import SliceShares, draw_slice
from napari_medtransformer.training.spoiling import spoilt_logits


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
    slices: SliceShares = field(default_factory=SliceShares)
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


class CropBatch(NamedTuple):
    """B slices with T targets each, and what each target is shown by; everything in pixels of the slices.

    images: (B, 1, S, S) in [0, 1]. targets: (B, T, S, S) bool. guesses, logits of an earlier mask, and drawn, those of
    a stroke or a lasso: (B, T, S, S). windows, the crops, and boxes: (B, T, 4). points on the object: (B, T, P, 2).
    has_guess, has_drawn, has_box: (B, T) bool; has_point: (B, T, P) bool.
    """

    images: Tensor
    targets: Tensor
    guesses: Tensor
    has_guess: Tensor
    drawn: Tensor
    has_drawn: Tensor
    windows: Tensor
    boxes: Tensor
    has_box: Tensor
    points: Tensor
    has_point: Tensor


class CropStream(Dataset[CropBatch]):
    """Item i is the i-th slice, a CropBatch without the B, whatever the worker: deterministic by seed and i."""

    def __init__(self, cases: Sequence[LabelledCase], recipe: SecondLookRecipe, first: int) -> None:
        self.cases, self.recipe, self.first = cases, recipe, first

    def __len__(self) -> int:
        return self.recipe.schedule.steps * self.recipe.images_per_step - self.first

    def __getitem__(self, item: int) -> CropBatch:
        recipe = self.recipe
        rng = np.random.default_rng((recipe.seed, self.first + item))
        while True:
            drawn = draw_slice(self.cases, recipe.slice_size, recipe.slices, rng)
            targets = draw_targets(drawn.labels, recipe.targets_per_image, rng)
            if targets:
                break
        while len(targets) < recipe.targets_per_image:
            targets.append(targets[int(rng.integers(len(targets)))])
        made = [self._prompted(mask, drawn.labels, drawn.image, rng) for mask in targets]
        image = torch.from_numpy(drawn.image)[None]
        each = (torch.stack(group) for group in zip(*made, strict=True))
        return CropBatch(image, torch.from_numpy(np.stack(targets)), *each)

    def _prompted(
        self, mask: np.ndarray, labels: np.ndarray, picture: np.ndarray, rng: np.random.Generator
    ) -> tuple[Tensor, ...]:
        """What a CropBatch says of one target, from its guess on."""
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
            torch.tensor(has_guess),
            torch.from_numpy(nothing if prompts.drawn is None else prompts.drawn),
            torch.tensor(prompts.drawn is not None),
            window.float(),
            torch.tensor(prompts.box or (0.0, 0.0, 1.0, 1.0), dtype=torch.float32),
            torch.tensor(prompts.box is not None),
            torch.from_numpy(points),
            torch.arange(POINTS_PER_STROKE) < len(prompts.points),
        )


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
