"""Points and boxes as typed on the command line, and where they lie in a volume.

Typed coordinates are voxel indices in the file's own order (i, j, k), as nibabel and ITK-SNAP count them from 0, or
patient RAS millimetres with --mm. An integer is a voxel's centre; boxes are half-open, [start, stop).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from napari_medtransformer.errors import InvalidPrompt, PointOutsideVolume
from napari_medtransformer.volumes import Volume

AXES = {"0": 0, "1": 1, "2": 2, "axial": 0, "coronal": 1, "sagittal": 2}


@dataclass(frozen=True)
class TypedPoint:
    """A point as typed. position: (i, j, k) voxels or RAS mm. positive: inside the object."""

    position: tuple[float, float, float]
    positive: bool = True


@dataclass(frozen=True)
class TypedBox:
    """Two opposite corners as typed: voxels, half-open, or RAS mm."""

    start: tuple[float, float, float]
    stop: tuple[float, float, float]


def parse_point(text: str, option: str = "--point") -> TypedPoint:
    """'I,J,K', or 'I,J,K,1' inside and 'I,J,K,0' outside. Raises InvalidPrompt."""
    numbers = _numbers(text)
    if numbers is None or len(numbers) not in (3, 4):
        raise InvalidPrompt(
            f"{option} {text!r} is no point; write I,J,K, or I,J,K,1 for inside and I,J,K,0 for outside, as in 61,50,40"
        )
    if len(numbers) == 4 and numbers[3] not in (0, 1):
        raise InvalidPrompt(f"{option} {text!r} ends with {numbers[3]:g}; write 1 for inside and 0 for outside")
    return TypedPoint((numbers[0], numbers[1], numbers[2]), positive=len(numbers) == 3 or numbers[3] == 1)


def parse_query(text: str) -> TypedPoint:
    """'I,J,K'. Raises InvalidPrompt."""
    numbers = _numbers(text)
    if numbers is None or len(numbers) != 3:
        raise InvalidPrompt(f"--query {text!r} is no voxel; write I,J,K, as in 61,50,40")
    return TypedPoint((numbers[0], numbers[1], numbers[2]))


def parse_box(text: str) -> TypedBox:
    """'I0,J0,K0,I1,J1,K1'. Raises InvalidPrompt."""
    numbers = _numbers(text)
    if numbers is None or len(numbers) != 6:
        raise InvalidPrompt(
            f"--box {text!r} is no box; write I0,J0,K0,I1,J1,K1, as in 30,40,50,60,80,50 for one on slice 50"
        )
    return TypedBox((numbers[0], numbers[1], numbers[2]), (numbers[3], numbers[4], numbers[5]))


def parse_axis(text: str, option: str = "--axis", besides: str = "") -> int:
    """The axis of (z, y, x) that 'axial', 'coronal', 'sagittal' or its number names. Raises InvalidPrompt."""
    if text.lower() not in AXES:
        raise InvalidPrompt(f"{option} {text!r} is no axis; write 0 (axial), 1 (coronal), 2 (sagittal){besides}")
    return AXES[text.lower()]


def point_zyx(point: TypedPoint, volume: Volume, *, mm: bool) -> tuple[float, float, float]:
    """Where a typed point lies, in the volume's (z, y, x) voxels. Raises PointOutsideVolume."""
    zyx = np.asarray(
        volume.zyx_from_mm(point.position) if mm else volume.grid.zyx_from_file_index(np.asarray(point.position))
    )
    if not volume.contains(zyx):
        raise PointOutsideVolume(f"the point {_as_typed(point.position, mm)} lies outside {_extent(volume, mm)}")
    z, y, x = (float(c) for c in zyx)
    return z, y, x


def box_zyx(
    box: TypedBox, volume: Volume, axis: int, *, mm: bool
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Where a typed box lies: (start, stop) in (z, y, x) voxels, half-open, both on one slice along `axis`.

    Along `axis` the corners name one slice: the same index twice, or an index and the next. Raises InvalidPrompt for
    an empty box or one over several slices and PointOutsideVolume for one that leaves the volume.
    """
    corners = np.array([box.start, box.stop], dtype=float)
    if mm:
        edges = volume.zyx_from_mm(corners)
    else:
        file_axis = volume.grid.order.permutation[axis]
        if corners[0, file_axis] == corners[1, file_axis]:
            corners[1, file_axis] += 1
        # Half-open voxels [a, b) fill the room from a - ½ to b - ½: edges keep their meaning where an axis is flipped.
        edges = volume.grid.zyx_from_file_index(corners - 0.5)
    # A box drawn along the faces of voxels must not lose or gain one to the last digit of a float.
    low, high = np.sort(edges.round(6), axis=0)
    first, last = math.floor(low[axis] + 0.5), math.ceil(high[axis] + 0.5) - 1
    if last > first:
        raise InvalidPrompt(
            f"the box {_as_typed(box.start, mm)} to {_as_typed(box.stop, mm)} spans several slices of axis {axis} "
            f"({('axial', 'coronal', 'sagittal')[axis]}); give both corners the same coordinate along it"
        )
    if any(low[other] == high[other] for other in range(3) if other != axis):
        raise InvalidPrompt(
            f"the box {_as_typed(box.start, mm)} to {_as_typed(box.stop, mm)} is empty; boxes are half-open, so each "
            f"stop lies beyond its start"
        )
    start, stop = low + 0.5, high + 0.5
    start[axis] = stop[axis] = first
    upper = np.asarray(volume.shape, dtype=float)
    if np.any(start < 0) or np.any(stop > upper) or first >= upper[axis]:
        raise PointOutsideVolume(
            f"the box {_as_typed(box.start, mm)} to {_as_typed(box.stop, mm)} leaves {_extent(volume, mm)}"
        )
    z0, y0, x0 = (float(c) for c in start)
    z1, y1, x1 = (float(c) for c in stop)
    return (z0, y0, x0), (z1, y1, x1)


def as_file_index(zyx: tuple[float, float, float], volume: Volume) -> list[float]:
    """(z, y, x) voxels as the file's own (i, j, k)."""
    return [float(c) for c in volume.grid.file_index(np.asarray(zyx, dtype=float))]


def _numbers(text: str) -> list[float] | None:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return None
    return numbers if all(math.isfinite(n) for n in numbers) else None


def _as_typed(position: tuple[float, float, float], mm: bool) -> str:
    return f"({', '.join(f'{c:g}' for c in position)})" + (" mm" if mm else "")


def _extent(volume: Volume, mm: bool) -> str:
    """The volume's extent in the words the user typed in."""
    name = volume.grid.path.name or volume.grid.path.resolve().name  # "." has none
    if not mm:
        i, j, k = volume.grid.shape
        return f"{name}: its voxels run from 0,0,0 to {i - 1},{j - 1},{k - 1}"
    corners = [[z, y, x] for z in (0, volume.shape[0]) for y in (0, volume.shape[1]) for x in (0, volume.shape[2])]
    positions = volume.mm_from_zyx(np.array(corners) - 0.5)
    low, high = positions.min(axis=0), positions.max(axis=0)
    return f"{name}: it reaches from {_as_typed(tuple(low.round(1)), False)} to {_as_typed(tuple(high.round(1)), True)}"
