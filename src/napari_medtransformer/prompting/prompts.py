"""Prompts as a person gives them on a slice of a volume: points, boxes, scribbles, lassos and masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from napari_medtransformer.errors import InvalidPrompt, PointOutsideVolume, in_words
from napari_medtransformer.given import flag, reals, record, whole
from napari_medtransformer.prompting.masks import PackedBlock, PackedMask

MAX_OBJECT_ID = 65535  # labels are uint16
IN_3D = 3
"""In the place of a slice's axis: no slice, the whole volume."""

Zyx = tuple[float, float, float]


@dataclass(frozen=True, order=True)
class SliceKey:
    """One object on one slice: the unit that is predicted. axis: 0, 1 or 2 of (z, y, x); index: voxel along it.

    For models that answer in 3D, the object in the whole volume: axis IN_3D, index 0.
    Raises InvalidPrompt for anything but whole numbers.
    """

    object_id: int
    axis: int
    index: int

    def __post_init__(self) -> None:
        for name, given in vars(self).items():
            if type(given) is not int:  # there are thousands of keys, nearly all of plain numbers
                object.__setattr__(self, name, whole(given, f"a slice's {name}", InvalidPrompt))

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
        object.__setattr__(self, "position_zyx", triple(self.position_zyx, "a point's voxel coordinates (z, y, x)"))

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
        object.__setattr__(self, "start_zyx", triple(self.start_zyx, "the coordinates (z, y, x) of a box's start"))
        object.__setattr__(self, "stop_zyx", triple(self.stop_zyx, "the coordinates (z, y, x) of a box's stop"))
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
        record(self.mask, PackedMask, "a PackedMask of a whole slice, as PackedMask.pack makes one", InvalidPrompt)

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
        record(self.pixels, PackedMask, "a PackedMask of a whole slice, as PackedMask.pack makes one", InvalidPrompt)

    @property
    def key(self) -> SliceKey:
        """The slice the stroke lies on."""
        return SliceKey(self.object_id, self.axis, self.index)


@dataclass(frozen=True)
class LassoPrompt:
    """A closed outline drawn around the object (positive), or around what is not the object.

    vertices_zyx: at least three, in order, all on one slice; the last is joined to the first.
    """

    vertices_zyx: Sequence[Zyx]  # a tuple once it is made
    positive: bool = True
    object_id: int = 1
    axis: int = 0

    def __post_init__(self) -> None:
        _settle(self)
        try:
            vertices = tuple(self.vertices_zyx)
        except TypeError as error:
            raise InvalidPrompt(
                f"a lasso has three or more (z, y, x) vertices, not {in_words(self.vertices_zyx)}."
            ) from error
        if len(vertices) < 3:
            raise InvalidPrompt(f"a lasso has at least three vertices, not {len(vertices)}; draw a longer one.")
        vertices = tuple(triple(vertex, "a lasso's vertices (z, y, x)") for vertex in vertices)
        object.__setattr__(self, "vertices_zyx", vertices)
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


def check_key(key: SliceKey) -> SliceKey:
    """`key`, if it is one. Raises InvalidPrompt."""
    return record(key, SliceKey, "a SliceKey(object_id, axis, index)", InvalidPrompt)


def check_prompt(prompt: Prompt) -> Prompt:
    """`prompt`, if it is one that a person can give. Raises InvalidPrompt."""
    if not isinstance(prompt, Prompt):
        raise InvalidPrompt(
            f"a PointPrompt, BoxPrompt, ScribblePrompt, LassoPrompt or MaskPrompt was expected, not {in_words(prompt)}."
        )
    return prompt


def check_slice(key: SliceKey, shape: tuple[int, int, int]) -> None:
    """Raises PointOutsideVolume for a slice that a volume of `shape` does not have, InvalidPrompt for another axis."""
    if key.axis not in (0, 1, 2):
        raise InvalidPrompt(f"slices lie across axis 0, 1 or 2 of (z, y, x), not {key.axis}.")
    if not 0 <= key.index < shape[key.axis]:
        raise PointOutsideVolume(
            f"slice {key.index} of axis {key.axis} is outside the volume of {shape} voxels (z, y, x); "
            f"slices run from 0 to {shape[key.axis] - 1}."
        )


def triple(position: Zyx, what: str) -> Zyx:
    """Three voxel coordinates as floats, from whatever sequence they come in. Raises InvalidPrompt."""
    z, y, x = reals(position, 3, what, InvalidPrompt)
    return z, y, x


def _settle(prompt: Prompt) -> None:
    """Make a prompt's whole numbers plain ones, of whatever type they came, and check them. Raises InvalidPrompt."""
    given = vars(prompt)
    settled: dict[str, int | bool] = {
        "object_id": whole(given["object_id"], "an object's number", InvalidPrompt, least=1, most=MAX_OBJECT_ID),
        "axis": whole(given["axis"], "the axis across a slice", InvalidPrompt, least=0, most=2),
    }
    if "index" in given:
        settled["index"] = whole(given["index"], "a slice's index", InvalidPrompt)
    if "positive" in given:
        settled["positive"] = flag(given["positive"], "whether a prompt is positive", InvalidPrompt)
    for name, value in settled.items():
        object.__setattr__(prompt, name, value)
