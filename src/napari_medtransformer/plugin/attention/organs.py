"""The labelled structures on a slice, whichever Labels layer they are in: what asks, and what is looked at."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image, Labels

from napari_medtransformer.plugin.layer_volume import layer_shape
from napari_medtransformer.plugin.planes import shown_frame

OBJECTS_LAYER = "marked here"
"""What the session's own labels are called in the choice of organs."""


@dataclass(frozen=True)
class Organ:
    """A label of a Labels layer. key: tells it apart from all others, also after its layer was renamed.

    frame: which volume of a layer (frame, z, y, x).
    """

    key: tuple[int, int]
    name: str
    layer_name: str
    layer: weakref.ref[Labels]
    frame: int = 0

    @property
    def value(self) -> int:
        """The label."""
        return self.key[1]

    def mask(self, axis: int, index: int) -> np.ndarray:
        """(rows, columns) bool on a slice; empty once its layer is gone."""
        layer = self.layer()
        if layer is None:
            return np.zeros((1, 1), bool)
        return np.asarray(slice_of(layer, axis, index, self.frame) == self.value)


def slice_of(layer: Labels, axis: int, index: int, frame: int = 0) -> np.ndarray:
    """(rows, columns) labels of a slice. frame: which volume of a layer (frame, z, y, x)."""
    data = layer.data[0] if layer.multiscale else layer.data
    data = data[frame] if data.ndim == 4 else data
    return np.asarray(data if data.ndim == 2 else data[(slice(None),) * axis + (index,)])


def labels_of(viewer: Any, image: Image | None) -> list[Labels]:
    """The Labels layers on the image's own grid, by shape; on an image (frame, z, y, x), those of one volume too."""
    if viewer is None or image is None:
        return []
    shape = layer_shape(image)
    shapes = (shape, shape[1:]) if len(shape) == 4 else (shape,)
    return [layer for layer in viewer.layers if isinstance(layer, Labels) and layer_shape(layer) in shapes]


def names_of(layer: Labels) -> dict[int, str]:
    """Label → name, from the layer's table of features; empty names are left out."""
    features = layer.features
    if "index" not in features or "name" not in features:
        return {}
    known = zip(features["index"], features["name"], strict=True)
    return {int(number): str(name) for number, name in known if str(name)}


def organs_on_slice(viewer: Any, image: Image | None, own: Labels | None, axis: int, index: int) -> list[Organ]:
    """Every label on a slice: those of the session (`own`) first, then layer by layer, by number."""
    layers = labels_of(viewer, image)
    layers.sort(key=lambda layer: layer is not own)
    frame = 0 if image is None else shown_frame(viewer, image)
    organs = []
    for layer in layers:
        names = names_of(layer)
        shown = OBJECTS_LAYER if layer is own else layer.name
        for value in np.unique(slice_of(layer, axis, index, frame)).tolist():
            if value:
                name = names.get(value, f"object {value}" if layer is own else f"label {value}")
                organs.append(Organ((id(layer), value), name, shown, weakref.ref(layer), frame))
    return organs
