"""Plausible wrong masks, as a first look gives them: the second look learns to mend these."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_medtransformer.training.slices import smooth_field

# How a mask is spoilt, and how often: bent, with a neighbour, with a part missing, a mere disc, grown by intensity.
_WAYS = {"bent": 0.2, "neighbour": 0.2, "part": 0.15, "disc": 0.25, "grown": 0.2}
# Smallest and largest disc over the object's radius: a first look errs in size as well as in shape.
_DISC_RADII = (0.2, 4.0)
_EDGE = 0.12  # logits change by one over this share of the object's radius


def spoilt_logits(
    mask: np.ndarray, labels: np.ndarray, picture: np.ndarray, click: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Logits of a wrong guess at an object, (S, S) float32, inside > 0.

    mask (S, S) bool; labels (S, S), 0 background; picture (S, S) in [0, 1]; click: (y, x) inside the object.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    radius = float(np.sqrt(mask.sum() / np.pi))
    way = str(rng.choice(list(_WAYS), p=list(_WAYS.values())))
    reach = int(2 + (4 if way == "disc" else 1.5) * radius)
    top, left = max(0, rows[0] - reach), max(0, columns[0] - reach)
    part = np.s_[top : rows[-1] + reach, left : columns[-1] + reach]
    guess = _wrong(way, mask[part], labels[part], picture[part], (click[0] - top, click[1] - left), radius, rng)
    distance = _signed_distance(guess)
    bend = smooth_field(guess.shape, int(rng.choice([3, 5, 8])), rng) * rng.uniform(0, 0.35) + rng.normal(0, 0.1)
    logits = np.full(mask.shape, -8, np.float32)
    logits[part] = np.clip((distance + bend * radius) / (_EDGE * radius), -8, 8)
    return logits


def _wrong(
    way: str,
    mask: np.ndarray,
    labels: np.ndarray,
    picture: np.ndarray,
    click: tuple[float, float],
    radius: float,
    rng: np.random.Generator,
) -> np.ndarray:
    y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    if way == "neighbour":
        around = np.unique(labels[ndimage.binary_dilation(mask, iterations=2) & ~mask])
        if len(around):
            return np.asarray(mask | ((labels == rng.choice(around)) & _disc(click, radius * 3, y, x)))
    if way == "part":
        angle = rng.uniform(0, 2 * np.pi)
        side = (y - click[0]) * np.sin(angle) + (x - click[1]) * np.cos(angle)
        kept = mask & (side < rng.uniform(0.1, 1.0) * radius)
        return np.asarray(kept if kept.any() else mask)
    if way == "disc":
        return _disc(click, radius * np.exp(rng.uniform(*np.log(_DISC_RADII))), y, x)
    if way == "grown":
        smooth = ndimage.uniform_filter(picture, 3)
        at = min(int(click[0]), mask.shape[0] - 1), min(int(click[1]), mask.shape[1] - 1)
        alike = np.abs(smooth - smooth[at]) < rng.uniform(0.02, 0.15)
        parts, _ = ndimage.label(alike & _disc(click, 2.5 * radius, y, x))
        return np.asarray(parts == parts[at])
    return mask


def _disc(centre: tuple[float, float], radius: float, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.asarray((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2)


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    """Pixels to the edge, positive inside."""
    if not mask.any():
        return np.full(mask.shape, -10.0)
    inside = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return np.asarray(inside - ndimage.distance_transform_edt(~mask))
