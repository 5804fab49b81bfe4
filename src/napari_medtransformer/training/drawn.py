"""Strokes and lassos as hands draw them: along an object's middle, and around it with some room."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.draw import line as pixels_between
from skimage.graph import route_through_array

from napari_medtransformer.training.slices import smooth_field

# Of a stroke's second end, as many places are tried, and the farthest is taken: hands draw long rather than short.
_ENDS = 3
# Half a stroke's width, at most: of the object's depth, and in pixels.
_WIDTH, _WIDEST = 0.35, 5.0
# How far from the border a lasso is drawn, of the object's extent: inside to outside, and how much it trembles.
_LASSO_DISTANCE, _TREMBLE = (-0.02, 0.12), 0.03
# It never cuts off more than this share of the object's depth: what is thin would be lost.
_INWARD = 0.3
# Pixels per side, at most, on which a stroke finds its way.
_WAY_PIXELS = 64


def drawn_stroke(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(S, S) bool: a stroke in a mask (S, S) bool that is not empty, through its middle rather than along its rim."""
    part, depth = _part_and_depth(mask)
    step = -(-max(depth.shape) // _WAY_PIXELS)
    coarse = depth[::step, ::step]
    if not coarse.any():
        step, coarse = 1, depth
    start = _anywhere(coarse, rng)
    parts, _ = ndimage.label(coarse > 0, np.ones((3, 3)))
    ends = [_anywhere(coarse * (parts == parts[tuple(start)]), rng) for _ in range(_ENDS)]
    end = max(ends, key=lambda at: float(np.hypot(*(at - start))))
    cost = np.where(coarse > 0, (coarse.max() / np.maximum(coarse, 0.1)) ** 1.5, 1e6)
    way, _ = route_through_array(cost, start, end)
    line = np.zeros(depth.shape, bool)
    for a, b in zip(way, [*way[1:], way[-1]], strict=True):
        line[pixels_between(step * a[0], step * a[1], step * b[0], step * b[1])] = True
    half_width = min(rng.uniform(0, _WIDTH) * float(depth.max()), _WIDEST)
    stroke = np.zeros_like(mask)
    stroke[part] = ndimage.distance_transform_edt(~line) <= half_width
    return stroke


def drawn_lasso(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(S, S) bool: what a line drawn around a mask (S, S) bool that is not empty encloses, a line for every part."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    extent = max(np.ptp(rows), np.ptp(columns)) + 1
    reach = int(np.ceil(0.3 * extent)) + 3
    part = np.s_[max(0, rows[0] - reach) : rows[-1] + 1 + reach, max(0, columns[0] - reach) : columns[-1] + 1 + reach]
    inside = mask[part]
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    tremble = smooth_field(inside.shape, int(rng.choice([4, 6])), rng) * rng.uniform(0, _TREMBLE)
    distance = np.maximum((rng.uniform(*_LASSO_DISTANCE) + tremble) * extent, -_INWARD * depth.max())
    lasso = np.zeros_like(mask)
    lasso[part] = ndimage.binary_fill_holes(ndimage.distance_transform_edt(~inside) - depth <= distance)
    return lasso


def _anywhere(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pixel (2,), the likelier the deeper it lies."""
    return np.array(np.unravel_index(int(rng.choice(depth.size, p=depth.ravel() / depth.sum())), depth.shape))


def _part_and_depth(mask: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
    """The bounding box of a mask, and in it every pixel's distance to the border."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return part, ndimage.distance_transform_edt(np.pad(mask[part], 1))[1:-1, 1:-1]
