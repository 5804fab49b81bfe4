"""The region of interest that a user draws as rectangles on slices of an image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from napari.layers import Image, Layer, Shapes

from napari_medtransformer.plugin.layer_volume import layer_shape, same_place

REGION_NAME = "region"
EDGE_COLOUR = "#4dd2ff"
# Rectangles whose corners differ by less along an axis lie on one slice: they bound the other two axes only.
_FLAT = 0.75

Box = tuple[tuple[int, int, int], tuple[int, int, int]]


def region_layer(image: Image) -> Shapes:
    """An empty layer of rectangles that lies where the image lies, ready to be drawn on."""
    place = same_place(image)
    layer = Shapes(
        ndim=min(image.ndim, 3),
        name=REGION_NAME,
        edge_color=EDGE_COLOUR,
        face_color="transparent",
        edge_width=max(0.4, min(layer_shape(image)[-2:]) / 200),
        **place,
    )
    layer.mode = "add_rectangle"
    return layer


def region_layers(layers: Iterable[Layer]) -> list[Shapes]:
    """The layers whose shapes may bound a region."""
    return [layer for layer in layers if isinstance(layer, Shapes)]


def region_of(shapes: Shapes, image: Image, volume_shape: tuple[int, int, int]) -> Box | None:
    """The voxels of an image's volume that a layer's shapes span, (start, stop) half-open; None without any shape.

    All shapes together bound it; along an axis on which they all lie on one slice, the volume's whole length counts.
    """
    if not len(shapes.data):
        return None
    corners = np.concatenate([np.asarray(shape, dtype=float) for shape in shapes.data])
    world = np.stack([shapes.data_to_world(corner) for corner in corners])
    voxels = np.stack([_to_data(image, point) for point in world])
    low, high = voxels.min(axis=0), voxels.max(axis=0)
    start, stop = [], []
    for axis, n in enumerate(volume_shape):
        if high[axis] - low[axis] < _FLAT:
            start.append(0)
            stop.append(n)
            continue
        # A voxel belongs to the region if its centre does.
        first = min(max(int(np.ceil(low[axis])), 0), n - 1)
        start.append(first)
        stop.append(min(max(int(np.floor(high[axis])) + 1, first + 1), n))
    return _triple(start), _triple(stop)


def region_in_words(region: Box | None, spacing: tuple[float, float, float]) -> str:
    """A region for a user."""
    if region is None:
        return "Nothing drawn yet: drag a rectangle on a slice, on a second slice too to bound the depth."
    ranges = ", ".join(f"{axis} {a}–{b - 1}" for axis, a, b in zip("zyx", *region, strict=True))
    size = " × ".join(f"{(b - a) * mm:.0f}" for a, b, mm in zip(*region, spacing, strict=True))
    return f"{ranges} ({size} mm)"


def _to_data(image: Image, world: np.ndarray) -> np.ndarray:
    """A world position of three axes, or two for a slice, as voxels (z, y, x) of the image's volume."""
    if image.ndim == 4:
        world = np.concatenate([[0.0], world[-3:]])
    voxel = np.asarray(image.world_to_data(world), dtype=float)
    return np.concatenate([[0.0], voxel]) if voxel.size == 2 else voxel[-3:]


def _triple(values: list[Any]) -> tuple[int, int, int]:
    z, y, x = (int(v) for v in values)
    return z, y, x
