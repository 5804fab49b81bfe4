"""The rules by which benchmarks prompt, so that a run can be repeated, and how they score an answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


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
