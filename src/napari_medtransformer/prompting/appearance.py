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
_RENEWAL = 0.3  # share of what is beside the object that every slice renews: its neighbours change on the way


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
    """The intensities of an object against those beside it.

    The object's are learned from one slice and its mask, and stay: what is followed cannot become something else. Those
    beside it are renewed from slice to slice, so that a neighbour that looks like the object, once it is there, no
    longer counts as the object for its looks.

    image: (H, W) float32 in [0, 1], see without_noise. mask: (H, W) bool, not empty.
    """

    def __init__(self, image: np.ndarray, mask: np.ndarray) -> None:
        self._inside = _shares(image[mask])
        self._beside = _shares(image[_beside(mask)])
        self.own = float(self.evidence(image)[mask].mean())  # of the object where it was marked, in nats per pixel

    def renew(self, image: np.ndarray, mask: np.ndarray) -> None:
        """Learn what is beside the object on the slice just followed; arrays as above, or a part of the slice."""
        beside = image[_beside(mask)]
        if beside.size:
            self._beside = (1 - _RENEWAL) * self._beside + _RENEWAL * _shares(beside)

    def evidence(self, image: np.ndarray) -> np.ndarray:
        """(H, W) float32 log-likelihood ratio, in nats: above 0 a pixel and those around it look like the object."""
        ratio = np.log(_with_unseen(self._inside, _UNSEEN_INSIDE) / _with_unseen(self._beside, _UNSEEN_BESIDE))
        known = np.clip(ratio, -_CLIP, _CLIP).astype(np.float32)
        smooth: np.ndarray = ndimage.gaussian_filter(known[_bin(image)], _EVIDENCE_PIXELS)
        return smooth


def _beside(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: around the mask, in a box a third larger on each side, without the pixels that touch it."""
    y0, x0, y1, x1 = bounding_box(mask)
    rows, columns = (_RING_PIXELS + int(_RING * extent) for extent in (y1 - y0, x1 - x0))
    beside = np.zeros_like(mask)
    beside[max(0, y0 - rows) : y1 + rows, max(0, x0 - columns) : x1 + columns] = True
    return beside & ~ndimage.binary_dilation(mask)


def _bin(values: np.ndarray) -> np.ndarray:
    bins: np.ndarray = (np.clip(values, 0, 1) * (_BINS - 1) + 0.5).astype(np.intp)
    return bins


def _shares(values: np.ndarray) -> np.ndarray:
    """The share of each bin, a little smoothed."""
    counts = np.bincount(_bin(values), minlength=_BINS).astype(np.float64)
    shares: np.ndarray = ndimage.gaussian_filter1d(counts, _BIN_SMOOTHING, mode="constant") / max(1.0, counts.sum())
    return shares


def _with_unseen(shares: np.ndarray, unseen: float) -> np.ndarray:
    """The shares with some left for intensities that were never seen, so that none is zero."""
    return (1 - unseen) * shares + unseen / _BINS
