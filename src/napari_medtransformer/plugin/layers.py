"""Volumes as napari layer data: every layer on a volume's grid gets the same scale, translate, units and axis names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_medtransformer.volumes import Volume
from napari_medtransformer.volumes.lazy import LAZY_BYTES, LazyArray, Stacked

# Under this key a layer's metadata holds the Volume whose grid it lies on.
VOLUME_KEY = "medt_volume"
# And under this one, a layer (frame, z, y, x) holds the first of its volumes: all of them lie on one grid.
FRAME_KEY = "medt_first_frame"
AXIS_LABELS = ("z", "y", "x")

LayerData = tuple[Any, dict[str, Any], str]


def grid_kwargs(volume: Volume) -> dict[str, Any]:
    """Keyword arguments that put a (z, y, x) layer on the volume's grid, in millimetres, with the volume attached.

    Scale and translate only: an affine with any off-diagonal term would make napari refuse to slice the layer in 2D.
    """
    placement = volume.placement
    return {
        "scale": placement.scale,
        "translate": placement.translate,
        "units": ("mm",) * 3,
        "axis_labels": AXIS_LABELS,
        "metadata": {VOLUME_KEY: volume},
    }


def image_layer(volume: Volume) -> LayerData:
    """The volume as an image layer, windowed by `volume.window`; with coarser levels as a pyramid."""
    window = volume.window
    kwargs: dict[str, Any] = {
        "name": volume.name,
        "colormap": "gray",
        "contrast_limits": (window.low, window.high),
        "multiscale": bool(volume.coarser),
        "rgb": False,  # else three or four columns of voxels would be taken for colours
    }
    data = [volume.data, *volume.coarser] if volume.coarser else volume.data
    return data, kwargs | grid_kwargs(volume), "image"


def series_layer(frames: Sequence[Volume]) -> LayerData:
    """Many volumes on one grid as a layer (frame, z, y, x). No volume is attached: "Split Stack" makes 3D layers."""
    first = frames[0]
    kwargs = image_layer(first)[1] | {
        "scale": (1.0, *first.placement.scale),
        "translate": (0.0, *first.placement.translate),
        "units": ("pixel", "mm", "mm", "mm"),
        "axis_labels": ("frame", *AXIS_LABELS),
        "multiscale": False,
        "metadata": {FRAME_KEY: first},
    }
    arrays = [frame.data for frame in frames]
    if len(arrays) * arrays[0].nbytes < LAZY_BYTES:
        return np.stack(arrays), kwargs, "image"
    return LazyArray(Stacked(arrays)), kwargs, "image"


def labels_layer(labels: np.ndarray, volume: Volume, name: str, **kwargs: Any) -> LayerData:
    """Labels (z, y, x) on the volume's grid. kwargs: such as features (one row per label, background first)."""
    return labels, {"name": name} | grid_kwargs(volume) | kwargs, "labels"
