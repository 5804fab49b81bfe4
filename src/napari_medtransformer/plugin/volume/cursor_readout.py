"""What lies under the cursor in words: voxel, index in the file, patient millimetres, value, and the labels there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap

from napari_medtransformer.plugin.layer_volume import SlicePoint, layer_shape, slice_point
from napari_medtransformer.plugin.layers import FRAME_KEY, VOLUME_KEY
from napari_medtransformer.plugin.widgets.layer_choice import HEATMAP_KEY
from napari_medtransformer.volumes import Volume

_DIRECTIONS = (("R", "L"), ("A", "P"), ("S", "I"))
"""The patient's directions along RAS millimetres above and below zero."""

VolumeOf = Callable[[Layer], "Volume | None"]


@dataclass(frozen=True)
class Cursor:
    """Where the mouse is. world: one coordinate per viewer dimension (ndim). displayed: the two on screen."""

    world: Sequence[float]
    displayed: Sequence[int]
    ndim: int


def volume_on(layer: Layer) -> Volume | None:
    """The volume whose grid a layer lies on, by what our readers attach; of (frame, z, y, x), that of every frame."""
    for key, shape in ((VOLUME_KEY, layer_shape(layer)), (FRAME_KEY, layer_shape(layer)[1:])):
        volume = layer.metadata.get(key)
        if isinstance(volume, Volume) and shape == volume.shape:
            return volume
    return None


def is_image_of(layer: Layer, volume: Volume) -> bool:
    """Whether a layer shows a volume's own values, rather than a heatmap or labels on its grid."""
    return isinstance(layer, Image) and not layer.rgb and _is_the_volume(layer, volume)


def readout_of_layers(
    layers: Iterable[Layer], active: Layer | None, cursor: Cursor, volume_of: VolumeOf = volume_on
) -> tuple[Layer, str] | None:
    """The topmost visible volume under the cursor and what it and the labels there say; None where there is none.

    layers: from the lowest to the topmost. active: the selected one; if it is a heatmap, its value is told too.
    """
    here: list[tuple[Layer, Volume, SlicePoint]] = []
    for layer in layers:
        volume = volume_of(layer) if layer.visible else None
        point = None if volume is None else _point(layer, cursor)
        if volume is not None and point is not None:
            here.append((layer, volume, point))
    images = [one for one in here if is_image_of(one[0], one[1])]
    labelled = [one for one in here if isinstance(one[0], Labels)]
    shown = (images or labelled or here)[-1:]
    if not shown:
        return None
    layer, volume, point = shown[0]
    parts = [*_place(volume, point)]
    if images:
        parts.append(_intensity(_value_at(layer, point, cursor), volume))
    for other, _, place in here:
        if other is active and other is not layer and isinstance(other, Image) and not other.rgb:
            parts.append(f"{other.name} {_number(_value_at(other, place, cursor))}")
    labels = [_label(one, int(_value_at(one, place, cursor))) for one, _, place in reversed(labelled)]
    named = [text for text in dict.fromkeys(labels) if text != "no label"]
    parts += named or (labels[:1] if not images else [])
    return layer, " · ".join(part for part in parts if part)


def readout(layer: Layer, world: Sequence[float], dims_displayed: Sequence[int], ndim: int) -> str:
    """A world position of the viewer in words; empty outside the layer and for a layer on no volume's grid.

    world: one coordinate per viewer dimension (ndim of them). dims_displayed: the two on screen. Millimetres are those
    of the voxel's centre, which the value belongs to.
    """
    volume, cursor = volume_on(layer), Cursor(world, dims_displayed, ndim)
    point = None if volume is None else _point(layer, cursor)
    if volume is None or point is None:
        return ""
    return " · ".join([*_place(volume, point), *_values(layer, volume, point, cursor)])


def patient_position(ras_mm: Sequence[float]) -> str:
    """RAS millimetres with the letter of the side they lie on: 'R 12.0  A 3.5  I 40.2'."""
    sides = []
    for millimetres, (above, below) in zip(ras_mm, _DIRECTIONS):
        shown = round(float(millimetres), 1)
        sides.append(f"{above if shown >= 0 else below} {abs(shown):.1f}")
    return "  ".join(sides)


def _point(layer: Layer, cursor: Cursor) -> SlicePoint | None:
    if layer.ndim < 3 or len(cursor.displayed) != 2:
        return None
    return slice_point(layer, cursor.world, cursor.displayed, cursor.ndim)


def _place(volume: Volume, point: SlicePoint) -> list[str]:
    """`zyx 60 40 90`, `file (31, 40, 60)`, `R 12.0  A 3.5  S 120.0 mm`."""
    z, y, x = point.voxel
    parts = [f"zyx {z} {y} {x}"]
    if volume.source is not None:
        index = ", ".join(str(int(i)) for i in volume.source.file_index(point.voxel))
        parts.append(f"file ({index})")
    return [*parts, f"{patient_position(volume.mm_from_zyx(point.voxel))} mm"]


def _values(layer: Layer, volume: Volume, point: SlicePoint, cursor: Cursor) -> list[str]:
    own = _value_at(layer, point, cursor)
    if isinstance(layer, Labels):
        if _is_the_volume(layer, volume):
            return [_label(layer, int(own))]
        # Drawn on an image: what is below it is of as much interest.
        return [_label(layer, int(own)), _intensity(np.asarray(volume.data[point.voxel])[()], volume)]
    if isinstance(layer, Image) and not layer.rgb:
        return [_intensity(own, volume) if _is_the_volume(layer, volume) else _number(own)]
    return []


def _value_at(layer: Layer, point: SlicePoint, cursor: Cursor) -> Any:
    """The layer's own value at a voxel; of (frame, z, y, x), in the frame that is shown."""
    data = layer.data[0] if layer.multiscale else layer.data
    index: tuple[int, ...] = point.voxel
    if layer.ndim == 4:
        frame = round(float(np.asarray(layer.world_to_data(cursor.world))[0]))
        index = (min(max(frame, 0), data.shape[0] - 1), *index)
    return np.asarray(data[index])[()]


def _is_the_volume(layer: Layer, volume: Volume) -> bool:
    data = layer.data[0] if layer.multiscale else layer.data
    if layer.metadata.get(FRAME_KEY) is volume:
        return HEATMAP_KEY not in layer.metadata
    return data is volume.data or (
        isinstance(data, np.ndarray) and isinstance(volume.data, np.ndarray) and np.may_share_memory(data, volume.data)
    )


def _intensity(value: Any, volume: Volume) -> str:
    return f"{_number(value)} HU" if volume.modality == "CT" else f"value {_number(value)}"


def _number(value: Any) -> str:
    return f"{float(value):.5g}" if np.asarray(value).dtype.kind == "f" else str(int(value))


def _label(layer: Labels, number: int) -> str:
    """A label's number, and its name where the layer has one; one that is drawn as nothing is none."""
    if number == 0 or _is_transparent(layer, number):
        return "no label"
    features = layer.features
    if not {"index", "name"} <= set(features):
        return f"label {number}"
    names = features["name"][features["index"] == number]
    return f"label {number} {names.iloc[0] if len(names) else ''}".rstrip()


def _is_transparent(layer: Labels, number: int) -> bool:
    """Whether a label's own colour hides it: objects of the Prompt dock stand for it now."""
    colours = layer.colormap.color_dict if isinstance(layer.colormap, DirectLabelColormap) else {}
    return number in colours and float(colours[number][3]) == 0
