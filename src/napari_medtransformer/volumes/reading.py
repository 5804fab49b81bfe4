"""Read an image file as a Volume in the canonical frame, whatever its format."""

from __future__ import annotations

import difflib
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from napari_medtransformer.errors import UnreadableFile, UnsupportedVolume, in_words
from napari_medtransformer.given import flag, one_of, whole
from napari_medtransformer.volumes.intensity import Modality, guess_modality
from napari_medtransformer.volumes.label_table import Label
from napari_medtransformer.volumes.lazy import Finite, LazyArray, as_array, frame_of, lazy_of
from napari_medtransformer.volumes.volume import Decoded, Volume

NIFTI_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img", ".img.gz", ".hdr.gz")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima", ".zip")
NUMPY_SUFFIXES = (".npy", ".npz")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
# Values of a large file that are looked at for NaN on opening.
_SAMPLED_VALUES = 500_000
# Labels that were saved through a slope miss whole numbers by half a step, at most: of 255 steps from 0 to 10 (uint8).
_NEARLY_WHOLE = 0.02
READABLE_SUFFIXES = NIFTI_SUFFIXES + ITK_SUFFIXES + DICOM_SUFFIXES + NUMPY_SUFFIXES + PICTURE_SUFFIXES


def read_volume(
    path: str | os.PathLike[str],
    *,
    modality: Modality | None = None,
    series: int | str | None = None,
    frame: int | None = None,
    resample: bool = False,
) -> Volume:
    """Read one image as a volume: (z, y, x), axes growing toward Superior, Posterior, Left.

    path: NIfTI, NRRD, MHA/MHD, DICOM (a folder, a file with or without suffix, a zip), .npy/.npz, PNG, JPEG,
    TIFF or an OME-Zarr folder.
    modality: None takes the header's, or guesses CT from its Hounsfield values. series: which one of a DICOM folder, by
    its place in the list that the error gives, or by its UID. frame: which time point or channel of a 4D file, from 0.
    resample: interpolate unevenly spaced DICOM slices instead of refusing them.
    NaN and infinite voxels become the lowest and highest finite values, with a warning. Uncompressed files are mapped;
    from 256 MB on, `data` is a LazyArray (volumes/lazy.py), and so it is for an OME-Zarr.
    Raises UnreadableFile (missing, damaged, another format), UnsupportedVolume (dimensions, types, geometry) or
    InvalidOption.
    """
    file = existing(path)
    if modality is not None:
        one_of(modality, get_args(Modality), "a modality")
    if frame is not None:
        frame = whole(frame, "a frame", UnsupportedVolume)
    decoded = _decode(file, _series(series), flag(resample, "whether slices are resampled"))
    return _volume(decoded, file, frame, modality)


def read_frames(path: str | os.PathLike[str], *, series: int | str | None = None) -> list[Volume]:
    """Every time point or channel of a file as a volume, in order; a single one for a 3D file. Arguments and errors
    as for read_volume."""
    file = existing(path)
    decoded = _decode(file, _series(series), False)
    array = decoded.array
    if array.ndim != 4 or array.shape[3] == 1:
        return [_volume(decoded, file, None, None)]
    return [_volume(decoded, file, frame, None) for frame in range(array.shape[3])]


def read_labels(path: str | os.PathLike[str], *, frame: int | None = None) -> Volume:
    """Read a label file as a volume of unsigned integers (z, y, x): 0 is background.

    path: as for read_volume, or a DICOM-SEG. Numbers stored as floating point are converted. Segments in layers
    (.seg.nrrd) become one volume, the later over the earlier, with a warning. frame: which one of a 4D file, from 0.
    Raises UnreadableFile, or UnsupportedVolume if the values are no labels (negative or fractional).
    """
    file = existing(path)
    if frame is not None:
        frame = whole(frame, "a frame", UnsupportedVolume)
    decoded = _decode_labels(file)
    data = decoded.grid.to_canonical(_spatial(_flat(decoded.array, file), file, frame))
    if data.dtype.kind == "f":
        data = _nearly_whole(data, file)
    low, high = data.min(), data.max()
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or (data.dtype.kind == "f" and (data % 1 != 0).any()):
        raise UnsupportedVolume(
            f"{file.name} holds no labels: its values run from {low:g} to {high:g} and are not whole numbers from 0. "
            f"Open it as an image."
        )
    if data.dtype.kind != "u":
        data = data.astype(np.min_scalar_type(int(high)))
    whole_file = decoded.array.size == data.size  # and so nothing is lost when other labels replace it
    return Volume(data, decoded.grid.affine, "unknown", replace(decoded.grid, labels=whole_file))


def read_label_names(path: str | os.PathLike[str]) -> list[Label]:
    """The names and colours that a label file itself holds (.seg.nrrd, DICOM-SEG); empty for other formats."""
    file = existing(path)
    if has_suffix(file, (".nrrd",)):
        from napari_medtransformer.volumes.nrrd import read_segments

        return read_segments(file)
    if file.is_file() and not has_suffix(file, NIFTI_SUFFIXES + ITK_SUFFIXES + NUMPY_SUFFIXES + PICTURE_SUFFIXES):
        from napari_medtransformer.volumes.dicom_headers import is_dicom
        from napari_medtransformer.volumes.dicom_seg import read_dicom_segments

        return read_dicom_segments(file) if is_dicom(file) else []
    return []


def existing(path: str | os.PathLike[str]) -> Path:
    """`path` if something readable is there. Raises UnreadableFile that names near matches in its folder."""
    try:
        file = Path(path)
    except TypeError as error:
        raise UnreadableFile(f"{in_words(path)} is no path of a file or folder; give a text or a Path.") from error
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableFile(f"there is no file {file}.{_near_matches(file)}") from None
    except (OSError, ValueError) as error:  # no permission, a loop of links, a null character
        reason = getattr(error, "strerror", None) or error
        raise UnreadableFile(f"{file} cannot be opened: {reason}.") from error
    if not (file.is_file() or file.is_dir()):
        raise UnreadableFile(f"{file} is neither a file nor a folder. Choose an image file or a DICOM folder.")
    needed = os.R_OK | os.X_OK if file.is_dir() else os.R_OK
    if not os.access(file, needed):  # decoders would say that it is of no format they know
        raise UnreadableFile(f"{file} cannot be opened: no permission to read it. Ask whoever owns it.")
    return file


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether the name ends in one of `suffixes`, in any case."""
    return path.name.lower().endswith(suffixes)


def _decode(file: Path, series: int | str | None, resample: bool) -> Decoded:
    """The file through the reader of its format. Decoders are imported when they are needed."""
    if file.is_dir():
        from napari_medtransformer.volumes.ome_zarr import is_ome_zarr, read_ome_zarr

        if is_ome_zarr(file):
            _refuse_series(file, series)
            return read_ome_zarr(file)
    if file.is_dir() or has_suffix(file, DICOM_SUFFIXES) or not has_suffix(file, READABLE_SUFFIXES):
        from napari_medtransformer.volumes.dicom import read_dicom
        from napari_medtransformer.volumes.dicom_headers import is_dicom

        if not (file.is_dir() or has_suffix(file, DICOM_SUFFIXES) or is_dicom(file)):
            raise UnreadableFile(
                f"{file.name} is not a volume; expected a DICOM file or folder, or a name that ends in "
                f"{', '.join(READABLE_SUFFIXES)}."
            )
        return read_dicom(file, series=series, resample=resample)
    _refuse_series(file, series)
    if has_suffix(file, NIFTI_SUFFIXES):
        from napari_medtransformer.volumes.nifti import read_nifti

        return read_nifti(file)
    if has_suffix(file, ITK_SUFFIXES):
        from napari_medtransformer.volumes.metaimage import read_meta
        from napari_medtransformer.volumes.nrrd import read_nrrd

        return read_nrrd(file) if has_suffix(file, (".nrrd", ".nhdr")) else read_meta(file)
    from napari_medtransformer.volumes.arrays import read_numpy, read_picture

    return read_numpy(file) if has_suffix(file, NUMPY_SUFFIXES) else read_picture(file)


def _series(given: int | str | None) -> int | str | None:
    """A series' UID, or its place in the list. Raises InvalidOption."""
    return given if given is None or isinstance(given, str) else whole(given, "a series, unless by its UID,")


def _refuse_series(file: Path, series: int | str | None) -> None:
    if series is not None:
        raise UnsupportedVolume(f"{file.name} is no DICOM and so has no series {series}. Leave series out.")


def _decode_labels(file: Path) -> Decoded:
    """A DICOM-SEG or any other file that holds labels."""
    if file.is_file() and (has_suffix(file, DICOM_SUFFIXES) or not has_suffix(file, READABLE_SUFFIXES)):
        from napari_medtransformer.volumes.dicom_headers import is_dicom
        from napari_medtransformer.volumes.dicom_seg import read_dicom_seg

        if is_dicom(file):
            return read_dicom_seg(file)
    return _decode(file, None, False)


def _nearly_whole(data: np.ndarray, file: Path) -> np.ndarray:
    """Labels that a slope left a little beside whole numbers, rounded with a warning; others as they are."""
    with np.errstate(invalid="ignore"):  # infinities, which are refused
        rounded = np.rint(data)
        off = np.abs(data - rounded).max()
    if not 0 < off <= _NEARLY_WHOLE or not rounded.any():
        return data
    warnings.warn(f"{file.name} holds values up to {off:.2g} beside whole numbers; they were rounded.", stacklevel=3)
    return rounded


def _flat(array: np.ndarray, file: Path) -> np.ndarray:
    """The layers of a .seg.nrrd as one array of labels; any other as it is."""
    if array.ndim < 4 or not has_suffix(file, (".nrrd",)):
        return array
    from napari_medtransformer.volumes.nrrd import flat_segments

    return flat_segments(array, file)


def _volume(decoded: Decoded, file: Path, frame: int | None, modality: Modality | None) -> Volume:
    """The canonical volume of what was decoded, or of one frame of it."""
    data = _without_nan(decoded.grid.to_canonical(_spatial(decoded.array, file, frame)), file)
    coarser = tuple(decoded.grid.to_canonical(_spatial(level, file, frame)) for level in decoded.coarser)
    modality = modality or decoded.modality or guess_modality(data)
    return Volume(data, decoded.grid.affine, modality, decoded.grid, decoded.window, coarser)


def _spatial(array: np.ndarray, file: Path, frame: int | None) -> np.ndarray:
    """The array with exactly three axes: one slice for 2D, trailing axes of length 1 dropped, one frame of 4D."""
    shape = array.shape
    if array.ndim < 2:
        raise UnsupportedVolume(
            f"{file.name} has 1 dimension {shape}: a row of numbers and no image; expected 3 (or 2 for one slice). "
            f"Reshape it to what it was first."
        )
    while array.ndim > 3 and array.shape[-1] == 1:
        array = frame_of(array, 0)
    while array.ndim < 3:
        array = array[..., np.newaxis]
    if array.ndim == 3 and frame in (None, 0):
        return array
    if array.ndim == 4 and frame is not None and 0 <= frame < array.shape[3]:
        return frame_of(array, frame)
    if array.ndim == 4:
        said = "it has time points or channels" if frame is None else f"it has no frame {frame}"
        raise UnsupportedVolume(
            f"{file.name} has 4 dimensions {shape}; expected 3: {said}. "
            f"Choose one with frame=0 to {array.shape[3] - 1}."
        )
    if array.ndim == 3:
        raise UnsupportedVolume(f"{file.name} has 3 dimensions {shape} and so no frame {frame}. Leave frame out.")
    raise UnsupportedVolume(
        f"{file.name} has {len(shape)} dimensions {shape}; expected 3, or 4 with time or channels last. "
        f"Split it first, e.g. with nibabel.funcs.four_to_three."
    )


def _without_nan(data: np.ndarray, file: Path) -> np.ndarray:
    """`data` with NaN and infinities replaced by finite values, and a warning if there were any."""
    if data.dtype.kind != "f":
        return data
    lazy = lazy_of(data)
    if lazy is not None:
        return _finite_as_read(lazy, file)
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


def _finite_as_read(data: LazyArray, file: Path) -> np.ndarray:
    """The same, for an array that is not read now: by its sample's extremes, and with a warning if that has any."""
    sample = data.sample(_SAMPLED_VALUES)
    finite = sample[np.isfinite(sample)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if finite.size < sample.size:
        warnings.warn(
            f"{file.name} has voxels that are NaN or infinite; used as {low:g} (NaN, -inf) or {high:g} (inf).",
            stacklevel=4,
        )
    return as_array(data.with_source(Finite(data.source, low, high)))


def _near_matches(file: Path) -> str:
    """A sentence with names like `file`'s in its folder; empty if there is none."""
    try:
        names = sorted(entry.name for entry in os.scandir(file.parent))
    except OSError:
        return f" There is no folder {file.parent} either." if not file.parent.exists() else ""
    near = difflib.get_close_matches(file.name, names, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(near)}?" if near else ""
