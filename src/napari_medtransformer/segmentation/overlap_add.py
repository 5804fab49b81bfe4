"""Overlapping windows added up with a frontier instead of a volume: what is finished leaves at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class FinishedBlock:
    """Sums that no further window touches. start: first voxel per axis. sums: (channels, *block)."""

    start: tuple[int, int, int]
    sums: Tensor

    @property
    def stop(self) -> tuple[int, int, int]:
        """One past the last voxel per axis."""
        a, b, c = (begin + n for begin, n in zip(self.start, self.sums.shape[1:]))
        return a, b, c


class OverlapAdd:
    """Adds windows that arrive in order, the first axis slowest, and hands out every voxel when its sum is complete.

    Kept are the planes in which a row of windows overlaps the next row, the rows in which a line overlaps the next
    line, and one window: channels × (overlap × rest of the volume), not channels × volume. Any overlap will do: what a
    window leaves unfinished is passed on to its neighbour, as often as need be.
    """

    def __init__(
        self, channels: int, starts: Sequence[Sequence[int]], window: Sequence[int], device: torch.device
    ) -> None:
        """starts: first voxels of the windows per axis, ascending; the last window ends with the axis."""
        self.channels = channels
        self._starts = [list(axis) for axis in starts]
        self._window = tuple(window)
        self._ends = [axis[-1] + n for axis, n in zip(self._starts, self._window)]
        shared = [max((0, *(a + n - b for a, b in pairwise(axis)))) for axis, n in zip(self._starts, self._window)]
        w0, w1, _ = self._window
        _, n1, n2 = self._ends
        self._planes = torch.zeros((channels, shared[0], n1, n2), device=device)
        self._rows = torch.zeros((channels, w0, shared[1], n2), device=device)
        self._columns = torch.zeros((channels, w0, w1, shared[2]), device=device)

    def add(self, index: tuple[int, int, int], sums: Tensor) -> FinishedBlock:
        """Add a window. index: which start per axis. sums: (channels, *window); it is written to.

        Returns the voxels that are complete now.
        """
        i, j, k = index
        s0, s1, s2 = (axis[n] for axis, n in zip(self._starts, index))
        done = [self._next(axis, n) - start for axis, (n, start) in enumerate(zip(index, (s0, s1, s2)))]

        left = self._overlap(2, k)
        sums[..., :left] += self._columns[..., :left]
        rest = self._window[2] - done[2]
        self._columns[..., :rest] = sums[..., done[2] :]
        sums = sums[..., : done[2]]

        columns = slice(s2, s2 + done[2])
        left = self._overlap(1, j)
        sums[:, :, :left] += self._rows[:, :, :left, columns]
        rest = self._window[1] - done[1]
        self._rows[:, :, :rest, columns] = sums[:, :, done[1] :]
        sums = sums[:, :, : done[1]]

        rows = slice(s1, s1 + done[1])
        left = self._overlap(0, i)
        sums[:, :left] += self._planes[:, :left, rows, columns]
        rest = self._window[0] - done[0]
        self._planes[:, :rest, rows, columns] = sums[:, done[0] :]
        return FinishedBlock((s0, s1, s2), sums[:, : done[0]])

    def _next(self, axis: int, n: int) -> int:
        """Where the following window along an axis begins; the axis' end after the last."""
        starts = self._starts[axis]
        return starts[n + 1] if n + 1 < len(starts) else self._ends[axis]

    def _overlap(self, axis: int, n: int) -> int:
        """How many voxels of a window its predecessors have sums for."""
        starts = self._starts[axis]
        return max(0, starts[n - 1] + self._window[axis] - starts[n]) if n else 0
