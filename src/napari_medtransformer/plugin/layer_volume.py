"""The volume behind any image layer, whoever read it, and where a mouse position lies in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer

from napari_medtransformer.errors import UnsupportedVolume
from napari_medtransformer.plugin.layers import FRAME_KEY, VOLUME_KEY
from napari_medtransformer.volumes import Volume
from napari_medtransformer.volumes.lazy import lazy_of

if TYPE_CHECKING:
    from napari_medtransformer.plugin.workspace import Workspace


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


def volume_of_layer(layer: Layer, frame: int = 0) -> LayerVolume:
    """The Volume that our reader attached, or one made from the layer's data and scale.

    frame: which volume of a layer (frame, z, y, x). Raises UnsupportedVolume for colour images and for arrays that are
    neither volumes nor a slice.
    """
    attached = layer.metadata.get(VOLUME_KEY)
    if isinstance(attached, Volume) and attached.shape == layer_shape(layer):
        return LayerVolume(_as_shown(layer, attached))
    if not isinstance(layer, Image):
        raise UnsupportedVolume(f"{layer.name} is a {type(layer).__name__} layer; choose an image layer.")
    if layer.rgb:
        raise UnsupportedVolume(f"{layer.name} is a colour image; expected one channel. Split its channels first.")
    if layer.ndim not in (2, 3, 4):
        raise UnsupportedVolume(
            f"{layer.name} has {layer.ndim} dimensions {layer_shape(layer)}; expected (z, y, x), (frame, z, y, x) or "
            "(y, x). Take one of its leading axis first: right-click the layer, Split Stack."
        )
    data = layer.data[0] if layer.multiscale else layer.data
    if layer.ndim == 4:
        lazy = lazy_of(data)
        data = np.asarray(data[frame]) if lazy is None else lazy.fixed(0, frame)
        template = layer.metadata.get(FRAME_KEY)
        if isinstance(template, Volume) and template.shape == data.shape:
            return LayerVolume(replace(template, data=data, coarser=()))
    data = np.asarray(data)
    millimetres, assumption = _spacing_mm(layer)
    if layer.ndim == 2:
        data = data[np.newaxis]
    assumed = (
        f"{layer.name} says nothing about the patient: assumed (z, y, x) = upward, backward, leftward{assumption}."
    )
    return LayerVolume(Volume.from_array(data, millimetres), assumed)


def _as_shown(layer: Layer, volume: Volume) -> Volume:
    """The volume with what its image layer shows: other values may have taken the place of those that were read."""
    if not isinstance(layer, Image) or layer.multiscale or layer.data is volume.data:
        return volume
    if lazy_of(layer.data) is not None or lazy_of(volume.data) is not None:
        return volume
    data = np.asarray(layer.data)
    return volume if np.may_share_memory(data, volume.data) else replace(volume, data=data, coarser=())


def layer_shape(layer: Layer) -> tuple[int, ...]:
    """Voxels per axis of the layer's data, at full resolution; empty for a layer that is no array, such as shapes."""
    if getattr(layer, "multiscale", False):
        return tuple(layer.data[0].shape)
    return tuple(getattr(layer.data, "shape", ()))


def frames_of(layer: Layer) -> int:
    """How many volumes a layer holds one after another: more than one for (frame, z, y, x) alone."""
    return layer_shape(layer)[0] if layer.ndim == 4 else 1


def labels_of_layer(labels_zyx: np.ndarray, layer: Layer) -> np.ndarray:
    """Labels (z, y, x) as the layer's own dimensions: the only slice for a 2D layer; a view."""
    return labels_zyx[0] if layer.ndim == 2 else labels_zyx


def same_place(layer: Layer) -> dict[str, Any]:
    """Keyword arguments that put another layer exactly where this one lies; beside (frame, z, y, x), one frame."""
    if layer.ndim == 4:
        return _place_of_frame(layer)
    return {
        "scale": layer.scale,
        "translate": layer.translate,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": layer.affine,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def place_of_slice(layer: Layer, axis: int, index: int) -> dict[str, Any]:
    """As same_place, moved to one slice of the volume: for a layer that is one voxel thick along `axis`."""
    place, step = same_place(layer), np.zeros(3)
    step[axis] = index
    if layer.ndim == 4 and "affine" in place:
        affine = np.array(place["affine"])
        affine[:3, 3] += affine[:3, :3] @ step
        return place | {"affine": affine}
    # A slice's place in the world is linear in its index.
    scale = np.asarray(place["scale"])
    return place | {"translate": np.asarray(place["translate"]) + scale * step[-len(scale) :]}


def slice_point(layer: Layer, world: Sequence[float], dims_displayed: Sequence[int], ndim: int) -> SlicePoint | None:
    """Where a world position of the viewer lies in a layer's volume; None outside it.

    world: the viewer's coordinates, one per viewer dimension (ndim of them). dims_displayed: the two on screen.
    """
    position = np.asarray(layer.world_to_data(world), dtype=float)
    shape = layer_shape(layer)
    if layer.ndim == 4:
        if ndim - 4 in dims_displayed:
            return None  # frames side by side are no slice of a patient
        position, shape = position[1:], shape[1:]
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


def nearest_inside(layer: Layer, world: Sequence[float]) -> np.ndarray:
    """A world position of the viewer, or the nearest one whose voxel lies in the layer."""
    place = np.asarray(world, dtype=float).copy()
    inside = np.clip(np.asarray(layer.world_to_data(place), dtype=float), 0, np.asarray(layer_shape(layer)) - 1)
    place[-layer.ndim :] = np.asarray(layer.data_to_world(inside))[-layer.ndim :]
    return place


def voxels_of_pixels(viewer: Any, layer: Layer, pixels: float) -> float:
    """How many voxels of a layer lie under so many pixels of the canvas, along its finest axis."""
    return pixels / float(viewer.scene.camera.zoom) / float(np.abs(layer.scale[-3:]).min())


def world_of_voxel(layer: Layer, zyx: Sequence[float]) -> np.ndarray:
    """A voxel's place in the world of the layer's last three dimensions (of all, for a 2D layer)."""
    if layer.ndim == 4:
        return np.asarray(layer.data_to_world((0, *zyx)), dtype=float)[1:]
    return np.asarray(layer.data_to_world(zyx[1:] if layer.ndim == 2 else zyx), dtype=float)


def label_under(viewer: Any, workspace: Workspace, point: SlicePoint) -> np.ndarray | None:
    """The (z, y, x) bool mask of the label under a voxel, in the topmost labels layer that has one there.

    Layers of another shape or place than the volume's, hidden ones and the session's own masks are passed over.
    """
    z, y, x = point.voxel
    for layer in reversed(viewer.layers):
        if not isinstance(layer, Labels) or not layer.visible or layer is workspace.masks:
            continue
        data = layer.data[0] if layer.multiscale else layer.data
        if data.ndim == 4:
            data = data[min(workspace.frame, len(data) - 1)]
        elif data.ndim == 2:
            data = data[np.newaxis]
        if data.shape != workspace.volume.shape or not lies_on(layer, workspace.layer) or not data[z, y, x]:
            continue
        return np.asarray(data) == np.asarray(data[z, y, x])
    return None


def lies_on(layer: Layer, image: Layer) -> bool:
    """Whether a layer of an image's shape also lies where that does, to a tenth of a voxel."""
    ndim = min(layer.ndim, image.ndim, 3)
    ends = np.array(layer_shape(image)[-ndim:]) - 1
    nearest, *steps = (_in_world(image, place) for place in (np.zeros(ndim), *np.eye(ndim)))
    tolerance = 0.1 * min(float(np.linalg.norm(step - nearest)) for step in steps)
    return all(
        np.abs(_in_world(layer, ends * corner) - _in_world(image, ends * corner)).max() <= tolerance
        for corner in np.ndindex((2,) * ndim)
    )


def _in_world(layer: Layer, place: np.ndarray) -> np.ndarray:
    """World coordinates of a place along a layer's last axes, at the first of those before."""
    before = np.zeros(layer.ndim - len(place))
    return np.asarray(layer.data_to_world((*before, *place)), dtype=float)[-len(place) :]


def _normal_axis(layer: Layer, dims_displayed: Sequence[int], ndim: int) -> int:
    """The data axis of a 3D layer that points out of the screen, whatever transform the layer has."""
    spatial = ndim - 3
    hidden = [d for d in range(spatial, ndim) if d not in dims_displayed]
    origin = np.asarray(layer.world_to_data(np.zeros(ndim)))
    step = np.zeros(ndim)
    step[hidden[0]] = 1
    return int(np.argmax(np.abs(np.asarray(layer.world_to_data(step)) - origin)[-3:]))


def _place_of_frame(layer: Layer) -> dict[str, Any]:
    """Where the volumes of a layer (frame, z, y, x) lie: its transform of the last three axes."""
    origin = np.asarray(layer.data_to_world(np.zeros(4)))[1:]
    columns = [np.asarray(layer.data_to_world(step))[1:] - origin for step in np.eye(4)[1:]]
    linear = np.stack(columns, axis=1)
    place: dict[str, Any] = {"units": layer.units[1:], "axis_labels": layer.axis_labels[1:]}
    if np.allclose(linear, np.diag(np.diag(linear))):
        return place | {"scale": np.diag(linear), "translate": origin}
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = linear, origin
    return place | {"affine": affine}


def _spacing_mm(layer: Image) -> tuple[tuple[float, float, float], str]:
    """(dz, dy, dx) in mm, and what was assumed to get there. A single slice is 1 mm thick."""
    factors, assumption = [], ""
    for unit in layer.units[-3:]:
        if unit.is_compatible_with("mm"):
            factors.append(float((1 * unit).to("mm").magnitude))
        else:
            factors.append(1.0)
            assumption = f", one unit of its scale = 1 mm (its units are {unit:~P})".replace("()", "")
    spacing = [abs(float(s)) * f for s, f in zip(layer.scale[-3:], factors)]
    if layer.ndim == 2:
        spacing = [1.0, *spacing]
        assumption += ", a slice 1 mm thick"
    dz, dy, dx = spacing
    return (dz, dy, dx), assumption
