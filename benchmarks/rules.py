"""The rules by which benchmarks prompt, so that a run can be repeated, and how they score an answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.measure import find_contours
from skimage.morphology import skeletonize

# of a target's extent: how far from its border a lasso is drawn
LASSO_DISTANCE = 1 / 20


@dataclass(frozen=True)
class Target:
    """One object on one slice. image (H, W) native units; mask (H, W) bool."""

    data: str
    structure: str
    place: str
    image: np.ndarray
    mask: np.ndarray
    window: tuple[float, float]


def innermost(mask: np.ndarray) -> tuple[int, int]:
    """The pixel farthest from the border of a mask (H, W)."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), mask.shape)
    return int(y), int(x)


def dice(one: np.ndarray, two: np.ndarray) -> float:
    """Dice of two masks, 1 where both are empty."""
    total = one.sum() + two.sum()
    return float(2 * (one & two).sum() / total) if total else 1.0


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Half-open (y0, x0, y1, x1)."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def middle_stroke(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: a line through the middle of a mask, its skeleton where that is at least half as deep as it gets."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    line = skeletonize(mask) & (depth >= depth.max() / 2)
    parts, count = ndimage.label(line, np.ones((3, 3)))
    if count == 0:
        line = np.zeros_like(mask)
        line[innermost(mask)] = True
        return line
    return np.asarray(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))


def loose_lasso(mask: np.ndarray) -> list[tuple[float, float]]:
    """(row, column) of a line around a mask, a twentieth of its extent outside it, one pixel at least."""
    y0, x0, y1, x1 = bounding_box(mask)
    margin = max(1.0, LASSO_DISTANCE * max(y1 - y0, x1 - x0))
    reach = int(np.ceil(margin)) + 2
    away = ndimage.distance_transform_edt(~np.pad(mask, reach))
    line = max(find_contours(away, margin), key=len)[:-1] - reach
    height, width = mask.shape
    return [(float(np.clip(y, -0.5, height - 0.51)), float(np.clip(x, -0.5, width - 0.51))) for y, x in line]
