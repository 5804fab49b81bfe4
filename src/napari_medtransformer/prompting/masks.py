"""Masks kept small: packed to bits and deflated, so that unlimited undo costs kilobytes per step."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_LEVEL = 1  # of zlib: organ masks shrink about 50-fold already; higher levels cost milliseconds and win little
_RECORD_BYTES = 160  # of the objects around the deflated bits
_UNPACKED = 256  # masks kept ready, 0.25 MB each at 512 × 512


@dataclass(frozen=True)
class PackedMask:
    """A boolean mask of one slice. Two equal masks have equal bytes."""

    shape: tuple[int, int]
    deflated: bytes

    @classmethod
    def pack(cls, mask: np.ndarray) -> PackedMask:
        """Pack a (H, W) bool mask."""
        rows, columns = mask.shape
        return cls((rows, columns), zlib.compress(np.packbits(mask.astype(bool, copy=False)).tobytes(), _LEVEL))

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        return len(self.deflated) + _RECORD_BYTES

    def unpack(self) -> np.ndarray:
        """The (H, W) bool mask, a new array."""
        bits = np.frombuffer(zlib.decompress(self.deflated), np.uint8)
        return np.unpackbits(bits, count=self.shape[0] * self.shape[1]).reshape(self.shape).astype(bool)

    def shifted(self, rows: int, columns: int) -> PackedMask:
        """The mask moved by whole pixels; what leaves the slice is cut off."""
        mask = unpacked(self)
        target = np.zeros_like(mask)
        (to_y, from_y), (to_x, from_x) = (_overlap(n, by) for n, by in zip(self.shape, (rows, columns)))
        target[to_y, to_x] = mask[from_y, from_x]
        return PackedMask.pack(target)


@dataclass(frozen=True)
class PackedBlock:
    """A boolean mask in 3D: its slices across z from `start` on, each a whole slice of the volume. At least one."""

    start: int
    slices: tuple[PackedMask, ...]

    @classmethod
    def pack(
        cls, mask_zyx: np.ndarray, start_zyx: tuple[int, int, int], shape_zyx: tuple[int, int, int]
    ) -> PackedBlock:
        """Pack a (z, y, x) bool mask of the part of a volume of `shape_zyx` that begins at `start_zyx`."""
        z, y, x = start_zyx
        _, rows, columns = mask_zyx.shape
        packed = []
        for plane in mask_zyx:
            whole = np.zeros(shape_zyx[1:], bool)
            whole[y : y + rows, x : x + columns] = plane
            packed.append(PackedMask.pack(whole))
        return cls(z, tuple(packed))

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        return sum(mask.nbytes for mask in self.slices)

    def unpack(self) -> np.ndarray:
        """The (z, y, x) bool mask of its slices, a new array."""
        return np.stack([mask.unpack() for mask in self.slices])


Packed = PackedMask | PackedBlock


def _overlap(length: int, by: int) -> tuple[slice, slice]:
    """Where what is moved by `by` arrives, and where it came from, on an axis of that length."""
    to = slice(min(max(0, by), length), max(0, min(length, length + by)))
    return to, slice(to.start - by, to.stop - by) if to.stop > to.start else slice(0, 0)


@lru_cache(maxsize=_UNPACKED)
def unpacked(mask: PackedMask) -> np.ndarray:
    """The (H, W) bool mask, read-only, kept ready for the next call."""
    array = mask.unpack()
    array.flags.writeable = False
    return array
