"""The volume behind any image layer, whoever read it, and where a mouse position lies in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image, Layer

from napari_medtransformer.errors import UnsupportedVolume
from napari_medtransformer.plugin.layers import VOLUME_KEY
from napari_medtransformer.volumes import Volume


@dataclass(frozen=True)
class LayerVolume:
    """A layer's volume. assumed: what had to be assumed about its place in the patient, for the user; or empty."""

    volume: Volume
    assumed: str = ""


@dataclass(frozen=True)
class SlicePoint:
    """A mouse position in a volume. position_zyx: voxels, an integer is a voxel's centre. axis: the slice's normal."""

    position_zyx: tuple[float, float, float]
    axis: int

    @property
    def voxel(self) -> tuple[int, int, int]:
        """The voxel under the mouse."""
        z, y, x = (math.floor(p + 0.5) for p in self.position_zyx)
        return z, y, x


def volume_of_layer(layer: Layer) -> LayerVolume:
    """The Volume that our reader attached, or one made from the layer's data and scale.

    Raises UnsupportedVolume for colour images and for arrays that are neither a volume nor a slice.
    """
    attached = layer.metadata.get(VOLUME_KEY)
    if isinstance(attached, Volume) and attached.shape == layer_shape(layer):
        return LayerVolume(attached)
    if not isinstance(layer, Image):
        raise UnsupportedVolume(f"{layer.name} is a {type(layer).__name__} layer; choose an image layer.")
    if layer.rgb:
        raise UnsupportedVolume(f"{layer.name} is a colour image; expected one channel. Split its channels first.")
    if layer.ndim not in (2, 3):
        raise UnsupportedVolume(
            f"{layer.name} has {layer.ndim} dimensions {tuple(layer.data.shape)}; expected 3 (z, y, x) or 2 (y, x). "
            "Take one time point or channel first: right-click the layer, Split Stack."
        )
    data = np.asarray(layer.data[0] if layer.multiscale else layer.data)
    millimetres, assumption = _spacing_mm(layer)
    if layer.ndim == 2:
        data = data[np.newaxis]
    assumed = (
        f"{layer.name} says nothing about the patient: assumed (z, y, x) = upward, backward, leftward{assumption}."
    )
    return LayerVolume(Volume.from_array(data, millimetres), assumed)


def layer_shape(layer: Layer) -> tuple[int, ...]:
    """Voxels per axis of the layer's data, at full resolution."""
    return tuple(layer.data[0].shape if layer.multiscale else layer.data.shape)


def labels_of_layer(labels_zyx: np.ndarray, layer: Layer) -> np.ndarray:
    """Labels (z, y, x) as the layer's own dimensions: the only slice for a 2D layer; a view."""
    return labels_zyx[0] if layer.ndim == 2 else labels_zyx


def same_place(layer: Layer) -> dict[str, Any]:
    """Keyword arguments that put another layer exactly where this one lies."""
    return {
        "scale": layer.scale,
        "translate": layer.translate,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": layer.affine,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def slice_point(layer: Layer, world: Sequence[float], dims_displayed: Sequence[int], ndim: int) -> SlicePoint | None:
    """Where a world position of the viewer lies in a layer's volume; None outside it.

    world: the viewer's coordinates, one per viewer dimension (ndim of them). dims_displayed: the two on screen.
    """
    position = np.asarray(layer.world_to_data(world), dtype=float)
    shape = layer_shape(layer)
    if layer.ndim == 2:
        position, shape, axis = np.concatenate([[0.0], position]), (1, *shape), 0
    else:
        axis = _normal_axis(layer, dims_displayed, ndim)
        # napari shows the nearest slice; the prompt belongs to that one, not to a fraction between two.
        position[axis] = math.floor(position[axis] + 0.5)
    if np.any(position < -0.5) or np.any(position >= np.asarray(shape) - 0.5):
        return None
    z, y, x = (float(p) for p in position)
    return SlicePoint((z, y, x), axis)


def world_of_voxel(layer: Layer, zyx: Sequence[float]) -> np.ndarray:
    """A voxel's place in the world of the layer's own dimensions."""
    return np.asarray(layer.data_to_world(zyx[1:] if layer.ndim == 2 else zyx), dtype=float)


def _normal_axis(layer: Layer, dims_displayed: Sequence[int], ndim: int) -> int:
    """The data axis of a 3D layer that points out of the screen, whatever transform the layer has."""
    offset = ndim - layer.ndim
    hidden = [d - offset for d in range(offset, ndim) if d not in dims_displayed]
    origin = np.asarray(layer.world_to_data(np.zeros(ndim)))
    step = np.zeros(ndim)
    step[offset + hidden[0]] = 1
    return int(np.argmax(np.abs(np.asarray(layer.world_to_data(step)) - origin)))


def _spacing_mm(layer: Image) -> tuple[tuple[float, float, float], str]:
    """(dz, dy, dx) in mm, and what was assumed to get there. A single slice is 1 mm thick."""
    factors, assumption = [], ""
    for unit in layer.units:
        if unit.is_compatible_with("mm"):
            factors.append(float((1 * unit).to("mm").magnitude))
        else:
            factors.append(1.0)
            assumption = f", one unit of its scale = 1 mm (its units are {unit:~P})".replace("()", "")
    spacing = [abs(float(s)) * f for s, f in zip(layer.scale, factors)]
    if layer.ndim == 2:
        spacing = [1.0, *spacing]
        assumption += ", a slice 1 mm thick"
    dz, dy, dx = spacing
    return (dz, dy, dx), assumption
