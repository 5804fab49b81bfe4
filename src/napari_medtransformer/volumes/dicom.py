"""DICOM images as volumes: a folder, one file or a zip; slices sorted by where they lie, faults said clearly."""

from __future__ import annotations

import itertools
import math
import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np

from napari_medtransformer.errors import UnreadableFile, UnsupportedVolume
from napari_medtransformer.volumes import geometry
from napari_medtransformer.volumes.dicom_headers import (
    Frame,
    Series,
    dicom_files,
    is_dicom,
    is_segmentation,
    read_header,
    read_series,
)
from napari_medtransformer.volumes.dicom_pixels import dicom_pixels
from napari_medtransformer.volumes.guard import GZIP_MOST, decoding, size
from napari_medtransformer.volumes.intensity import Modality, Window
from napari_medtransformer.volumes.volume import Decoded, FileGrid

# Share of the gap by which a slice may lie off its place before the spacing counts as uneven.
_EVEN = 0.05
# Degrees between the stack's direction and the slices' normal above which the gantry counts as tilted.
_TILT_DEGREES = 0.5
# Files looked at to tell whether a folder or zip is DICOM: the first is one unless a report or index comes first.
_LOOKED_AT = 20
_MODALITIES: dict[str, Modality] = {"CT": "CT", "MR": "MR"}


def list_series(path: Path) -> list[Series]:
    """The series of images in a folder or file, in the order in which `series=1`, `2`, ... choose them."""
    files = dicom_files(path) if path.is_dir() else [path]
    return read_series(files)


def read_dicom(path: Path, *, series: int | str | None = None, resample: bool = False) -> Decoded:
    """One series of a folder, a file or a zip; file order (i, j, k) = (column, row, slice), rescaled.

    series: which one, by its place in the list (from 1) or its SeriesInstanceUID; needed where there are several.
    resample: interpolate missing or unevenly spaced slices linearly to an even spacing instead of refusing them.
    Raises UnreadableFile, or UnsupportedVolume that lists the series or says what is wrong with the slices.
    """
    if zipfile.is_zipfile(path) if path.is_file() else False:
        with tempfile.TemporaryDirectory(prefix="medt-") as folder:
            _unpack(path, Path(folder))
            return _read(path, list_series(Path(folder)), series, resample)
    return _read(path, list_series(path), series, resample)


def holds_dicom(path: Path) -> bool:
    """Whether a file is DICOM, or a zip or folder holds some, by a look at its first files. Never raises."""
    try:
        if path.is_dir():
            return any(map(is_dicom, itertools.islice((one for one in path.rglob("*") if one.is_file()), _LOOKED_AT)))
        if not zipfile.is_zipfile(path):
            return is_dicom(path)
        with zipfile.ZipFile(path) as archive:
            for member in itertools.islice((one for one in archive.infolist() if not one.is_dir()), _LOOKED_AT):
                with archive.open(member) as stream:
                    if stream.read(132)[128:] == b"DICM":
                        return True
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False  # damaged, locked or compressed in a way zipfile does not know: reading it says so
    return False


def _unpack(archive: Path, folder: Path) -> None:
    """The DICOM files of a zip under names of our own: no name in the archive can lead out of the folder."""
    with decoding(archive), zipfile.ZipFile(archive) as opened:
        held = archive.stat().st_size
        members = [member for member in opened.infolist() if not member.is_dir()]
        promised = sum(member.file_size for member in members)
        if promised > held * GZIP_MOST:
            raise UnreadableFile(f"{archive.name} is damaged: {size(promised)} cannot come out of {size(held)}.")
        for number, member in enumerate(members):
            target = folder / f"{number:06d}"
            left = member.file_size
            with opened.open(member) as source, target.open("wb") as sink:
                while left > 0 and (chunk := source.read(min(left, 1 << 20))):
                    sink.write(chunk)
                    left -= len(chunk)
            if not is_dicom(target):
                target.unlink()


def _read(path: Path, found: list[Series], series: int | str | None, resample: bool) -> Decoded:
    chosen = _choose(path, found, series)
    if "MONOCHROME" not in chosen.photometric:
        raise UnsupportedVolume(
            f"{path.name} holds {chosen.photometric} colours; expected one value per pixel. Export it as greyscale."
        )
    frames, affine_lps, places = _arranged(chosen, path, resample)
    array = dicom_pixels(frames, path)
    if chosen.photometric == "MONOCHROME1":
        warnings.warn(f"{path.name} stores low values as bright (MONOCHROME1); its values were inverted.", stacklevel=4)
    if places is not None:
        array = _interpolated(array, places)
    slices, rows, columns = array.shape
    shape = (columns, rows, slices)
    files = tuple(frame.file for frame in frames) if path.is_dir() or is_dicom(path) else ()
    grid = FileGrid(path, "dicom", shape, geometry.ras_from_lps(affine_lps), shape, files=files)
    window = None
    if chosen.window is not None and chosen.photometric == "MONOCHROME2":
        window = Window.from_level_width(*chosen.window, "DICOM")
    return Decoded(array.transpose(2, 1, 0), grid, _MODALITIES.get(chosen.kind, "unknown"), window)


def _choose(path: Path, found: list[Series], series: int | str | None) -> Series:
    if not found:
        segmentation = _segmentation_in(path)
        if segmentation is not None:
            raise UnreadableFile(
                f"{path.name} holds no DICOM images, only a segmentation. Open the file {segmentation.name} itself, as "
                f"labels."
            )
        raise UnreadableFile(f"{path.name} holds no DICOM images. Choose the folder that has the .dcm files.")
    listed = "; ".join(f"{place}: {one}" for place, one in enumerate(found, 1))
    if series is None:
        if len(found) == 1:
            return found[0]
        raise UnsupportedVolume(f"{path.name} holds {len(found)} series. Choose one with series=NUMBER of: {listed}.")
    if isinstance(series, int) or series.isdecimal():
        if 1 <= int(series) <= len(found):
            return found[int(series) - 1]
    else:
        matching = [one for one in found if one.uid == series]
        if len(matching) == 1:
            return matching[0]
    raise UnsupportedVolume(f"{path.name} has no series {series}. There are: {listed}.")


def _segmentation_in(path: Path) -> Path | None:
    """The first DICOM-SEG of a folder, or the file itself if it is one."""
    for file in dicom_files(path) if path.is_dir() else [path]:
        with decoding(file):
            if is_dicom(file) and is_segmentation(read_header(file)):
                return file
    return None


def _arranged(series: Series, path: Path, resample: bool) -> tuple[list[Frame], np.ndarray, np.ndarray | None]:
    """Frames in order along their normal, the affine from (i, j, k) to LPS mm, and where an uneven stack's planes
    lie in units of the even spacing (None for an even one)."""
    frames = list(series.frames)
    first = frames[0]
    if first.orientation is None or any(frame.position is None for frame in frames):
        return _without_positions(series, path)
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    if abs(row @ column) > 1e-3 or abs(row @ row - 1) > 1e-2 or abs(column @ column - 1) > 1e-2:
        raise UnsupportedVolume(
            f"{path.name} has no usable geometry: its image orientation {first.orientation} is not two perpendicular "
            f"directions. Correct its header first."
        )
    normal = np.cross(row, column)
    positions = np.array([frame.position for frame in frames])
    order = np.argsort(positions @ normal, kind="stable")
    frames, positions = [frames[i] for i in order], positions[order]
    along = positions @ normal
    between_rows, between_columns = _pixel_spacing(first, path)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * between_columns, column * between_rows
    affine[:3, 3] = positions[0]
    if len(frames) == 1:
        affine[:3, 2] = normal * _slice_distance(first, path)
        return frames, affine, None
    gaps = np.diff(along)
    _refuse_duplicates(frames, gaps, path)
    gap = float(np.median(gaps))
    uneven = np.abs(gaps - gap).max() > _EVEN * gap
    if uneven and not resample:
        raise UnsupportedVolume(_say_uneven(path, along, gaps, gap))
    if uneven:
        # Divided where that is the finest gap, so that no slice is skipped.
        step = float(gaps.min()) if gaps.min() > gap / 2 else gap
        affine[:3, 2] = (positions[-1] - positions[0]) / (along[-1] - along[0]) * step
        warnings.warn(f"{path.name}: unevenly spaced slices were interpolated to {step:g} mm.", stacklevel=5)
        return frames, affine, (along - along[0]) / step
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(frames) - 1)
    _check_line(positions, gap, path)
    tilt = math.degrees(
        math.acos(min(1.0, gap * (len(frames) - 1) / float(np.linalg.norm(positions[-1] - positions[0]))))
    )
    if tilt > _TILT_DEGREES:
        warnings.warn(
            f"{path.name} was scanned with a gantry tilted by {tilt:.1f}°: its slices are shifted against each other. "
            f"It is kept on its own grid; resample it for straight distances.",
            stacklevel=5,
        )
    return frames, affine, None


def _without_positions(series: Series, path: Path) -> tuple[list[Frame], np.ndarray, None]:
    """One image without a place in the patient (X-ray, ultrasound): upright, its pixels in mm as far as stated."""
    if len(series.frames) > 1:
        raise UnsupportedVolume(
            f"{path.name} has {len(series.frames)} images without positions in the patient, a film rather than a "
            f"volume. Choose one of its files, or export a single frame."
        )
    frame = series.frames[0]
    between_rows, between_columns = frame.spacing or (1.0, 1.0)
    unknown = "" if frame.spacing else "; its pixels are assumed to be 1 mm"
    warnings.warn(f"{path.name} states no position in the patient{unknown}.", stacklevel=6)
    # Rows run to posterior and columns to the left, as for an axial slice.
    return [frame], np.diag([between_columns, between_rows, frame.thickness or 1.0, 1.0]), None


def _pixel_spacing(frame: Frame, path: Path) -> tuple[float, float]:
    if frame.spacing is None or min(frame.spacing) <= 0:
        raise UnsupportedVolume(
            f"{path.name} has no usable geometry: its pixel spacing is {frame.spacing}. Correct its header first."
        )
    return frame.spacing


def _slice_distance(frame: Frame, path: Path) -> float:
    if frame.thickness is None:
        warnings.warn(f"{path.name} states no slice thickness; assumed 1 mm.", stacklevel=6)
    return frame.thickness or 1.0


def _refuse_duplicates(frames: list[Frame], gaps: np.ndarray, path: Path) -> None:
    same = np.flatnonzero(gaps < 1e-3)
    if same.size:
        pair = " and ".join(f"{frames[i].file.name}" for i in (same[0], same[0] + 1))
        raise UnsupportedVolume(
            f"{path.name} has {same.size} slices that lie where another one does, first {pair}, and nothing in their "
            f"headers tells them apart. Remove one of each."
        )


def _say_uneven(path: Path, along: np.ndarray, gaps: np.ndarray, gap: float) -> str:
    wrong = np.flatnonzero(np.abs(gaps - gap) > _EVEN * gap)
    ratio = gaps[wrong] / gap
    where = f"{along[wrong[0]]:.2f} and {along[wrong[0] + 1]:.2f} mm"
    if np.all(ratio > 1.5) and np.all(np.abs(ratio - np.round(ratio)) <= 2 * _EVEN):
        missing = int(np.round(ratio).sum() - len(ratio))
        fault = f"misses {missing} of {len(along) + missing} slices, first between {where}"
    else:
        fault = f"has unevenly spaced slices: {gaps.min():.2f} to {gaps.max():.2f} mm, first between {where}"
    return f"{path.name} {fault}. Find the missing files, or read it with resample=True to interpolate."


def _check_line(positions: np.ndarray, gap: float, path: Path) -> None:
    """Slices must lie on one line: without that no affine describes them."""
    even = np.linspace(positions[0], positions[-1], len(positions))
    off = float(np.linalg.norm(positions - even, axis=1).max())
    if off > max(_EVEN * gap, 0.01):
        raise UnsupportedVolume(
            f"{path.name} has slices shifted sideways by up to {off:.2f} mm: they make no regular grid. "
            f"Resample it first."
        )


def _interpolated(array: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Slices at `places` (in units of the even spacing) interpolated linearly to 0, 1, 2, ...; float32."""
    targets = np.arange(math.floor(places[-1] + 1e-6) + 1)
    upper = np.clip(np.searchsorted(places, targets), 1, len(places) - 1)
    weight = ((targets - places[upper - 1]) / (places[upper] - places[upper - 1])).astype(np.float32)
    even = np.empty((len(targets), *array.shape[1:]), np.float32)
    for target, (above, share) in enumerate(zip(upper, weight)):
        even[target] = array[above - 1] * (1 - share) + array[above] * share
    return even
