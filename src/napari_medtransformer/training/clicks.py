"""Prompts as people give them: a jittered box, a first click anywhere plausible, corrections where the error is."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from napari_medtransformer.prompting.model_prompts import lasso_logits, painted_logits, stroke_points
from napari_medtransformer.prompting.refining import REFINED_LOGIT
from napari_medtransformer.training.drawn import drawn_lasso, drawn_stroke

# Masks smaller than this many input pixels cannot be told apart from noise at the network's resolution.
SMALLEST_TARGET = 24
# Share of the boxes that fit exactly.
EXACT_BOXES = 0.45
# What an object is shown by at first, and how often.
_FIRST = {"box": 0.32, "both": 0.11, "click": 0.37, "stroke": 0.12, "lasso": 0.08}


@dataclass
class ObjectPrompts:
    """The prompts that one target has gathered; coordinates are input pixels of the (S, S) image.

    drawn: (S, S) float32 logits of a stroke or a lasso, as a session gives them.
    """

    points: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    box: tuple[float, float, float, float] | None = None
    drawn: np.ndarray | None = None


def draw_targets(labels: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Up to `count` boolean masks (S, S): labels, connected components of labels, unions of neighbours."""
    names, areas = np.unique(labels[labels > 0], return_counts=True)
    keep = areas >= SMALLEST_TARGET
    names, areas = names[keep], areas[keep].astype(np.float64)
    targets: list[np.ndarray] = []
    for _ in range(3 * count):
        if len(targets) == count or len(names) == 0:
            break
        name = names[rng.choice(len(names), p=areas**0.3 / (areas**0.3).sum())]
        mask = labels == name
        kind = rng.random()
        if kind < 0.75:
            parts, parts_count = ndimage.label(mask)
            if parts_count > 1:
                sizes = np.bincount(parts.ravel())[1:].astype(np.float64)
                mask = parts == 1 + rng.choice(parts_count, p=sizes / sizes.sum())
        elif kind < 0.85:
            around = np.unique(labels[ndimage.binary_dilation(mask, iterations=2) & ~mask])
            around = around[around > 0]
            if len(around):
                mask = mask | (labels == rng.choice(around))
        if mask.sum() >= SMALLEST_TARGET:
            targets.append(mask)
    return targets


def first_prompts(mask: np.ndarray, rng: np.random.Generator) -> ObjectPrompts:
    """A box, a click, both, a stroke or a lasso for a target (S, S) bool."""
    prompts = ObjectPrompts()
    kind = str(rng.choice(list(_FIRST), p=list(_FIRST.values())))
    if kind in ("box", "both"):
        prompts.box = jittered_box(mask, rng)
    if kind in ("click", "both"):
        prompts.points.append(plausible_point(mask, rng))
    elif kind == "stroke":
        stroke = drawn_stroke(mask, rng)
        prompts.drawn, prompts.points = painted_logits(stroke), stroke_points(stroke)
    elif kind == "lasso":
        lasso = drawn_lasso(mask, rng)
        prompts.drawn, prompts.points = lasso_logits(lasso), stroke_points(lasso, most=1)
    prompts.labels = [1] * len(prompts.points)
    return prompts


def jittered_box(mask: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """The bounding box, sometimes exact, mostly each side moved by about 3% of the box's length or half a pixel."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    edges = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], dtype=np.float64)
    lengths = np.array([edges[2] - edges[0], edges[3] - edges[1]] * 2)
    if rng.random() > EXACT_BOXES:
        limit = np.maximum(0.1 * lengths, 1.5)
        edges += np.clip(rng.normal(0, 1, 4) * np.maximum(0.03 * lengths, 0.6), -limit, limit)
    y0, x0, y1, x1 = (float(v) for v in np.clip(edges, 0, mask.shape[0]))
    return y0, x0, max(y1, y0 + 1), max(x1, x0 + 1)


def plausible_point(mask: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """A pixel inside a mask (S, S): anywhere, the middle likelier than the rim, sometimes the very middle."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    top, left = rows[0], columns[0]
    crop = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    depth = ndimage.distance_transform_edt(crop)
    if rng.random() < 0.4:
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    else:
        chance = depth.ravel() ** rng.uniform(0.3, 2)
        y, x = np.unravel_index(int(rng.choice(chance.size, p=chance / chance.sum())), depth.shape)
    return float(y - 1 + top), float(x - 1 + left)


def add_correction(prompts: ObjectPrompts, mask: np.ndarray, predicted: np.ndarray, rng: np.random.Generator) -> bool:
    """Click in the largest region that is wrong. Both masks (S/2, S/2) bool; False where nothing is wrong."""
    largest: np.ndarray | None = None
    size, sign = 0, 1
    for value, wrong in ((1, mask & ~predicted), (0, predicted & ~mask)):
        parts, count = ndimage.label(wrong)
        if count == 0:
            continue
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        if sizes.max() > size:
            size, sign = int(sizes.max()), value
            largest = parts == sizes.argmax()
    if largest is None or size < 3:
        return False
    y, x = plausible_point(largest, rng)
    prompts.points.append((2 * y + float(rng.integers(2)), 2 * x + float(rng.integers(2))))
    prompts.labels.append(sign)
    return True


def as_refined(logits: Tensor, rng: np.random.Generator) -> Tensor:
    """Answers (B, …) as they come back to be refined: every other one a mask, as in a session, the rest logits."""
    masked = torch.from_numpy(rng.random(len(logits)) < 0.5).to(logits.device)
    mask = torch.where(logits > 0, REFINED_LOGIT, -REFINED_LOGIT).to(logits.dtype)
    return torch.where(masked.view(-1, *[1] * (logits.ndim - 1)), mask, logits)
