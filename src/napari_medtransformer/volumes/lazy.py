"""Arrays that stay in their files: what is indexed is read, and nothing of it is kept mapped.

Small files are read or mapped whole. From LAZY_BYTES on a volume's data is a LazyArray, which has shape, dtype, ndim
and indexing as a NumPy array does and always answers with a NumPy array. A memory map would do for axial slices, but
one sagittal slice crosses every page of a file, and then the whole file is resident.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, Protocol, cast

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from napari_medtransformer.errors import UnsupportedVolume
from napari_medtransformer.volumes.guard import physical_memory, size

LAZY_BYTES = 1 << 28
"""Voxels of fewer bytes are read or mapped as a whole: everything is then as fast as an array in memory."""

Selection = tuple[slice, ...]
"""One slice per axis of a source: bounds given, within the axis, step at least 1, never empty."""


class Source(Protocol):
    """Where values are. Reading must be safe in any thread and leave nothing open."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    @property
    def blocks(self) -> tuple[int, ...]:
        """The extent along every axis of what is cheap to read at once, such as a chunk or a plane."""

    def read(self, selection: Selection) -> np.ndarray:
        """The selected values, all axes kept, in native byte order; an array of the caller's own."""


@dataclass(frozen=True)
class _Axis:
    """One axis of a LazyArray: an axis of the source, and whether it runs the other way."""

    source: int
    flipped: bool = False


class LazyArray(NDArrayOperatorsMixin):
    """A view of a source: its axes permuted and flipped, some of them fixed at an index.

    Indexing with integers, slices, ... and, along one axis, a list of integers reads just that and returns a NumPy
    array. `transpose`, `flipped` and `fixed` return another view and read nothing. Arithmetic and np.asarray take the
    whole array into memory; they raise UnsupportedVolume if it is larger than the machine's.
    """

    def __init__(
        self, source: Source, axes: Sequence[_Axis] | None = None, fixed: dict[int, int] | None = None
    ) -> None:
        self._source = source
        self._axes = tuple(_Axis(axis) for axis in range(len(source.shape))) if axes is None else tuple(axes)
        self._fixed = fixed or {}

    @property
    def source(self) -> Source:
        """Where the values come from."""
        return self._source

    @property
    def shape(self) -> tuple[int, ...]:
        """Values along each axis."""
        return tuple(self._source.shape[axis.source] for axis in self._axes)

    @property
    def dtype(self) -> np.dtype:
        """The type that indexing gives, in native byte order."""
        return self._source.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._axes)

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """What the array would take in memory."""
        return self.size * self.dtype.itemsize

    def with_source(self, source: Source) -> LazyArray:
        """The same view of another source of the same shape."""
        if source.shape != self._source.shape:
            raise ValueError(f"a source of shape {source.shape} cannot stand for one of shape {self._source.shape}")
        return LazyArray(source, self._axes, self._fixed)

    def transpose(self, *axes: int) -> LazyArray:
        """The axes in another order."""
        if sorted(axes) != list(range(self.ndim)):
            raise ValueError(f"axes {axes} are no permutation of {self.ndim} axes")
        return LazyArray(self._source, [self._axes[axis] for axis in axes], self._fixed)

    def flipped(self, flips: Sequence[bool]) -> LazyArray:
        """Axes for which `flips` is true run the other way; those beyond its length stay."""
        axes = [
            _Axis(axis.source, axis.flipped != flip)
            for axis, flip in zip(self._axes, [*flips, *[False] * (self.ndim - len(flips))])
        ]
        return LazyArray(self._source, axes, self._fixed)

    def fixed(self, axis: int, index: int) -> LazyArray:
        """Without `axis`, at one index of it."""
        chosen = self._axes[axis]
        count = self._source.shape[chosen.source]
        place = range(count)[index]
        kept = [one for one in self._axes if one is not chosen]
        return LazyArray(
            self._source, kept, self._fixed | {chosen.source: count - 1 - place if chosen.flipped else place}
        )

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"LazyArray(shape={self.shape}, dtype={self.dtype}, source={type(self._source).__name__})"

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read. Raises IndexError as NumPy does."""
        if index is None or (isinstance(index, tuple) and any(part is None for part in index)):
            return np.asarray(self)[index]
        selection: list[slice] = [slice(0, 0)] * len(self._source.shape)
        for number, place in self._fixed.items():
            selection[number] = slice(place, place + 1, 1)
        after: list[Any] = []
        empty = False
        for axis, wanted in zip(self._axes, _per_axis(index, self.shape)):
            selection[axis.source], turn = _selected(wanted, self._source.shape[axis.source], axis.flipped)
            empty = empty or selection[axis.source].start >= selection[axis.source].stop
            after.append(turn)
        if empty:
            return np.broadcast_to(np.zeros((), self.dtype), self.shape)[index].copy()
        values = self._source.read(tuple(selection))
        values = values.reshape([n for axis, n in enumerate(values.shape) if axis not in self._fixed])
        order = np.argsort(np.argsort([axis.source for axis in self._axes]))
        return values.transpose(*order)[tuple(after)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a LazyArray cannot be had without reading it; index what is needed")
        self._check_memory()
        values = self[(slice(None),) * self.ndim]
        return values if dtype is None else values.astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if "out" in options:
            return NotImplemented
        read = (np.asarray(one) if isinstance(one, LazyArray) else one for one in inputs)
        return getattr(ufunc, method)(*read, **options)

    def astype(self, dtype: Any, copy: bool = True) -> np.ndarray:
        """The whole array in memory in another type; always a copy."""
        return np.asarray(self).astype(dtype, copy=False)

    def take(self, indices: Any, axis: int | None = None, out: None = None, mode: str = "raise") -> np.ndarray:
        """What np.take(array, indices, axis) asks for, of which only that is read."""
        if axis is None or out is not None or mode != "raise":
            return cast(Any, np.asarray(self)).take(indices, axis, out, mode)
        return self[(slice(None),) * (axis % self.ndim) + (indices,)]

    def min(self, axis: Any = None, **options: Any) -> Any:
        """The lowest value, block by block; with other arguments as NumPy's, of the whole array in memory."""
        if axis is not None or any(one is not None for one in options.values()):
            return np.asarray(self).min(axis, **options)
        return min(block.min() for block in self.in_blocks())

    def max(self, axis: Any = None, **options: Any) -> Any:
        """The highest value, block by block; with other arguments as NumPy's, of the whole array in memory."""
        if axis is not None or any(one is not None for one in options.values()):
            return np.asarray(self).max(axis, **options)
        return max(block.max() for block in self.in_blocks())

    def in_blocks(self) -> Iterator[np.ndarray]:
        """All values, one slab of the source's blocks at a time along the axis that is slowest to step along."""
        slowest = min(range(self.ndim), key=lambda axis: self._axes[axis].source)
        step = max(1, self._source.blocks[self._axes[slowest].source])
        before = (slice(None),) * slowest
        for start in range(0, self.shape[slowest], step):
            yield self[(*before, slice(start, start + step))]

    def sample(self, most: int) -> np.ndarray:
        """About `most` values, from blocks that are spread evenly; flat. Few blocks are read, whatever the size."""
        shape = self.shape
        blocks = [min(n, self._source.blocks[axis.source]) for n, axis in zip(shape, self._axes)]
        grid = [math.ceil(n / block) for n, block in zip(shape, blocks)]
        wanted = min(max(_SAMPLED_VALUES // math.prod(blocks), _LEAST_BLOCKS), _MOST_BLOCKS, math.prod(grid))
        # Half a stride off either end, so that the blocks are not all at the edge, where there is air.
        places = ((np.arange(wanted) + 0.5) * math.prod(grid) / wanted).astype(np.int64)
        per_block = max(1, most // wanted)
        thinned: list[np.ndarray] = []
        for block in zip(*np.unravel_index(places, grid)):
            step = max(1, math.ceil((math.prod(blocks) / per_block) ** (1 / self.ndim)))
            index = tuple(slice(int(at) * n, (int(at) + 1) * n, step) for at, n in zip(block, blocks))
            thinned.append(self[index].ravel())
        return np.concatenate(thinned)

    def _check_memory(self) -> None:
        if self.nbytes > physical_memory():
            raise UnsupportedVolume(
                f"the volume of {' × '.join(map(str, self.shape))} voxels needs {size(self.nbytes)} of memory as a "
                f"whole, the machine has {size(physical_memory())}. Crop it, or resample it to larger voxels."
            )


_SAMPLED_VALUES = 1 << 25  # decoded at most for a sample, unless a few blocks are more
_LEAST_BLOCKS, _MOST_BLOCKS = 4, 48


class Stacked:
    """Arrays of one shape and type as one source with a first axis for which of them."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self._arrays = tuple(arrays)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._arrays), *self._arrays[0].shape)

    @property
    def dtype(self) -> np.dtype:
        return self._arrays[0].dtype

    @property
    def blocks(self) -> tuple[int, ...]:
        return (1, *self._arrays[0].shape)

    def read(self, selection: Selection) -> np.ndarray:
        first, *rest = selection
        return np.stack([np.asarray(one[tuple(rest)]) for one in self._arrays[first]])


class Finite:
    """A source without NaN and infinities: they become `low` (NaN, -inf) or `high` (inf) as they are read."""

    def __init__(self, source: Source, low: float, high: float) -> None:
        self._source, self._low, self._high = source, low, high
        self.shape, self.dtype, self.blocks = source.shape, source.dtype, source.blocks

    def read(self, selection: Selection) -> np.ndarray:
        values = self._source.read(selection)
        if np.isfinite(values).all():
            return values
        return np.nan_to_num(values, copy=False, nan=self._low, neginf=self._low, posinf=self._high)


def as_array(lazy: LazyArray) -> np.ndarray:
    """A LazyArray where the type says array: the two answer the same questions."""
    return cast(np.ndarray, lazy)


def lazy_of(array: Any) -> LazyArray | None:
    """The array if it is read when it is indexed, else None."""
    return array if isinstance(array, LazyArray) else None


def frame_of(array: np.ndarray, frame: int) -> np.ndarray:
    """One index of an array's last axis; nothing is read or copied."""
    lazy = lazy_of(array)
    return array[..., frame] if lazy is None else as_array(lazy.fixed(lazy.ndim - 1, frame))


def _per_axis(index: Any, shape: tuple[int, ...]) -> list[int | slice | np.ndarray]:
    """An index as one integer, slice or list per axis. Raises IndexError."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(part is Ellipsis for part in parts):
        place = next(i for i, part in enumerate(parts) if isinstance(part, EllipsisType))
        parts[place : place + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    if len(parts) > len(shape):
        raise IndexError(f"{len(parts)} indices were given for an array of {len(shape)} dimensions")
    parts += [slice(None)] * (len(shape) - len(parts))
    found: list[int | slice | np.ndarray] = []
    for part, count in zip(parts, shape):
        if isinstance(part, slice):
            found.append(part)
        elif np.ndim(part) == 1 and np.asarray(part).dtype.kind in "iu" and np.size(part):
            found.append(np.array([_checked(int(one), count) for one in part]))
        else:
            try:
                found.append(_checked(operator.index(part), count))
            except TypeError as error:
                raise IndexError(f"a LazyArray is indexed by integers and slices, not by {part!r}") from error
    if sum(isinstance(one, np.ndarray) for one in found) > 1:
        raise IndexError("a LazyArray takes a list of indices along one axis only")
    return found


def _checked(index: int, count: int) -> int:
    if not -count <= index < count:
        raise IndexError(f"index {index} is out of bounds for an axis of {count}")
    return index % count


def _selected(wanted: int | slice | np.ndarray, count: int, flipped: bool) -> tuple[slice, Any]:
    """What to read along an axis of the source, and the index that makes of it what was wanted."""
    if isinstance(wanted, slice):
        places = range(count)[wanted]
        if not places:
            return slice(0, 0, 1), slice(None)
        if flipped:
            places = range(count - 1 - places.start, count - 1 - places.stop, -places.step)
        backward = places.step < 0
        forward = places[::-1] if backward else places
        return slice(forward.start, forward[-1] + 1, forward.step), slice(None, None, -1 if backward else None)
    if isinstance(wanted, np.ndarray):
        at = count - 1 - wanted if flipped else wanted
        low = int(at.min())
        return slice(low, int(at.max()) + 1, 1), at - low
    place = count - 1 - wanted if flipped else wanted
    return slice(place, place + 1, 1), 0
