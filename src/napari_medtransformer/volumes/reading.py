"""Read an image file as a Volume in the canonical frame, whatever its format."""

from __future__ import annotations

import difflib
import os
import warnings
from pathlib import Path

import numpy as np

from napari_medtransformer.errors import UnreadableFile, UnsupportedVolume
from napari_medtransformer.volumes.intensity import Modality, guess_modality
from napari_medtransformer.volumes.nifti import read_nifti
from napari_medtransformer.volumes.volume import FileGrid, Volume

NIFTI_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img", ".img.gz", ".hdr.gz")
READABLE_SUFFIXES = NIFTI_SUFFIXES
# Mapped floating-point files above this are not searched for NaN on opening: it would read them whole.
_SEARCHED_BYTES = 1 << 30


def read_volume(path: str | os.PathLike[str], *, modality: Modality | None = None) -> Volume:
    """Read one image as a volume: (z, y, x), axes growing toward Superior, Posterior, Left.

    path: NIfTI. modality: None guesses CT from its Hounsfield values. NaN and infinite voxels become the lowest and
    highest finite values, with a warning. Uncompressed files are mapped, not read.
    Raises UnreadableFile (missing, damaged, another format) or UnsupportedVolume (dimensions, types, geometry).
    """
    file = existing(path)
    array, grid = _read_array(file)
    data = _without_nan(grid.to_canonical(_spatial(array, file)), file)
    return Volume(data, grid.affine, modality or guess_modality(data), grid)


def read_labels(path: str | os.PathLike[str]) -> Volume:
    """Read a label file as a volume of unsigned integers (z, y, x): 0 is background.

    Whole numbers stored as floating point are converted. Raises UnreadableFile, or UnsupportedVolume if the values
    are no labels (negative or fractional).
    """
    file = existing(path)
    array, grid = _read_array(file)
    data = grid.to_canonical(_spatial(array, file))
    low, high = data.min(), data.max()
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or (data.dtype.kind == "f" and (data % 1 != 0).any()):
        raise UnsupportedVolume(
            f"{file.name} holds no labels: its values run from {low:g} to {high:g} and are not whole numbers from 0. "
            f"Open it as an image."
        )
    if data.dtype.kind != "u":
        data = data.astype(np.min_scalar_type(int(high)))
    return Volume(data, grid.affine, "unknown", grid)


def existing(path: str | os.PathLike[str]) -> Path:
    """`path` if something readable is there. Raises UnreadableFile that names near matches in its folder."""
    file = Path(path)
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableFile(f"there is no file {file}.{_near_matches(file)}") from None
    except (OSError, ValueError) as error:  # no permission, a loop of links, a null character
        reason = getattr(error, "strerror", None) or error
        raise UnreadableFile(f"{file} cannot be opened: {reason}.") from error
    return file


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether the name ends in one of `suffixes`, in any case."""
    return path.name.lower().endswith(suffixes)


def _read_array(file: Path) -> tuple[np.ndarray, FileGrid]:
    """The array in file order and its grid, by format."""
    if file.is_dir():
        raise UnreadableFile(f"{file} is a folder; expected a file: {', '.join(READABLE_SUFFIXES)}.")
    if not has_suffix(file, READABLE_SUFFIXES):
        raise UnreadableFile(
            f"{file.name} is not a volume; expected a name that ends in {', '.join(READABLE_SUFFIXES)}."
        )
    return read_nifti(file)


def _spatial(array: np.ndarray, file: Path) -> np.ndarray:
    """The array with exactly three axes: one slice for 2D, trailing axes of length 1 dropped."""
    shape = array.shape
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    while array.ndim < 3:
        array = array[..., np.newaxis]
    if array.ndim > 3:
        raise UnsupportedVolume(
            f"{file.name} has {len(shape)} dimensions {shape}; expected 3, or 2 for a single slice. "
            f"Split it first, e.g. with nibabel.funcs.four_to_three."
        )
    return array


def _without_nan(data: np.ndarray, file: Path) -> np.ndarray:
    """`data` with NaN and infinities replaced by finite values, and a warning if there were any."""
    if data.dtype.kind != "f" or (isinstance(data, np.memmap) and data.nbytes > _SEARCHED_BYTES):
        return data
    # A sum is finite only if every value is, unless it overflows: cheap, and no array of flags in the common case.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(data.sum(dtype=np.float64)):
            return data
    finite = np.isfinite(data)
    bad = data.size - int(np.count_nonzero(finite))
    if bad == 0:
        return data
    low, high = (data.min(where=finite, initial=np.inf), data.max(where=finite, initial=-np.inf))
    if bad == data.size:
        low = high = data.dtype.type(0)
    warnings.warn(
        f"{file.name} has {bad} voxels that are NaN or infinite; used as {low:g} (NaN, -inf) or {high:g} (inf).",
        stacklevel=3,
    )
    return np.nan_to_num(data, nan=float(low), neginf=float(low), posinf=float(high))


def _near_matches(file: Path) -> str:
    """A sentence with names like `file`'s in its folder; empty if there is none."""
    try:
        names = sorted(entry.name for entry in os.scandir(file.parent))
    except OSError:
        return f" There is no folder {file.parent} either." if not file.parent.exists() else ""
    near = difflib.get_close_matches(file.name, names, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(near)}?" if near else ""
