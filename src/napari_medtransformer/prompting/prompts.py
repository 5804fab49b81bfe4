"""Prompts as a person gives them: points, boxes and masks on a slice of a volume."""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_medtransformer.errors import InvalidPrompt
from napari_medtransformer.prompting.masks import PackedMask

MAX_OBJECT_ID = 65535  # labels are uint16


@dataclass(frozen=True, order=True)
class SliceKey:
    """One object on one slice: the unit that is predicted. axis: 0, 1 or 2 of (z, y, x); index: voxel along it."""

    object_id: int
    axis: int
    index: int


@dataclass(frozen=True)
class PointPrompt:
    """A click. position_zyx: voxels, an integer is a voxel's centre. axis: normal of the slice it was made on."""

    position_zyx: tuple[float, float, float]
    positive: bool = True
    object_id: int = 1
    axis: int = 0

    def __post_init__(self) -> None:
        _check_common(self.object_id, self.axis)
        _check_triple(self.position_zyx, "a point")

    @property
    def key(self) -> SliceKey:
        """The slice the click lies on."""
        return SliceKey(self.object_id, self.axis, nearest_voxel(self.position_zyx[self.axis]))

    def on_slice(self) -> tuple[float, float]:
        """(row, column) in the slice."""
        row, column = (p for axis, p in enumerate(self.position_zyx) if axis != self.axis)
        return row, column


@dataclass(frozen=True)
class BoxPrompt:
    """A rectangle on a slice, half-open within it: start_zyx and stop_zyx have the same coordinate along `axis`."""

    start_zyx: tuple[float, float, float]
    stop_zyx: tuple[float, float, float]
    object_id: int = 1
    axis: int = 0

    def __post_init__(self) -> None:
        _check_common(self.object_id, self.axis)
        _check_triple(self.start_zyx, "a box's start")
        _check_triple(self.stop_zyx, "a box's stop")
        if nearest_voxel(self.start_zyx[self.axis]) != nearest_voxel(self.stop_zyx[self.axis]):
            raise InvalidPrompt(
                f"the box from {self.start_zyx} to {self.stop_zyx} spans several slices of axis {self.axis}; "
                "a box lies on one slice: give both corners the same coordinate along that axis"
            )
        y0, x0, y1, x1 = self.on_slice()
        if y1 <= y0 or x1 <= x0:
            raise InvalidPrompt(
                f"the box from {self.start_zyx} to {self.stop_zyx} is empty; "
                "boxes are half-open, so each stop lies beyond its start"
            )

    @property
    def key(self) -> SliceKey:
        """The slice the box lies on."""
        return SliceKey(self.object_id, self.axis, nearest_voxel(self.start_zyx[self.axis]))

    def on_slice(self) -> tuple[float, float, float, float]:
        """(y0, x0, y1, x1) in the slice's rows and columns, half-open."""
        y0, x0 = (p for axis, p in enumerate(self.start_zyx) if axis != self.axis)
        y1, x1 = (p for axis, p in enumerate(self.stop_zyx) if axis != self.axis)
        return y0, x0, y1, x1


@dataclass(frozen=True)
class MaskPrompt:
    """A mask of a whole slice to refine, such as an existing label. index: the slice along `axis`."""

    mask: PackedMask
    index: int
    object_id: int = 1
    axis: int = 0

    def __post_init__(self) -> None:
        _check_common(self.object_id, self.axis)

    @property
    def key(self) -> SliceKey:
        """The slice the mask lies on."""
        return SliceKey(self.object_id, self.axis, self.index)


Prompt = PointPrompt | BoxPrompt | MaskPrompt


def nearest_voxel(coordinate: float) -> int:
    """The voxel whose cell holds the coordinate; halves go up, as cells are half-open."""
    return math.floor(coordinate + 0.5)


def _check_common(object_id: int, axis: int) -> None:
    if not 1 <= object_id <= MAX_OBJECT_ID:
        raise InvalidPrompt(f"an object's number lies in 1..{MAX_OBJECT_ID}, not {object_id}; 0 is the background")
    if axis not in (0, 1, 2):
        raise InvalidPrompt(f"a slice's axis is 0, 1 or 2 of (z, y, x), not {axis}")


def _check_triple(position: tuple[float, float, float], what: str) -> None:
    if len(position) != 3 or not all(math.isfinite(p) for p in position):
        raise InvalidPrompt(f"{what} has three finite voxel coordinates (z, y, x), not {position}")
