"""The part of a volume that is asked for."""

from __future__ import annotations

import math

import numpy as np

from napari_medtransformer.segmentation.options import Box
from napari_medtransformer.volumes.lazy import lazy_of

# Of a region that stays in its file no more values than this are looked at.
_MOST_VALUES = 1 << 21


def extent_of(shape: tuple[int, int, int], region: Box | None) -> tuple[int, int, int]:
    """Voxels (z, y, x) of a region, of the whole volume for None."""
    if region is None:
        return shape
    z, y, x = (stop - start for start, stop in zip(*region, strict=True))
    return z, y, x


def values_within(data: np.ndarray, region: Box | None) -> np.ndarray:
    """What a volume holds in a region, to learn its intensities from; the data itself for None, else a view.

    Of an array that stays in its file, every n-th voxel per axis where the region is large: not all of it is read.
    """
    if region is None:
        return data
    step = 1
    if lazy_of(data) is not None:
        step = max(1, math.ceil((math.prod(extent_of(data.shape, region)) / _MOST_VALUES) ** (1 / 3)))
    return data[tuple(slice(start, stop, step) for start, stop in zip(*region, strict=True))]
