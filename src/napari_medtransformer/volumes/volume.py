"""The records of an image in patient space: a volume in canonical order, and the file's grid that it came from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from napari_medtransformer.errors import InvalidOption, UnsupportedVolume, in_words
from napari_medtransformer.given import one_of, record, text, wholes
from napari_medtransformer.volumes import geometry
from napari_medtransformer.volumes.geometry import AxisOrder, LayerPlacement
from napari_medtransformer.volumes.intensity import Modality, Window, default_window
from napari_medtransformer.volumes.lazy import lazy_of
from napari_medtransformer.volumes.numbers import numbers


@dataclass(frozen=True, eq=False)
class FileGrid:
    """The grid of the file that a volume was read from: what is written for this volume lands exactly on it.

    path: the file or folder. format: 'nifti', 'dicom', 'nrrd', 'metaimage', 'numpy', 'image', 'zarr',
    or 'memory' for a volume that no file was read for.
    shape: voxels per file axis (i, j, k). affine_ijk: (4, 4), file index to RAS mm.
    file_shape: the array's shape in the file where it differs from `shape`, as in (i, j, k, 1) or (i, j).
    header: what of the file's header says where the grid lies, written back bit for bit: the whole header of NIfTI,
    the lines on geometry of NRRD and MetaImage; empty for other formats.
    files: the file of every slice along k for DICOM, empty for other formats.
    labels: whether the file holds the labels that were read from it and nothing else; edited ones may replace it.
    """

    path: Path
    format: str
    shape: tuple[int, int, int]
    affine_ijk: np.ndarray
    file_shape: tuple[int, ...]
    header: bytes = b""
    files: tuple[Path, ...] = ()
    labels: bool = False

    def __post_init__(self) -> None:
        record(self.path, Path, "the Path of a file or folder", UnsupportedVolume)
        text(self.format, "a file's format", UnsupportedVolume)
        for what in (self.shape, self.file_shape):
            wholes(what, f"the axes of {self.path.name}", UnsupportedVolume)
        affine = numbers(self.affine_ijk, f"the affine of {self.path.name}")
        fault = geometry.geometry_fault(affine)
        if fault is not None:
            raise UnsupportedVolume(f"{self.path.name} has no usable geometry: {fault}. Correct its header first.")
        object.__setattr__(self, "affine_ijk", _frozen(affine))

    @cached_property
    def order(self) -> AxisOrder:
        """The permutation and flips between file order and (z, y, x)."""
        if self.format == "memory":  # its maker chose the axes
            return AxisOrder((2, 1, 0), (False, False, False))
        return geometry.canonical_order(self.affine_ijk)

    @cached_property
    def affine(self) -> np.ndarray:
        """(4, 4), canonical (z, y, x, 1) to RAS mm."""
        return _frozen(geometry.canonical_affine(self.affine_ijk, self.shape, self.order))

    def to_canonical(self, array_ijk: np.ndarray) -> np.ndarray:
        """An array (i, j, k, ...) in file order as (z, y, x, ...); a view."""
        return geometry.canonical_view(array_ijk, self.order)

    def to_file_order(self, array_zyx: np.ndarray) -> np.ndarray:
        """An array (z, y, x, ...) in file order (i, j, k, ...); a view."""
        return geometry.file_view(array_zyx, self.order)

    def file_index(self, zyx: Any) -> np.ndarray:
        """Canonical coordinates (..., 3) as file coordinates (i, j, k); integers stay integers."""
        return geometry.file_index(np.asarray(zyx), self.shape, self.order)

    def zyx_from_file_index(self, ijk: Any) -> np.ndarray:
        """File coordinates (..., 3) as canonical coordinates (z, y, x); integers stay integers."""
        return geometry.zyx_index(np.asarray(ijk), self.shape, self.order)

    def zyx_from_mm(self, ras: Any) -> np.ndarray:
        """Patient positions (..., 3) in RAS mm as canonical coordinates, floating point, not rounded."""
        return geometry.apply_affine(np.linalg.inv(self.affine), np.asarray(ras))

    def mm_from_zyx(self, zyx: Any) -> np.ndarray:
        """Canonical coordinates (..., 3) as patient positions in RAS mm."""
        return geometry.apply_affine(self.affine, np.asarray(zyx))


@dataclass(frozen=True, eq=False)
class Decoded:
    """What the reader of a format hands over.

    array: file order (i, j, k), fewer axes for a picture, time or channels last. modality and window: what the header
    says; None where it says nothing. coarser: a file's levels of lower resolution, each smaller, axes as in `array`.
    """

    array: np.ndarray
    grid: FileGrid
    modality: Modality | None = None
    window: Window | None = None
    coarser: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D image in patient space.

    data: (z, y, x), native intensities (HU for CT), in memory, mapped from the file, or for a large file a LazyArray
    that reads what is indexed; axes grow toward Superior, Posterior, Left as nearly as the grid allows.
    affine: (4, 4), homogeneous (z, y, x, 1) to RAS mm.
    source: the file's grid; None for a volume made in memory, which is written as (x, y, z) on its canonical grid.
    requested_window: the window the file asks for (DICOM), shown first. coarser: the same field at lower resolutions,
    to show zoomed out.
    Raises UnsupportedVolume for an array that is no volume or an affine that is no geometry.
    """

    data: np.ndarray
    affine: np.ndarray
    modality: Modality = "unknown"
    source: FileGrid | None = None
    requested_window: Window | None = None
    coarser: tuple[np.ndarray, ...] = ()

    def __post_init__(self) -> None:
        if self.source is not None:
            record(self.source, FileGrid, "the FileGrid of the file, or None", UnsupportedVolume)
        name = "the volume" if self.source is None else self.source.path.name
        if lazy_of(self.data) is None:
            object.__setattr__(self, "data", numbers(self.data, name))
        if self.data.ndim != 3:
            raise UnsupportedVolume(f"{name} has {self.data.ndim} dimensions {self.data.shape}; expected 3 (z, y, x).")
        if self.data.size == 0:
            raise UnsupportedVolume(f"{name} is empty: {' × '.join(map(str, self.data.shape))} voxels.")
        affine = numbers(self.affine, f"the affine of {name}")
        fault = geometry.geometry_fault(affine)
        if fault is not None:
            raise UnsupportedVolume(f"{name} has no usable geometry: {fault}. Correct its header first.")
        object.__setattr__(self, "affine", _frozen(affine))
        one_of(self.modality, get_args(Modality), "a modality", UnsupportedVolume)
        if self.requested_window is not None:
            record(self.requested_window, Window, f"a Window for {name}, or None", UnsupportedVolume)
        if not isinstance(self.coarser, tuple):
            raise UnsupportedVolume(f"coarser levels are a tuple of arrays, not {in_words(self.coarser)}.")

    @classmethod
    def from_array(
        cls, data: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), modality: Modality = "unknown"
    ) -> Volume:
        """A volume made in memory, upright and centred on the origin. data: (z, y, x). spacing: (dz, dy, dx) in mm.

        Raises UnsupportedVolume, also for a spacing that is not three millimetres above 0.
        """
        array = data if lazy_of(data) is not None else numbers(data, "the volume")
        steps = numbers(spacing, "the spacing")
        if steps.shape != (3,) or not (np.isfinite(steps).all() and (steps > 0).all()):
            raise UnsupportedVolume(
                f"the spacing is {in_words(spacing)}; expected three millimetres above 0, (dz, dy, dx)."
            )
        # an array of other dimensions is refused in words by the constructor
        shape = array.shape if array.ndim == 3 else (1, 1, 1)
        return cls(array, geometry.upright_affine(shape, steps), modality)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        z, y, x = self.data.shape
        return z, y, x

    @property
    def name(self) -> str:
        """The file's name without suffix, for layers and messages; 'volume' for one made in memory."""
        return "volume" if self.source is None else stem(self.source.path)

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """(dz, dy, dx) between voxel centres, in mm."""
        return geometry.spacing_of(self.affine)

    @cached_property
    def is_oblique(self) -> bool:
        """Whether the grid is tilted against the patient's axes."""
        return geometry.is_oblique(self.affine)

    @cached_property
    def placement(self) -> LayerPlacement:
        """Scale and translate of every layer on this volume's grid, in mm."""
        return geometry.layer_placement(self.affine)

    @cached_property
    def direction_letters(self) -> tuple[tuple[str, str], tuple[str, str], tuple[str, str]]:
        """The patient directions at the start and the end of z, y, x; upright (('I', 'S'), ('A', 'P'), ('R', 'L'))."""
        return geometry.direction_letters(self.affine)

    @cached_property
    def window(self) -> Window:
        """The window to show and to give to a model unless told otherwise."""
        return self.requested_window or default_window(self.data, self.modality)

    @cached_property
    def grid(self) -> FileGrid:
        """The grid to write on: the file's own, or for a volume made in memory (x, y, z) growing to L, P, S."""
        if self.source is not None:
            return self.source
        z, y, x = self.shape
        affine_xyz = self.affine[:, [2, 1, 0, 3]]
        return FileGrid(Path(self.name), "memory", (x, y, z), affine_xyz, (x, y, z))

    def mm_from_zyx(self, zyx: Any) -> np.ndarray:
        """Canonical coordinates (..., 3) as patient positions in RAS mm. Raises InvalidOption."""
        return geometry.apply_affine(self.affine, _positions(zyx))

    def zyx_from_mm(self, ras: Any) -> np.ndarray:
        """Patient positions (..., 3) in RAS mm as canonical coordinates, floating point, not rounded.

        Raises InvalidOption.
        """
        return geometry.apply_affine(np.linalg.inv(self.affine), _positions(ras))

    def contains(self, zyx: Any) -> bool:
        """Whether a coordinate (z, y, x) lies in a voxel of this volume; integers are voxel centres.

        Raises InvalidOption.
        """
        point = _positions(zyx)
        return bool(np.all(point >= -0.5) and np.all(point < np.asarray(self.shape) - 0.5))


def _positions(given: Any) -> np.ndarray:
    """(..., 3) positions. Raises InvalidOption for what has no three numbers each."""
    positions = numbers(given, "a position", InvalidOption)
    if positions.ndim == 0 or positions.shape[-1] != 3:
        raise InvalidOption(f"a position has three coordinates, not {in_words(given)}.")
    return positions


def check_volume(given: object) -> None:
    """Raises UnsupportedVolume, which says how to make one, for anything but a Volume."""
    if not isinstance(given, Volume):
        raise UnsupportedVolume(
            f"a {type(given).__name__} is no Volume; read one by read_volume(path), or make one of an array by "
            "Volume.from_array(array, spacing)."
        )


def stem(path: Path) -> str:
    """A file's name without its suffix, both of them for '.nii.gz' and '.seg.nrrd'."""
    name = path.name
    for suffix in (".nii.gz", ".seg.nrrd"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem or name


def _frozen(affine: np.ndarray) -> np.ndarray:
    """A float64 copy that cannot be changed by accident."""
    copy = np.array(affine, dtype=np.float64)
    copy.flags.writeable = False
    return copy
