"""OME-Zarr images (versions 0.4 and 0.5): the finest level as a volume, time or channels as frames.

Format: ngff.openmicroscopy.org. It knows scale and translation but no patient, so volumes are taken as upright.
Nothing but chunks that are looked at is read, and coarser levels are handed on for zoomed-out views.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_medtransformer.errors import UnreadableFile, UnsupportedVolume
from napari_medtransformer.volumes import geometry
from napari_medtransformer.volumes.guard import check_memory, decoding
from napari_medtransformer.volumes.kept import Kept
from napari_medtransformer.volumes.lazy import LAZY_BYTES, LazyArray, Selection, as_array
from napari_medtransformer.volumes.volume import Decoded, FileGrid

# Units of length of the specification (names of UDUNITS-2), and signs in use for the common ones.
_MILLIMETRES = {
    "angstrom": 1e-7,
    "picometer": 1e-9,
    "nanometer": 1e-6,
    "micrometer": 1e-3,
    "micron": 1e-3,
    "millimeter": 1.0,
    "centimeter": 10.0,
    "decimeter": 100.0,
    "meter": 1000.0,
    "inch": 25.4,
    "foot": 304.8,
    "yard": 914.4,
    "pm": 1e-9,
    "nm": 1e-6,
    "um": 1e-3,
    "\N{MICRO SIGN}m": 1e-3,
    "\N{GREEK SMALL LETTER MU}m": 1e-3,
    "mm": 1.0,
    "cm": 10.0,
    "m": 1000.0,
}


def is_ome_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group or array, by the names in it."""
    return path.is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zattrs", ".zgroup"))


def read_ome_zarr(path: Path) -> Decoded:
    """The finest level of the first image; file order (z, y, x), or (y, x), with time or channels last.

    From LAZY_BYTES on it is read chunk by chunk as it is looked at, and coarser levels come with it.
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
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in image["axes"]]
        # those of the image come after those of the level
        steps = [*finest.get("coordinateTransformations", []), *image.get("coordinateTransformations", [])]
        scale, offset, has_units = _placement(steps, axes, path)
        levels = [group[dataset["path"]] for dataset in image["datasets"]]
        shape = tuple(int(n) for n in levels[0].shape)
        if 0 in shape:
            raise UnsupportedVolume(f"{path.name} is empty: {' × '.join(map(str, shape))} voxels.")
        names = [axis["name"].lower() for axis in axes]
        spatial = [names.index(name) for name in ("z", "y", "x") if name in names]
        others = [axis for axis in range(len(shape)) if axis not in spatial]
        if len(names) != len(shape) or len(spatial) < 2:
            raise UnsupportedVolume(f"{path.name} has axes {', '.join(names)}; expected z, y, x among them.")
        many = [axis for axis in others if shape[axis] > 1]
        if len(many) > 1:
            raise UnsupportedVolume(
                f"{path.name} has both time and channels ({', '.join(f'{names[a]}: {shape[a]}' for a in many)}); "
                f"expected at most one of them. Export one."
            )
        lazily = math.prod(shape) * levels[0].dtype.itemsize >= LAZY_BYTES and len(spatial) == 3
        array = _level(levels[0], spatial, others, path, lazily=lazily)
        coarser = _coarser(levels, spatial, others, path) if lazily else ()
    if len(spatial) == 2:
        scale, offset = np.append(1.0, scale), np.append(0.0, offset)
    unit = "" if has_units else ", in micrometres (it states no unit of length)"
    warnings.warn(
        f"{path.name} says nothing about the patient: taken as upward, backward, leftward{unit}.", stacklevel=4
    )
    z, y, x = array.shape[:3]
    affine = geometry.upright_affine((1, 1, 1), scale)
    affine[:3, 3] = affine[:3, :3] @ (offset / scale)
    return Decoded(array, FileGrid(path, "zarr", (z, y, x), affine, (z, y, x)), coarser=coarser)


class ZarrLevel:
    """A Zarr array as a source."""

    def __init__(self, array: Any, path: Path) -> None:
        self._array, self._path = array, path
        self.shape: tuple[int, ...] = tuple(int(n) for n in array.shape)
        self.dtype: np.dtype = np.dtype(array.dtype).newbyteorder("=")
        self.blocks: tuple[int, ...] = tuple(int(n) for n in array.chunks)

    def read(self, selection: Selection) -> np.ndarray:
        """Raises UnreadableFile for a damaged chunk."""
        with decoding(self._path):
            return np.asarray(self._array[selection], dtype=self.dtype)


def _level(level: Any, spatial: Sequence[int], others: Sequence[int], path: Path, *, lazily: bool) -> np.ndarray:
    """A level as (z, y, x) or (z, y, x, frame): a 2D one gets a first axis, other axes of length 1 vanish."""
    shape = tuple(int(n) for n in level.shape)
    if not lazily:
        check_memory(path, math.prod(shape) * level.dtype.itemsize)
        array = np.asarray(level[...]).transpose(*spatial, *others)
        array = array.reshape(*array.shape[: len(spatial)], -1)
        return array[np.newaxis] if len(spatial) == 2 else array
    kept = [axis for axis in others if shape[axis] > 1]
    source = ZarrLevel(level, path)
    lazy = LazyArray(Kept(source, source.blocks)).transpose(*spatial, *kept, *(a for a in others if a not in kept))
    while lazy.ndim > 3 + len(kept):
        lazy = lazy.fixed(lazy.ndim - 1, 0)
    return as_array(lazy)


def _coarser(
    levels: Sequence[Any], spatial: Sequence[int], others: Sequence[int], path: Path
) -> tuple[np.ndarray, ...]:
    """The further levels as `_level`, as long as each is smaller than the one before and has as many frames."""
    found: list[np.ndarray] = []
    for before, level in itertools.pairwise(levels):
        same_frames = len(level.shape) == len(before.shape) and all(level.shape[a] == before.shape[a] for a in others)
        if not same_frames or math.prod(level.shape) >= math.prod(before.shape) or 0 in level.shape:
            break
        found.append(_level(level, spatial, others, path, lazily=True))
    return tuple(found)


def _placement(
    steps: Sequence[dict[str, Any]], axes: list[dict[str, Any]], path: Path
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Scale and translation of the spatial axes in mm, and whether their units are stated; else micrometres."""
    factors, offsets = np.ones(len(axes)), np.zeros(len(axes))
    for transform in steps:
        if transform["type"] == "scale":
            factors *= np.asarray(transform["scale"], float)
            offsets *= np.asarray(transform["scale"], float)
        elif transform["type"] == "translation":
            offsets += np.asarray(transform["translation"], float)
    names = [axis["name"].lower() for axis in axes]
    spatial = [names.index(name) for name in ("z", "y", "x") if name in names]
    stated = [str(axes[axis].get("unit") or "") for axis in spatial]
    unknown = [unit for unit in stated if unit and unit not in _MILLIMETRES]
    if unknown:
        raise UnsupportedVolume(f"{path.name} states its size in “{unknown[0]}”, which is no known unit of length.")
    units = np.array([_MILLIMETRES[unit or "micrometer"] for unit in stated])
    if not (factors[spatial] > 0).all():
        raise UnsupportedVolume(f"its scale is {factors[spatial].tolist()}; expected numbers above 0")
    return factors[spatial] * units, offsets[spatial] * units, all(stated)
