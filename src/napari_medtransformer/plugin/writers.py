"""napari writers: labels and heatmaps on the grid of the file that the volume came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from napari_medtransformer.errors import CannotWrite
from napari_medtransformer.plugin.layers import FRAME_KEY, VOLUME_KEY
from napari_medtransformer.volumes import Label, Volume, write_heatmap, write_labels, write_volume
from napari_medtransformer.volumes.label_table import label_color


def write_labels_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save a labels layer (z, y, x) on its volume's own grid.

    The volume is the one in the layer's metadata, or that of a layer in the viewer with the same shape and placement
    (a layer made with napari's own button). Raises CannotWrite.
    """
    if np.ndim(data) == 4:
        raise CannotWrite(
            f"layer {attributes.get('name', '')!r} was not written: it has {len(data)} frames, a label file has one. "
            f"Right-click it: Convert to Image, then Split Stack, and convert the frame back to labels."
        )
    volume = _volume_of(data, attributes)
    return [str(write_labels(np.asarray(data), volume, path, names=label_names(attributes)))]


def write_image_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save an image layer on its volume's own grid: integers (z, y, x) in their own type, anything else as float32,
    heads or frames (frame, z, y, x) as the file's last axis. Raises CannotWrite."""
    volume = _volume_of(data, attributes)
    array = np.asarray(data[0] if attributes.get("multiscale") else data)
    if array.dtype.kind in "ui" and array.shape == volume.shape:
        return [str(write_volume(replace(volume, data=array, coarser=()), path))]
    return [str(write_heatmap(array, volume, path))]


def label_names(attributes: dict[str, Any]) -> list[Label]:
    """Names and colours of a labels layer's labels, of its features ('index', 'name') and its colormap."""
    features = attributes.get("features")
    if features is None or not {"index", "name"} <= set(features):
        return []
    colormap = attributes.get("colormap")
    labels = []
    for number, name in zip(features["index"], features["name"]):
        if int(number) < 1 or not isinstance(name, str) or not name:
            continue
        mapped = None if colormap is None else colormap.map(int(number))
        red, green, blue = label_color(int(number)) if mapped is None else (float(part) for part in mapped[:3])
        labels.append(Label(int(number), name, (red, green, blue)))
    return labels


def _volume_of(data: Any, attributes: dict[str, Any]) -> Volume:
    """The volume whose grid a layer lies on."""
    volume = _attached(attributes.get("metadata", {}))
    if volume is not None:
        return volume
    import napari  # only here: saving happens in a viewer, importing this module must not need one

    viewer = napari.current_viewer()
    for layer in viewer.layers if viewer is not None else ():
        candidate = _attached(layer.metadata)
        if candidate is not None and _same_grid(candidate, data, attributes):
            return candidate
    raise CannotWrite(
        f"layer {attributes.get('name', '')!r} was not written: no open volume has its shape {np.shape(data)} and "
        f"place, so it is not known where in the patient it lies. Open the image it was drawn on first."
    )


def _attached(metadata: Mapping[str, Any]) -> Volume | None:
    """The volume in a layer's metadata; of a layer (frame, z, y, x) the first one, on whose grid all of them lie."""
    volume = metadata.get(VOLUME_KEY, metadata.get(FRAME_KEY))
    return volume if isinstance(volume, Volume) else None


def _same_grid(volume: Volume, data: Any, attributes: dict[str, Any]) -> bool:
    """Whether a layer has a volume's shape, scale and translate (the last three axes)."""
    scale, translate = attributes.get("scale", (1.0,) * 3), attributes.get("translate", (0.0,) * 3)
    return (
        np.shape(data)[-3:] == volume.shape
        and np.allclose(scale[-3:], volume.placement.scale, rtol=1e-6)
        and np.allclose(translate[-3:], volume.placement.translate, rtol=1e-6, atol=1e-6)
    )
