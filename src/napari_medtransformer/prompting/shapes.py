"""Masks as shapes: filled between slices, smoothed, reduced to their largest part, closed. numpy and scipy only."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from scipy import ndimage

_TRUNCATE = 3.0  # sigmas that a Gaussian reaches


def fill_between(masks: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Shapes on the slices between those given. masks: (H, W) bool by slice index; empty ones say the object's end.

    Shape-based interpolation (Raya & Udupa 1990, doi:10.1109/42.52980): signed distances to the outline are blended by
    nearness, each moved to where the middle of the object lies between the two slices.
    """
    filled: dict[int, np.ndarray] = {}
    for first, last in itertools.pairwise(sorted(masks)):
        below, above = masks[first], masks[last]
        if not below.any() or not above.any():
            continue
        middles = [np.array(ndimage.center_of_mass(mask)) for mask in (below, above)]
        distances = [signed_distance(mask) for mask in (below, above)]
        for index in range(first + 1, last):
            nearness = (last - index) / (last - first)
            middle = nearness * middles[0] + (1 - nearness) * middles[1]
            parts = [_shifted(d, middle - m) for d, m in zip(distances, middles)]
            filled[index] = nearness * parts[0] + (1 - nearness) * parts[1] > 0
    return filled


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """(H, W) float64 distance to the outline in pixels, positive inside; the image's edge bounds nothing."""
    distance: np.ndarray = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    return distance - np.where(mask, 0.5, -0.5)


def smoothed(mask: np.ndarray, sigma: tuple[float, float, float]) -> np.ndarray:
    """A (z, y, x) bool mask with a smooth outline and as many voxels, as nearly as equal values allow.

    sigma: of the Gaussian, in voxels per axis. Slices (z) that held nothing hold nothing afterwards.
    """
    result = np.zeros_like(mask)
    if not mask.any():
        return result
    where = _around(mask, [int(np.ceil(_TRUNCATE * s)) for s in sigma])
    part = mask[where]
    soft = ndimage.gaussian_filter(part.astype(np.float32), sigma, mode="constant", truncate=_TRUNCATE)
    count = int(np.count_nonzero(part))
    soft *= part.any(axis=(1, 2), keepdims=True)
    level = np.partition(soft.reshape(-1), soft.size - count)[soft.size - count]
    result[where] = soft >= max(float(level), np.finfo(np.float32).tiny)
    return result


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest of a (z, y, x) bool mask's connected parts, voxels touching by a corner included."""
    parts, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim, bool))
    if count < 2:
        return mask.copy()
    largest: np.ndarray = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return largest


def without_holes(mask: np.ndarray, axis: int) -> np.ndarray:
    """A (z, y, x) bool mask with what it encloses on each slice across `axis` filled."""
    slices = np.moveaxis(mask, axis, 0)
    filled = [ndimage.binary_fill_holes(one) if one.any() else one for one in slices]
    return np.moveaxis(np.stack(filled), 0, axis)


def _around(mask: np.ndarray, margin: list[int]) -> tuple[slice, ...]:
    """Where the mask is, and so far around it."""
    spans = []
    for axis in range(mask.ndim):
        there = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        spans.append(slice(max(0, int(there[0]) - margin[axis]), int(there[-1]) + 1 + margin[axis]))
    return tuple(spans)


def _shifted(distance: np.ndarray, by: np.ndarray) -> np.ndarray:
    """A distance map moved by pixels; beyond its edges it goes on as at the edge."""
    if np.abs(by).max() < 1e-9:
        return distance
    moved: np.ndarray = ndimage.shift(distance, by, order=1, mode="nearest")
    return moved
