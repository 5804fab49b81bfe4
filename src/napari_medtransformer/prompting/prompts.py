"""Prompts as a person gives them on a slice of a volume: points, boxes, scribbles, lassos and masks."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace

from napari_medtransformer.errors import InvalidPrompt, in_words
from napari_medtransformer.prompting.masks import PackedBlock, PackedMask

MAX_OBJECT_ID = 65535  # labels are uint16
IN_3D = 3
"""In the place of a slice's axis: no slice, the whole volume."""

Zyx = tuple[float, float, float]


@dataclass(frozen=True, order=True)
class SliceKey:
    """One object on one slice: the unit that is predicted. axis: 0, 1 or 2 of (z, y, x); index: voxel along it.

    For models that answer in 3D, the object in the whole volume: axis IN_3D, index 0.
    """

    object_id: int
    axis: int
    index: int

    @property
    def in_3d(self) -> bool:
        """Whether it is the object in the whole volume."""
        return self.axis == IN_3D


@dataclass(frozen=True)
class PointPrompt:
    """A click. position_zyx: voxels, an integer is a voxel's centre. axis: normal of the slice it was made on."""

    position_zyx: tuple[float, float, float]
    positive: bool = True
    object_id: int = 1
    axis: int = 0

    def __post_init__(self) -> None:
        _settle(self)
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
        _settle(self)
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
        _settle(self)

    @property
    def key(self) -> SliceKey:
        """The slice the mask lies on."""
        return SliceKey(self.object_id, self.axis, self.index)


@dataclass(frozen=True)
class BlockPrompt:
    """A mask in 3D to refine: what an object was before the first prompt in 3D. Nobody draws it."""

    mask: PackedBlock
    object_id: int = 1

    @property
    def key(self) -> SliceKey:
        """The object in the whole volume."""
        return SliceKey(self.object_id, IN_3D, 0)


@dataclass(frozen=True)
class ScribblePrompt:
    """A painted stroke, as its pixels on a whole slice. positive: on the object, or on what is not the object."""

    pixels: PackedMask
    index: int
    positive: bool = True
    object_id: int = 1
    axis: int = 0

    def __post_init__(self) -> None:
        _settle(self)

    @property
    def key(self) -> SliceKey:
        """The slice the stroke lies on."""
        return SliceKey(self.object_id, self.axis, self.index)


@dataclass(frozen=True)
class LassoPrompt:
    """A closed outline drawn around the object (positive), or around what is not the object.

    vertices_zyx: at least three, in order, all on one slice; the last is joined to the first.
    """

    vertices_zyx: tuple[Zyx, ...]
    positive: bool = True
    object_id: int = 1
    axis: int = 0

    def __post_init__(self) -> None:
        _settle(self)
        if len(self.vertices_zyx) < 3:
            raise InvalidPrompt(f"a lasso has at least three vertices, not {len(self.vertices_zyx)}; draw a longer one")
        for vertex in self.vertices_zyx:
            _check_triple(vertex, "a lasso's vertex")
        if len({nearest_voxel(vertex[self.axis]) for vertex in self.vertices_zyx}) > 1:
            raise InvalidPrompt(f"the lasso spans several slices of axis {self.axis}; draw it on one slice")

    @property
    def key(self) -> SliceKey:
        """The slice the outline lies on."""
        return SliceKey(self.object_id, self.axis, nearest_voxel(self.vertices_zyx[0][self.axis]))

    def on_slice(self) -> list[tuple[float, float]]:
        """(row, column) of each vertex in the slice."""
        pairs = [[p for axis, p in enumerate(vertex) if axis != self.axis] for vertex in self.vertices_zyx]
        return [(row, column) for row, column in pairs]


Prompt = PointPrompt | BoxPrompt | ScribblePrompt | LassoPrompt | MaskPrompt
Given = Prompt | BlockPrompt
"""What a prediction is made from."""


def moved(prompt: Prompt, by_zyx: Zyx) -> Prompt:
    """A prompt shifted by voxels; strokes and masks by whole ones, and what leaves the slice is cut off."""

    def shifted(position: Zyx) -> Zyx:
        z, y, x = (p + by for p, by in zip(position, by_zyx))
        return z, y, x

    if isinstance(prompt, PointPrompt):
        return replace(prompt, position_zyx=shifted(prompt.position_zyx))
    if isinstance(prompt, BoxPrompt):
        return replace(prompt, start_zyx=shifted(prompt.start_zyx), stop_zyx=shifted(prompt.stop_zyx))
    if isinstance(prompt, LassoPrompt):
        return replace(prompt, vertices_zyx=tuple(shifted(vertex) for vertex in prompt.vertices_zyx))
    rows, columns = (nearest_voxel(by) for axis, by in enumerate(by_zyx) if axis != prompt.axis)
    index = prompt.index + nearest_voxel(by_zyx[prompt.axis])
    if isinstance(prompt, ScribblePrompt):
        return replace(prompt, pixels=prompt.pixels.shifted(rows, columns), index=index)
    return replace(prompt, mask=prompt.mask.shifted(rows, columns), index=index)


def nearest_voxel(coordinate: float) -> int:
    """The voxel whose cell holds the coordinate; halves go up, as cells are half-open."""
    return math.floor(coordinate + 0.5)


def _settle(prompt: Prompt) -> None:
    """Make a prompt's whole numbers plain ones, of whatever type they came, and check them. Raises InvalidPrompt."""
    numbers = {name: value for name, value in vars(prompt).items() if name in ("object_id", "axis", "index")}
    for name, value in numbers.items():
        try:
            object.__setattr__(prompt, name, operator.index(value))
        except TypeError as error:
            raise InvalidPrompt(f"an object, an axis and a slice are whole numbers, not {in_words(value)}") from error
    if not 1 <= prompt.object_id <= MAX_OBJECT_ID:
        raise InvalidPrompt(
            f"an object's number lies in 1..{MAX_OBJECT_ID}, not {prompt.object_id}; 0 is the background"
        )
    if numbers["axis"] not in (0, 1, 2):
        raise InvalidPrompt(f"a slice's axis is 0, 1 or 2 of (z, y, x), not {numbers['axis']}")


def _check_triple(position: tuple[float, float, float], what: str) -> None:
    if len(position) != 3 or not all(math.isfinite(p) for p in position):
        raise InvalidPrompt(f"{what} has three finite voxel coordinates (z, y, x), not {position}")
