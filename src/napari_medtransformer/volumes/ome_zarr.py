"""OME-Zarr images (versions 0.4 and 0.5): the finest level as a volume, time or channels as frames.

Format: ngff.openmicroscopy.org. It knows scale and translation but no patient, so volumes are taken as upright.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from napari_medtransformer.errors import UnreadableFile, UnsupportedVolume
from napari_medtransformer.volumes import geometry
from napari_medtransformer.volumes.guard import check_memory, decoding
from napari_medtransformer.volumes.volume import Decoded, FileGrid

_MILLIMETRES = {
    "nanometer": 1e-6,
    "micrometer": 1e-3,
    "millimeter": 1.0,
    "centimeter": 10.0,
    "meter": 1000.0,
    "angstrom": 1e-7,
}


def is_ome_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group or array, by the names in it."""
    return path.is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zattrs", ".zgroup"))


def read_ome_zarr(path: Path) -> Decoded:
    """The finest level of the first image; file order (z, y, x), or (y, x), with time or channels last.

    Raises UnreadableFile or UnsupportedVolume.
    """
    with decoding(path):
        import zarr

        group = zarr.open_group(path, mode="r")
        attributes = dict(group.attrs)
        described = attributes.get("ome", attributes).get("multiscales")
        if not described:
            raise UnreadableFile(f"{path.name} is a Zarr folder without an OME image. Open one of its images.")
        image = described[0]
        finest = image["datasets"][0]
        level = group[finest["path"]]
        if 0 in level.shape:
            raise UnsupportedVolume(f"{path.name} is empty: {' × '.join(map(str, level.shape))} voxels.")
        check_memory(path, math.prod(level.shape) * level.dtype.itemsize)
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in image["axes"]]
        scale, offset = _placement(finest, axes)
        array = np.asarray(level[...])
    names = [axis["name"].lower() for axis in axes]
    spatial = [names.index(name) for name in ("z", "y", "x") if name in names]
    others = [axis for axis in range(array.ndim) if axis not in spatial]
    if len(names) != array.ndim or len(spatial) < 2:
        raise UnsupportedVolume(f"{path.name} has axes {', '.join(names)}; expected z, y, x among them.")
    many = [axis for axis in others if array.shape[axis] > 1]
    if len(many) > 1:
        raise UnsupportedVolume(
            f"{path.name} has both time and channels ({', '.join(f'{names[a]}: {array.shape[a]}' for a in many)}); "
            f"expected at most one of them. Export one."
        )
    array = array.transpose(*spatial, *others)
    array = array.reshape(*array.shape[: len(spatial)], -1)
    if len(spatial) == 2:
        array, scale, offset = array[np.newaxis], np.append(1.0, scale), np.append(0.0, offset)
    warnings.warn(f"{path.name} says nothing about the patient: taken as upward, backward, leftward.", stacklevel=4)
    z, y, x = array.shape[:3]
    affine = geometry.upright_affine((1, 1, 1), scale)
    affine[:3, 3] = affine[:3, :3] @ (offset / scale)
    return Decoded(array, FileGrid(path, "zarr", (z, y, x), affine, (z, y, x)))


def _placement(dataset: dict[str, Any], axes: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Scale and translation of the spatial axes in mm. A unit left out counts as micrometres, as in microscopy."""
    factors, offsets = np.ones(len(axes)), np.zeros(len(axes))
    for transform in dataset.get("coordinateTransformations", []):
        if transform["type"] == "scale":
            factors *= np.asarray(transform["scale"], float)
            offsets *= np.asarray(transform["scale"], float)
        elif transform["type"] == "translation":
            offsets += np.asarray(transform["translation"], float)
    names = [axis["name"].lower() for axis in axes]
    spatial = [names.index(name) for name in ("z", "y", "x") if name in names]
    units = np.array([_MILLIMETRES.get(axes[axis].get("unit", "micrometer"), 1.0) for axis in spatial])
    if not (factors[spatial] > 0).all():
        raise UnsupportedVolume(f"its scale is {factors[spatial].tolist()}; expected numbers above 0")
    return factors[spatial] * units, offsets[spatial] * units
