"""What lies under the cursor: voxel, index in the file, patient millimetres and value, in napari's status bar."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QObject, Signal

from napari_medtransformer.plugin.layer_volume import SlicePoint, layer_shape, slice_point
from napari_medtransformer.plugin.layers import VOLUME_KEY
from napari_medtransformer.volumes import Volume

_DIRECTIONS = (("R", "L"), ("A", "P"), ("S", "I"))
"""The patient's directions along RAS millimetres above and below zero."""


class CursorReadout(QObject):
    """Completes napari's status line while the cursor is over a layer that lies on a volume's grid.

    Holds the viewer weakly; `detach` ends it.
    """

    moved = Signal(str)  # the readout of the layer under the cursor; empty where there is none

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        # Last: the status bar has shown napari's own line by then, and shows this one over it.
        viewer.events.status.connect(self._on_status, position="last")

    def detach(self) -> None:
        """Leave the status line to napari."""
        viewer = self._viewer()
        if viewer is not None:
            viewer.events.status.disconnect(self._on_status)

    def _on_status(self, event: Any) -> None:
        viewer, status = self._viewer(), event.value
        if viewer is None:
            return
        text = ""
        layer = viewer.layers.selection.active
        # napari's line is a record while one layer is selected; any other status is not about the cursor.
        if isinstance(status, dict) and layer is not None and viewer.dims.ndisplay == 2:
            text = readout(layer, viewer.cursor.position, viewer.dims.displayed, viewer.dims.ndim)
        if text and status.get("coordinates") != text:
            viewer.status = status | {"coordinates": text}
        self.moved.emit(text)


def readout(layer: Layer, world: Sequence[float], dims_displayed: Sequence[int], ndim: int) -> str:
    """A world position of the viewer in words; empty outside the layer and for a layer on no volume's grid.

    world: one coordinate per viewer dimension (ndim of them). dims_displayed: the two on screen. Millimetres are those
    of the voxel's centre, which the value belongs to.
    """
    volume = layer.metadata.get(VOLUME_KEY)
    if not isinstance(volume, Volume) or layer.ndim != 3 or layer_shape(layer) != volume.shape:
        return ""
    point = slice_point(layer, world, dims_displayed, ndim)
    return "" if point is None else describe_voxel(layer, volume, point)


def describe_voxel(layer: Layer, volume: Volume, point: SlicePoint) -> str:
    """One line on a voxel of a layer on a volume's grid, such as
    `zyx 60 40 90 · file (31, 40, 60) · R 12.0  A 3.5  S 120.0 mm · 54 HU`."""
    z, y, x = point.voxel
    parts = [f"zyx {z} {y} {x}"]
    if volume.source is not None:
        index = ", ".join(str(int(i)) for i in volume.source.file_index(point.voxel))
        parts.append(f"file ({index})")
    parts.append(f"{patient_position(volume.mm_from_zyx(point.voxel))} mm")
    parts.append(_value(layer, volume, point.voxel))
    return " · ".join(part for part in parts if part)


def patient_position(ras_mm: Sequence[float]) -> str:
    """RAS millimetres with the letter of the side they lie on: 'R 12.0  A 3.5  I 40.2'."""
    sides = []
    for millimetres, (above, below) in zip(ras_mm, _DIRECTIONS):
        shown = round(float(millimetres), 1)
        sides.append(f"{above if shown >= 0 else below} {abs(shown):.1f}")
    return "  ".join(sides)


def _value(layer: Layer, volume: Volume, voxel: tuple[int, int, int]) -> str:
    data = layer.data[0] if layer.multiscale else layer.data
    own = np.asarray(data[voxel])[()]
    if isinstance(layer, Labels):
        if _is_the_volume(data, volume):
            return _label(layer, int(own))
        # Drawn on an image: what is below it is of as much interest.
        return f"{_label(layer, int(own))} · {_intensity(np.asarray(volume.data[voxel])[()], volume)}"
    if isinstance(layer, Image) and not layer.rgb:
        return _intensity(own, volume) if _is_the_volume(data, volume) else _number(own)
    return ""


def _is_the_volume(data: Any, volume: Volume) -> bool:
    """Whether a layer shows the volume's own values, rather than a heatmap or labels on its grid."""
    return data is volume.data or (isinstance(data, np.ndarray) and np.may_share_memory(data, volume.data))


def _intensity(value: Any, volume: Volume) -> str:
    return f"{_number(value)} HU" if volume.modality == "CT" else f"value {_number(value)}"


def _number(value: Any) -> str:
    return f"{float(value):.5g}" if np.asarray(value).dtype.kind == "f" else str(int(value))


def _label(layer: Labels, number: int) -> str:
    """A label's number, and its name where the layer has one."""
    if number == 0:
        return "no label"
    features = layer.features
    if not {"index", "name"} <= set(features):
        return f"label {number}"
    names = features["name"][features["index"] == number]
    return f"label {number} {names.iloc[0] if len(names) else ''}".rstrip()
