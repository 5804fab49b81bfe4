"""How an object looks where a person marked it, so that following it can tell when something else has begun."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_BINS = 32  # of intensities in [0, 1]
_SMOOTHING_BINS = 1.5
_RING = 1 / 3  # of the object's extent: how far around it "beside the object" reaches
_RING_PIXELS = 3
_FLOOR = 1e-3  # probability of an intensity that was never seen
_CLIP = 3.0  # nats: no single intensity decides


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(y0, x0, y1, x1), half-open, of a mask that is not empty."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


class Appearance:
    """The intensities of an object against those beside it, learned from one slice and its mask.

    image: (H, W) float32 in [0, 1]. mask: (H, W) bool, not empty.
    """

    def __init__(self, image: np.ndarray, mask: np.ndarray) -> None:
        y0, x0, y1, x1 = bounding_box(mask)
        rows, columns = (_RING_PIXELS + round(_RING * extent) for extent in (y1 - y0, x1 - x0))
        beside = np.zeros_like(mask)
        beside[max(0, y0 - rows) : y1 + rows, max(0, x0 - columns) : x1 + columns] = True
        ratio = np.log(_histogram(image[mask]) / _histogram(image[beside & ~mask]))
        self._evidence = np.clip(ratio, -_CLIP, _CLIP)

    def evidence(self, image: np.ndarray, mask: np.ndarray) -> float:
        """Mean log-likelihood ratio, in nats, of the pixels under `mask`: above 0 they look like the object."""
        values = image[mask]
        return float(self._evidence[_bin(values)].mean()) if values.size else -_CLIP


def _bin(values: np.ndarray) -> np.ndarray:
    bins: np.ndarray = (values * (_BINS - 1) + 0.5).astype(np.intp)
    return bins


def _histogram(values: np.ndarray) -> np.ndarray:
    counts = np.bincount(_bin(values), minlength=_BINS).astype(np.float64)
    smooth = ndimage.gaussian_filter1d(counts, _SMOOTHING_BINS, mode="constant")
    smooth += _FLOOR * max(1.0, float(counts.sum()))
    share: np.ndarray = smooth / smooth.sum()
    return share
