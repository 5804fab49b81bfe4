"""How an object looks where a person marked it, and where on other slices it looks like that."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_BINS = 64  # of intensities in [0, 1]
_BIN_SMOOTHING = 1.0  # bins
_UNSEEN_INSIDE, _UNSEEN_BESIDE = 0.02, 0.1  # share of intensities never seen: those are rather not the object
_CLIP = 3.0  # nats: no single intensity decides
_RING = 1 / 3  # of the object's extent: how far around it "beside the object" reaches, and at least
_RING_PIXELS = 3
_NOISE_PIXELS = 0.9  # sigma against noise; beyond slices nothing is averaged, as that blurs where an object ends
_EVIDENCE_PIXELS = 1.0  # sigma: what a pixel looks like is judged together with those around it


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(y0, x0, y1, x1), half-open, of a mask that is not empty."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def around(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """Where a mask (H, W) is, and so many pixels around it."""
    y0, x0, y1, x1 = bounding_box(mask)
    return slice(max(0, y0 - margin), y1 + margin), slice(max(0, x0 - margin), x1 + margin)


def without_noise(image: np.ndarray) -> np.ndarray:
    """A slice (H, W) with less noise."""
    smooth: np.ndarray = ndimage.gaussian_filter(image.astype(np.float32, copy=False), _NOISE_PIXELS)
    return smooth


class Appearance:
    """The intensities of an object against those beside it, learned from one slice and its mask.

    image: (H, W) float32 in [0, 1], see without_noise. mask: (H, W) bool, not empty.
    """

    def __init__(self, image: np.ndarray, mask: np.ndarray) -> None:
        y0, x0, y1, x1 = bounding_box(mask)
        rows, columns = (_RING_PIXELS + int(_RING * extent) for extent in (y1 - y0, x1 - x0))
        beside = np.zeros_like(mask)
        beside[max(0, y0 - rows) : y1 + rows, max(0, x0 - columns) : x1 + columns] = True
        beside &= ~ndimage.binary_dilation(mask)
        ratio = np.log(_shares(image[mask], _UNSEEN_INSIDE) / _shares(image[beside], _UNSEEN_BESIDE))
        self._evidence = np.clip(ratio, -_CLIP, _CLIP).astype(np.float32)
        self.own = float(self.evidence(image)[mask].mean())  # of the object where it was marked, in nats per pixel

    def evidence(self, image: np.ndarray) -> np.ndarray:
        """(H, W) float32 log-likelihood ratio, in nats: above 0 a pixel and those around it look like the object."""
        smooth: np.ndarray = ndimage.gaussian_filter(self._evidence[_bin(image)], _EVIDENCE_PIXELS)
        return smooth


def _bin(values: np.ndarray) -> np.ndarray:
    bins: np.ndarray = (np.clip(values, 0, 1) * (_BINS - 1) + 0.5).astype(np.intp)
    return bins


def _shares(values: np.ndarray, unseen: float) -> np.ndarray:
    """The share of each bin, none of them zero."""
    counts = np.bincount(_bin(values), minlength=_BINS).astype(np.float64)
    smooth = ndimage.gaussian_filter1d(counts, _BIN_SMOOTHING, mode="constant") / max(1.0, counts.sum())
    shares: np.ndarray = (1 - unseen) * smooth + unseen / _BINS
    return shares
