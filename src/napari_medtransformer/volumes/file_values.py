"""Bare values in a file: mapped while they are few, read as they are looked at when they are many."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import cast

import numpy as np

from napari_medtransformer.errors import UnreadableFile
from napari_medtransformer.volumes.guard import one_line
from napari_medtransformer.volumes.kept import Kept
from napari_medtransformer.volumes.lazy import LAZY_BYTES, LazyArray, Selection, as_array

# Read at once at most: enough for the speed of the disk, and it stays in the processor's cache.
_BLOCK_BYTES = 2 << 20
# Neighbouring columns read together: the next slices across the axis that is fastest in the file.
_COLUMNS = 16
# Reading this much too much is quicker than asking the system once more.
_GAP_BYTES = 64 << 10


def values_in_file(
    file: Path, dtype: np.dtype, offset: int, shape: tuple[int, ...], *, first_fastest: bool
) -> np.ndarray:
    """The values as an array of `shape`: a read-only map, or from LAZY_BYTES on a LazyArray in native byte order.

    offset: bytes before the first value. first_fastest: Fortran's order, as in NIfTI; else C's, as in NumPy's files.
    The file must be as long as the values need; that is the caller's to check.
    """
    if math.prod(shape) * dtype.itemsize < LAZY_BYTES:
        return np.memmap(file, dtype, "r", offset, shape, order="F" if first_fastest else "C")
    if not first_fastest:
        return as_array(LazyArray(_kept(FileValues(file, dtype, offset, shape))))
    lazy = LazyArray(_kept(FileValues(file, dtype, offset, shape[::-1])))
    return as_array(lazy.transpose(*reversed(range(len(shape)))))


def scaled_as_read(lazy: LazyArray, slope: float, intercept: float, dtype: np.dtype) -> np.ndarray:
    """A LazyArray of `values_in_file` whose values come times slope plus intercept, in `dtype`."""
    values = cast(FileValues, cast(Kept, lazy.source).source)
    return as_array(lazy.with_source(_kept(replace(values, scale=(slope, intercept, dtype)))))


def _kept(values: FileValues) -> Kept:
    return Kept(values, (*(1 for _ in values.shape[:-1]), _COLUMNS))


@dataclass(frozen=True, eq=False)
class FileValues:
    """A source of values that lie in a file one after the other, the last axis fastest.

    stored: their type in the file, of any byte order. scale: slope and intercept, and the type of the result;
    None leaves values as they are.
    """

    file: Path
    stored: np.dtype
    offset: int
    shape: tuple[int, ...]
    scale: tuple[float, float, np.dtype] | None = None

    @property
    def dtype(self) -> np.dtype:
        """The type that `read` gives."""
        return self.stored.newbyteorder("=") if self.scale is None else self.scale[2]

    @property
    def blocks(self) -> tuple[int, ...]:
        """One plane."""
        return (*(1 for _ in self.shape[:-2]), *self.shape[-2:])

    def read(self, selection: Selection) -> np.ndarray:
        """Raises UnreadableFile if the file is gone or shorter than it was."""
        counts = [len(range(one.start, one.stop, one.step)) for one in selection]
        values = np.empty(counts, self.stored)
        try:
            with self.file.open("rb", buffering=0) as stream:
                self._fill(values, stream, selection, self.offset)
        except OSError as error:
            raise UnreadableFile(
                f"{self.file.name} cannot be read any more: {one_line(error)}. Open it again."
            ) from error
        if self.scale is None:
            return values.astype(self.dtype, copy=False)
        slope, intercept, dtype = self.scale
        return (values.astype(np.float64) * slope + intercept).astype(dtype)

    def _fill(self, values: np.ndarray, stream: FileIO, selection: Selection, start: int) -> None:
        """Read the selected values of the last axes, `values.ndim` of them, whose first one lies at byte `start`."""
        strides = self._strides[len(self.shape) - len(selection) :]
        wanted, inner = selection[0], selection[1:]
        inner_span = self.stored.itemsize + sum(
            (one.stop - 1 - one.start) * stride for one, stride in zip(inner, strides[1:])
        )
        stride = wanted.step * strides[0]
        first = start + wanted.start * strides[0]
        far_apart = len(values) > 1 and stride - inner_span > _GAP_BYTES
        one_by_one = far_apart or inner_span > _BLOCK_BYTES
        at_once = 1 if one_by_one else 1 + (_BLOCK_BYTES - inner_span) // stride
        if one_by_one and inner:
            for place in range(len(values)):
                self._fill(values[place], stream, inner, first + place * stride)
            return
        inner_start = sum(one.start * step for one, step in zip(inner, strides[1:]))
        steps = (stride, *(one.step * step for one, step in zip(inner, strides[1:])))
        for place in range(0, len(values), at_once):
            part = values[place : place + at_once]
            block = self._bytes(stream, first + place * stride + inner_start, (len(part) - 1) * stride + inner_span)
            part[...] = np.ndarray(part.shape, self.stored, block, strides=steps)

    @property
    def _strides(self) -> tuple[int, ...]:
        """Bytes between neighbours along each axis."""
        return tuple(math.prod(self.shape[axis + 1 :]) * self.stored.itemsize for axis in range(len(self.shape)))

    def _bytes(self, stream: FileIO, start: int, count: int) -> bytearray:
        block = bytearray(count)
        view = memoryview(block)
        stream.seek(start)
        done = 0
        while done < count:
            got = stream.readinto(view[done:])
            if not got:
                raise UnreadableFile(f"{self.file.name} is shorter than when it was opened. Open it again.")
            done += got
        return block
