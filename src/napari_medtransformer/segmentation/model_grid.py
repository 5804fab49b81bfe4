"""The grid on which a model works, and the way between it and the volume's own, a window or a slab at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from napari_medtransformer.errors import InvalidOption
from napari_medtransformer.segmentation.options import Box

# Voxels whose size differs by less than this share are taken as they are.
_SAME_SPACING = 0.02
# Places along an axis that are read back in one matrix product.
_PLACES_AT_ONCE = 64
# Weights closer to 1 than this differ by rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Taps:
    """Places along an axis as weighted means of its voxels. index, weights: (places, voxels of each); sums are 1."""

    index: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class AxisMap:
    """One axis of a volume, and the model's axis over the same millimetres, edge to edge.

    native, model: voxels. start, stop: the native voxels that are wanted. first, length: the model's voxels that
    windows cover, to fill a whole window beyond [0, model) where the axis is shorter: there is padding.
    """

    native: int
    model: int
    start: int
    stop: int
    first: int
    length: int

    @property
    def is_same(self) -> bool:
        """Whether the model's voxels are the volume's."""
        return self.native == self.model

    def to_model(self, index: np.ndarray) -> np.ndarray:
        """Native voxel coordinates as the model's; integers are centres."""
        return (index + 0.5) * (self.model / self.native) - 0.5

    def sampling(self, first: int, count: int) -> tuple[slice, np.ndarray | None]:
        """How model voxels [first, first + count), inside the axis, are made of native ones.

        The native range to read, and the (count, range) weights of its voxels, rows summing to 1; None where voxels
        are the same. Cubic; where the model's voxels are coarser the kernel widens with them, so that nothing is
        skipped (the antialiasing of image libraries).
        """
        if self.is_same:
            return slice(first, first + count), None
        scale = self.native / self.model
        reach = max(scale, 1.0)
        centres = (np.arange(first, first + count) + 0.5) * scale - 0.5
        low = max(0, math.floor(centres[0] - 2 * reach))
        high = min(self.native, math.ceil(centres[-1] + 2 * reach) + 1)
        weights = _cubic((np.arange(low, high) - centres[:, None]) / reach)
        weights /= weights.sum(axis=1, keepdims=True)
        return slice(low, high), weights.astype(np.float32)

    def taps(self, planes: np.ndarray) -> Taps:
        """Native voxels as weighted means of model voxels, cubic; the last voxel repeats beyond the ends."""
        low, high = max(self.first, 0), min(self.first + self.length, self.model) - 1
        at = np.clip(self.to_model(planes), low, high)
        around = np.floor(at).astype(np.int64)[:, None] + np.arange(-1, 3)
        weights = _cubic(around - at[:, None])
        return Taps(np.clip(around, low, high) - self.first, weights.astype(np.float32))


@dataclass(frozen=True)
class ModelGrid:
    """The three axes (z, y, x) of a volume as a model sees them, for windows of one size. window: voxels per axis."""

    axes: tuple[AxisMap, AxisMap, AxisMap]
    window: tuple[int, int, int]

    @property
    def is_same(self) -> bool:
        """Whether nothing is resampled."""
        return all(axis.is_same for axis in self.axes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the whole volume on this grid."""
        z, y, x = (axis.model for axis in self.axes)
        return z, y, x

    @property
    def lengths(self) -> tuple[int, int, int]:
        """Voxels that windows cover, padding included."""
        z, y, x = (axis.length for axis in self.axes)
        return z, y, x

    @property
    def region(self) -> Box:
        """(start, stop) of the native voxels that are wanted."""
        z, y, x = self.axes
        return (z.start, y.start, x.start), (z.stop, y.stop, x.stop)

    def origin(self, start: Sequence[int]) -> tuple[int, int, int]:
        """A window's first voxel on the model's grid, from its place among those that windows cover."""
        z, y, x = (axis.first + s for axis, s in zip(self.axes, start))
        return z, y, x

    def native_part(self, start: Sequence[int]) -> tuple[slice, slice, slice]:
        """The native voxels that a window is made of. start: as for `origin`."""
        z, y, x = (axis.sampling(first, count)[0] for axis, (first, count, _) in zip(self.axes, self._inside(start)))
        return z, y, x

    def read(self, data: np.ndarray, start: Sequence[int], scale: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """A window as the network wants it: (channels, *window) float32, padding 0.

        data: (z, y, x) native. start: as for `origin`. scale: the model's normalisation.
        """
        inside = self._inside(start)
        samplings = [axis.sampling(first, count) for axis, (first, count, _) in zip(self.axes, inside)]
        z, y, x = (part for part, _ in samplings)
        part = np.asarray(data[z, y, x])
        weights_z, weights_y, weights_x = (weights for _, weights in samplings)
        if weights_x is not None:
            part = part.astype(np.float32, copy=False) @ weights_x.T
        if weights_y is not None:
            part = np.matmul(weights_y, part.astype(np.float32, copy=False))
        if weights_z is not None:
            part = np.tensordot(weights_z, part.astype(np.float32, copy=False), axes=1)
        scaled = scale(part)
        if scaled.shape[1:] == self.window:
            return scaled
        padding = [(before, n - count - before) for n, (_, count, before) in zip(self.window, inside)]
        return np.pad(scaled, [(0, 0), *padding])

    def _inside(self, start: Sequence[int]) -> list[tuple[int, int, int]]:
        """Of a window per axis: its first voxel inside the volume, how many are inside, how many lie before."""
        found = []
        for axis, at, n in zip(self.axes, start, self.window):
            first = axis.first + at
            low, high = max(first, 0), min(first + n, axis.model)
            found.append((low, high - low, low - first))
        return found


def model_grid(
    shape: Sequence[int],
    spacing: Sequence[float],
    model_spacing: Sequence[float | None],
    window: Sequence[int],
    region: Box | None = None,
    multiple: Sequence[int] = (1, 1, 1),
) -> ModelGrid:
    """The grid of a model over a volume.

    shape, spacing: of the volume, (z, y, x), mm. model_spacing: the voxels the model wants, mm; None for as they are.
    window: voxels per axis; an axis of 0 becomes one window over all that is wanted, up to the next `multiple`.
    region: what is wanted, native voxels, half-open. Raises InvalidOption for a region outside the volume.
    """
    starts, stops = ((0, 0, 0), tuple(shape)) if region is None else region
    if any(a < 0 or b > n for a, b, n in zip(starts, stops, shape)):
        raise InvalidOption(f"the region {starts} to {stops} leaves the volume of {tuple(shape)} (z, y, x) voxels.")
    axes, sizes = [], []
    for n, size, wanted, w, m, start, stop in zip(
        shape, spacing, model_spacing, window, multiple, starts, stops, strict=True
    ):
        factor = 1.0 if wanted is None else size / wanted
        model = n if abs(factor - 1) < _SAME_SPACING else max(1, round(n * factor))
        # Where native voxels are read back from: the centres of the outermost ones, one voxel further on either side.
        low = max(0, math.floor((start + 0.5) * model / n - 0.5))
        high = min(model, math.ceil((stop - 0.5) * model / n - 0.5) + 1)
        w = w or math.ceil((high - low) / m) * m
        missing = w - (high - low)
        if missing > 0:
            low -= missing // 2
            high = low + w
            if w <= model:  # what lies around the region is better than padding
                low = min(max(low, 0), model - w)
                high = low + w
            else:
                low = -((w - model) // 2)
                high = low + w
        axes.append(AxisMap(n, model, start, stop, low, high - low))
        sizes.append(w)
    z, y, x = axes
    a, b, c = sizes
    return ModelGrid((z, y, x), (a, b, c))


def between(values: Tensor, axis: int, taps: Taps) -> Tensor:
    """`values` read at places along an axis, with a new axis length of as many places.

    As matrix products, some places at a time, each with the stretch of voxels that they lie in: gathering and adding
    up tap by tap goes through memory twelve times per axis.
    """
    whole = np.abs(taps.weights - 1) < _ROUNDING
    if whole.any(axis=1).all():  # every place is a voxel
        index = taps.index[whole]
        same = np.array_equal(index, np.arange(values.shape[axis]))
        return values if same else values.index_select(axis, torch.from_numpy(index).to(values.device))
    before, after = values.shape[:axis], values.shape[axis + 1 :]
    rows = values.reshape(math.prod(before), values.shape[axis], math.prod(after))
    found = rows.new_empty((len(rows), len(taps.index), rows.shape[2]))
    for first in range(0, len(taps.index), _PLACES_AT_ONCE):
        part = slice(first, min(first + _PLACES_AT_ONCE, len(taps.index)))
        low, high = int(taps.index[part].min()), int(taps.index[part].max()) + 1
        weights = np.zeros((part.stop - first, high - low), np.float32)
        np.add.at(weights, (np.arange(len(weights))[:, None], taps.index[part] - low), taps.weights[part])
        product = torch.from_numpy(weights).to(rows.device)
        if after:
            found[:, part] = torch.bmm(product.expand(len(rows), -1, -1), rows[:, low:high])
        else:
            found[:, part, 0] = rows[:, low:high, 0] @ product.T
    return found.reshape(*before, len(taps.index), *after)


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel with a = -0.5 at distances in voxels: interpolates, and is exact for parabolas (Keys 1981)."""
    t = np.abs(distance)
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    result: np.ndarray = np.where(t < 1, near, np.where(t < 2, far, 0.0))
    return result
