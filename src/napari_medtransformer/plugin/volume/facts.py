"""What the Volume dock says and offers about a volume, without a widget."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from napari.layers import Labels, Layer

from napari_medtransformer.errors import UnsupportedVolume
from napari_medtransformer.plugin.layer_volume import layer_shape, same_place
from napari_medtransformer.plugin.layers import VOLUME_KEY
from napari_medtransformer.volumes import CT_PRESETS, Volume, Window
from napari_medtransformer.volumes.intensity import robust_window

_PERCENTILES = (0.5, 2.0, 5.0)
"""Per cent cut off at either end; the first is what an MR is shown with."""


def windows_of(volume: Volume) -> list[Window]:
    """The windows to offer: what the file's header asks for, then the presets of a CT, or percentiles of the values."""
    windows = list(CT_PRESETS) if volume.modality == "CT" else _percentile_windows(volume)
    requested = volume.requested_window
    if requested is not None:
        windows.insert(0, Window(requested.low, requested.high, requested.name or "as in the file"))
    return windows


def facts_of(volume: Volume) -> dict[str, str]:
    """What a user must know of a volume before trusting what is on screen; the caption and the text of every line."""
    directions = volume.direction_letters
    tilt = tilt_degrees(volume)
    facts = {
        "Voxels": " × ".join(map(str, volume.shape)) + " (z, y, x)",
        "Spacing": " × ".join(f"{step:.3g}" for step in volume.spacing) + " mm",
        "Axes": " ".join(f"{start}→{end}" for start, end in directions),
        "Modality": "not told by the file" if volume.modality == "unknown" else volume.modality,
        "Grid": f"oblique, {tilt:.1f}° off the patient's axes; shown on its own grid"
        if volume.is_oblique
        else "straight",
    }
    if volume.source is not None:
        facts["File"] = f"{volume.source.path.name} ({volume.source.format})"
    return facts


def tilt_degrees(volume: Volume) -> float:
    """The largest angle between an axis of the grid and the patient's axis that it is named for."""
    directions = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    closest = np.abs(directions).max(axis=0)
    return float(np.degrees(np.arccos(np.clip(closest, 0, 1))).max())


def lies_on(layer: Layer, volume: Volume, image: Layer) -> bool:
    """Whether a layer's voxels are those of an image's volume: by the volume that it knows, else by where it lies."""
    if layer.ndim != 3 or image.ndim != 3 or layer_shape(layer) != volume.shape:
        return False
    known = layer.metadata.get(VOLUME_KEY)
    if isinstance(known, Volume):
        return bool(np.allclose(known.affine, volume.affine, rtol=1e-5, atol=1e-4))
    mine, other = same_place(layer), same_place(image)
    return all(np.allclose(mine[key], other[key], rtol=1e-6, atol=1e-6) for key in ("scale", "translate"))


def other_grids(layers: Iterable[Layer], volume: Volume) -> list[tuple[Layer, Volume]]:
    """The layers that lie on another grid than a volume, with theirs."""
    found = []
    for layer in layers:
        known = layer.metadata.get(VOLUME_KEY)
        if isinstance(known, Volume) and layer_shape(layer) == known.shape and not same_grid(known, volume):
            found.append((layer, known))
    return found


def same_grid(one: Volume, other: Volume) -> bool:
    """Whether two volumes have the same voxels in the patient."""
    return one.shape == other.shape and bool(np.allclose(one.affine, other.affine, rtol=1e-5, atol=1e-4))


def labels_on(layers: Iterable[Layer], volume: Volume, image: Layer) -> list[Labels]:
    """The labels layers that lie on an image's volume."""
    return [layer for layer in layers if isinstance(layer, Labels) and lies_on(layer, volume, image)]


def label_attributes(layer: Labels) -> dict[str, Any]:
    """Of a labels layer what names and colours of its labels are made from."""
    return {"features": layer.features, "colormap": layer.colormap}


def snapshot(layer: Labels) -> np.ndarray:
    """A labels layer's values as they are now, for a worker. Raises UnsupportedVolume for a pyramid of resolutions."""
    if layer.multiscale:
        raise UnsupportedVolume(f"{layer.name} has several resolutions; expected one. Export its finest level first.")
    return np.array(layer.data)


def _percentile_windows(volume: Volume) -> list[Window]:
    return [robust_window(volume.data, low_percent=cut, high_percent=100 - cut) for cut in _PERCENTILES]
