"""Where finished sums land: as labels, and uncertainty, on the volume's own grid, as soon as they can."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from napari_medtransformer.segmentation.model_grid import AxisMap, ModelGrid, Taps, between
from napari_medtransformer.segmentation.options import Box
from napari_medtransformer.segmentation.overlap_add import FinishedBlock

# Where no window said anything, all is air: so much more likely that interpolation beside it stays background.
_AIR_LOGIT = 5.0
# How many planes before the first unfinished one a native plane may need: a cubic kernel reaches two voxels.
_KEPT_PLANES = 3
# Bytes of logits read back from the model's grid at a time.
_CHUNK_BYTES = 16 << 20


@dataclass(eq=False)
class Outcome:
    """What a segmentation leaves behind, (z, y, x) on the volume's grid, filled while it runs.

    values: the label of each class, background first. entropy: nats. disagreement: share of mirrored passes that say
    something else than their mean, [0, 1]. logits: (classes, z, y, x), for small volumes and comparisons.
    """

    labels: np.ndarray
    values: np.ndarray
    entropy: np.ndarray | None = None
    disagreement: np.ndarray | None = None
    logits: np.ndarray | None = None

    @property
    def wants_means(self) -> bool:
        """Whether more than the largest logit is asked for."""
        return self.entropy is not None or self.disagreement is not None or self.logits is not None

    def write(self, means: Tensor, start: Sequence[int], order: Sequence[int]) -> None:
        """Write a block. means: (classes [+ disagreement], *block), axes in `order`; start: its native voxel."""
        classes = len(self.values)
        place = tuple(slice(a, a + n) for a, n in zip(start, means.shape[1:]))
        logits = means[:classes]
        self.labels.transpose(order)[place] = self.values[logits.argmax(0).cpu().numpy()]
        if self.entropy is not None:
            log_shares = logits.log_softmax(0)
            entropy = -(log_shares.exp() * log_shares).sum(0)
            self.entropy.transpose(order)[place] = entropy.cpu().numpy()
        if self.disagreement is not None:
            self.disagreement.transpose(order)[place] = means[classes].cpu().numpy()
        if self.logits is not None:
            axes = (0, *(axis + 1 for axis in order))
            self.logits.transpose(axes)[(slice(None), *place)] = logits.cpu().numpy()


@dataclass(eq=False)
class DirectLanding:
    """For a model's grid that is the volume's: every block lands at once. order: the axes (z, y, x), slowest first."""

    grid: ModelGrid
    order: tuple[int, int, int]
    outcome: Outcome

    def add(self, block: FinishedBlock) -> Iterator[Box]:
        """Write a block. Yields the native voxels that are complete, axes in `order`, at the end of a line."""
        axes = [self.grid.axes[axis] for axis in self.order]
        starts = [max(a.first + at, a.start) for a, at in zip(axes, block.start)]
        stops = [min(a.first + at, a.stop) for a, at in zip(axes, block.stop)]
        line_ends = block.stop[2] == axes[2].length
        if any(a >= b for a, b in zip(starts[:2], stops[:2])):
            return
        if starts[2] < stops[2]:
            cut = tuple(slice(a - m.first - s, b - m.first - s) for a, b, m, s in
                        zip(starts, stops, axes, block.start))  # fmt: skip
            sums = block.sums[(slice(None), *cut)]
            self.outcome.write(_means(sums) if self.outcome.wants_means else sums[:-1], starts, self.order)
        if line_ends:
            yield (starts[0], starts[1], axes[2].start), (stops[0], stops[1], axes[2].stop)


@dataclass(eq=False)
class ResampledLanding:
    """For any other grid: a row's blocks are gathered, and read back at the native voxels between finished planes."""

    grid: ModelGrid
    order: tuple[int, int, int]
    outcome: Outcome
    _slab: Tensor | None = field(default=None, init=False)
    _slab_first: int = field(default=0, init=False)  # the first plane of the slab, among those that windows cover
    _next: int = field(default=-1, init=False)  # the native plane that comes next

    def add(self, block: FinishedBlock) -> Iterator[Box]:
        """Take a block. Yields the native voxels that are complete, axes in `order`, at the end of a row.

        Some planes at a time: reading back a row of a large volume takes seconds, and somebody may want to leave.
        """
        slow, *across = (self.grid.axes[axis] for axis in self.order)
        means = _means(block.sums)
        slab = self._slab_of(block, means, (across[0].length, across[1].length))
        place = tuple(slice(a, b) for a, b in zip(block.start, block.stop))
        planes = slice(block.start[0] - self._slab_first, block.stop[0] - self._slab_first)
        slab[(slice(None), planes, *place[1:])] = means
        if block.stop[1] < across[0].length or block.stop[2] < across[1].length:
            return
        first = self._next if self._next >= 0 else slow.start
        last = self._last_plane(slow, block.stop[0])
        if last < first:
            return
        self._next = last + 1
        for begin, end in self._read_back(slab, slow, across, first, last):
            yield (begin, across[0].start, across[1].start), (end, across[0].stop, across[1].stop)

    def _slab_of(self, block: FinishedBlock, means: Tensor, across: tuple[int, int]) -> Tensor:
        """The planes of the block's row, and before them the last ones before it, for reading back."""
        if self._slab is not None and block.start[0] < self._slab_first + self._slab.shape[1]:
            return self._slab
        kept = None if self._slab is None else self._slab[:, -_KEPT_PLANES:].clone()
        self._slab = None  # before the next one is made
        before = 0 if kept is None else kept.shape[1]
        planes = before + block.stop[0] - block.start[0]
        self._slab = means.new_zeros((len(means), planes, *across))
        self._slab_first = block.start[0] - before
        if kept is not None:
            self._slab[:, :before] = kept
        return self._slab

    def _last_plane(self, slow: AxisMap, finished: int) -> int:
        """The last native plane that lies between planes of which `finished`, among those windows cover, are done."""
        furthest = slow.taps(np.arange(slow.start, slow.stop)).index.max(axis=1)
        return slow.start + int(np.searchsorted(furthest, finished, side="left")) - 1

    def _read_back(
        self, slab: Tensor, slow: AxisMap, across: Sequence[AxisMap], first: int, last: int
    ) -> Iterator[tuple[int, int]]:
        """Labels of the native planes [first, last], some at a time: yields which, half-open."""
        rows, columns = (axis.taps(np.arange(axis.start, axis.stop)) for axis in across)
        plane_bytes = 4 * len(slab) * math.prod(axis.stop - axis.start for axis in across)
        step = max(1, _CHUNK_BYTES // plane_bytes)
        for begin in range(first, last + 1, step):
            end = min(begin + step, last + 1)
            planes = slow.taps(np.arange(begin, end))
            means = between(slab, 1, Taps(planes.index - self._slab_first, planes.weights))
            means = between(between(means, 2, rows), 3, columns)
            self.outcome.write(means, (begin, across[0].start, across[1].start), self.order)
            yield begin, end


def _means(sums: Tensor) -> Tensor:
    """(values, *block) from sums (values + weights, *block); air where nothing was added."""
    weights = sums[-1]
    means = sums[:-1] / weights.clamp_min(torch.finfo(weights.dtype).tiny)
    means[0].masked_fill_(weights == 0, _AIR_LOGIT)
    return means
