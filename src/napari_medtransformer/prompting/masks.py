"""Masks kept small: packed to bits and deflated, so that unlimited undo costs kilobytes per step."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_LEVEL = 1  # of zlib: organ masks shrink about 50-fold already; higher levels cost milliseconds and win little
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

    def unpack(self) -> np.ndarray:
        """The (H, W) bool mask, a new array."""
        bits = np.frombuffer(zlib.decompress(self.deflated), np.uint8)
        return np.unpackbits(bits, count=self.shape[0] * self.shape[1]).reshape(self.shape).astype(bool)


@lru_cache(maxsize=_UNPACKED)
def unpacked(mask: PackedMask) -> np.ndarray:
    """The (H, W) bool mask, read-only, kept ready for the next call."""
    array = mask.unpack()
    array.flags.writeable = False
    return array
