"""DICOM headers: which files of a folder are images, which series they make, and where every slice lies.

Frames of multi-frame objects and single files become the same record, so that the rest knows only frames.
DICOM PS3.3, C.7.6.2 (image plane), C.7.6.16 (multi-frame functional groups).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_medtransformer.errors import UnreadableFile
from napari_medtransformer.volumes.guard import decoding

SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
# More files than this in one folder are no study that a person opens by choosing a folder.
_MOST_FILES = 50_000
# What tells volumes of one series apart that share their positions, in the order in which it is tried.
_SPLITTING = (
    "TemporalPositionIdentifier",
    "EchoTime",
    "DiffusionBValue",
    "AcquisitionNumber",
    "TriggerTime",
    "ContentTime",
    "ImageType",
)
_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing"),
    *("SliceThickness", "SpacingBetweenSlices", "InstanceNumber", "WindowCenter", "WindowWidth"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "RescaleSlope", "RescaleIntercept"),
    *_SPLITTING,
)


@dataclass(frozen=True)
class Frame:
    """One 2D image of a series. position, orientation: LPS mm, None where the object states none.

    index: the frame inside its file, 0 for a single one. spacing: (between rows, between columns) mm or None.
    thickness: mm between neighbouring slices as far as the header says, or None. split: values of _SPLITTING.
    rescale: (slope, intercept) of this frame where a multi-frame object states it.
    """

    file: Path
    index: int
    frames_in_file: int
    instance: str
    series: str
    shape: tuple[int, int]
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    thickness: float | None
    number: int
    rescale: tuple[float, float]
    split: tuple[str, ...]


@dataclass(frozen=True)
class Series:
    """Frames that make one volume, in file order. kind: DICOM's modality. window: level and width asked for."""

    uid: str
    number: int
    kind: str
    description: str
    detail: str
    frames: tuple[Frame, ...]
    photometric: str
    window: tuple[float, float] | None

    def __str__(self) -> str:
        rows, columns = self.frames[0].shape
        name = f" “{self.description}”" if self.description else ""
        extra = f", {self.detail}" if self.detail else ""
        return f"{self.kind} series {self.number}{name}{extra} ({len(self.frames)} × {rows} × {columns})"


def is_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM does: 'DICM' after a preamble of 128 bytes, or a bare data set of group 2 or 8."""
    try:
        with path.open("rb") as stream:
            start = stream.read(132)
    except OSError:
        return False
    return start[128:132] == b"DICM" or (start[:2] in (b"\x08\x00", b"\x02\x00") and start[2:4] in _FIRST_ELEMENTS)


_FIRST_ELEMENTS = (b"\x00\x00", b"\x01\x00", b"\x05\x00", b"\x08\x00", b"\x12\x00", b"\x16\x00", b"\x18\x00")


def dicom_files(folder: Path) -> list[Path]:
    """Every DICOM file in a folder and below it, by name. Links to folders are not followed, so loops cannot happen.

    Raises UnreadableFile if the folder cannot be listed or holds more files than a study does.
    """
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UnreadableFile(f"{folder} cannot be listed: no permission.")
    found: list[Path] = []
    seen = 0
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        seen += len(names)
        if seen > _MOST_FILES:
            raise UnreadableFile(f"{folder} holds more than {_MOST_FILES} files. Choose the folder of one study.")
        for path in (Path(parent, name) for name in sorted(names)):
            if path.is_file():
                if not os.access(path, os.R_OK):  # it may be a slice, and the series would be one short
                    raise UnreadableFile(f"{path} cannot be opened: no permission to read it. Ask whoever owns it.")
                if is_dicom(path):
                    found.append(path)
    return found


def read_series(files: Iterable[Path]) -> list[Series]:
    """The series of images among DICOM files, sorted by number; each is one volume or one set of slices.

    A series is split by orientation and size (scouts), and by time, echo, b-value and the like where positions
    repeat. Reports, structure sets and segmentations are left out. The same object stored twice counts once.
    """
    frames: dict[tuple, list[Frame]] = defaultdict(list)
    headers: dict[tuple, Any] = {}
    seen: set[str] = set()
    for file in files:
        with decoding(file):
            header = read_header(file)
            if "Rows" not in header or "Columns" not in header or is_segmentation(header):
                continue
            instance = instance_uid(header)
            if instance and instance in seen:
                continue
            seen.add(instance)
            for frame in frames_of(header, file):
                orientation = frame.orientation and tuple(round(c, 3) + 0.0 for c in frame.orientation)
                key = (frame.series, frame.shape, orientation)
                frames[key].append(frame)
                headers.setdefault(key, header)
    series = []
    for key, group in frames.items():
        for detail, part in _without_repeats(group):
            with decoding(part[0].file):
                series.append(_series(headers[key], part, detail))
    return sorted(series, key=lambda one: (one.number, one.uid, one.detail))


def read_header(file: Path) -> Any:
    """The data set of a DICOM file up to its pixels, only the elements needed here."""
    import pydicom

    return pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))


def instance_uid(header: Any) -> str:
    """The object's own UID: of the data set, or of the file where an anonymiser emptied the former; '' for neither."""
    return str(header.get("SOPInstanceUID") or header.file_meta.get("MediaStorageSOPInstanceUID") or "")


def is_segmentation(header: Any) -> bool:
    """Whether the object is a DICOM-SEG."""
    return (header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")) == SEGMENTATION_STORAGE


def frames_of(header: Any, file: Path) -> list[Frame]:
    """The frames of one DICOM object."""
    count = int(header.get("NumberOfFrames") or 1)
    held = file.stat().st_size
    if count < 1 or count > held:
        raise UnreadableFile(f"{file.name} is damaged: it promises {count} frames in {held} bytes.")
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    if per_frame and len(per_frame) != count:
        raise UnreadableFile(f"{file.name} is damaged: {count} frames, but positions of {len(per_frame)}.")
    return [_frame(header, shared, per_frame[i] if per_frame else None, file, i, count) for i in range(count)]


def _frame(header: Any, shared: Any, own: Any, file: Path, index: int, count: int) -> Frame:
    def element(sequence: str, name: str) -> Any:
        """From the frame's functional group, else the shared one, else the data set itself."""
        for group in (own, shared):
            if group is not None and group.get(sequence):
                value = group.get(sequence)[0].get(name)
                if value is not None:
                    return value
        return header.get(name) if count == 1 or own is not None else None

    position = element("PlanePositionSequence", "ImagePositionPatient")
    orientation = element("PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = element("PixelMeasuresSequence", "PixelSpacing") or header.get("ImagerPixelSpacing")
    thickness = element("PixelMeasuresSequence", "SpacingBetweenSlices") or element(
        "PixelMeasuresSequence", "SliceThickness"
    )
    slope = element("PixelValueTransformationSequence", "RescaleSlope")
    intercept = element("PixelValueTransformationSequence", "RescaleIntercept")
    content = own.get("FrameContentSequence") if own is not None else None
    split = tuple(str((content and content[0].get(name)) or header.get(name, "")) for name in _SPLITTING)
    return Frame(
        file=file,
        index=index,
        frames_in_file=count,
        instance=instance_uid(header),
        series=str(header.get("SeriesInstanceUID", "")),
        shape=(int(header.Rows), int(header.Columns)),
        position=_numbers(position, 3),
        orientation=_numbers(orientation, 6),
        spacing=None if (pair := _numbers(spacing, 2)) is None else (pair[0], pair[1]),
        thickness=None if thickness in (None, "") else abs(float(thickness)) or None,
        number=int(header.get("InstanceNumber") or 0),
        rescale=(float(1 if slope in (None, "") else slope), float(0 if intercept in (None, "") else intercept)),
        split=split,
    )


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers, or None if there are not that many."""
    if value is None or isinstance(value, str) or not hasattr(value, "__len__") or len(value) != count:
        return None
    numbers = tuple(float(one) for one in value)
    return numbers if np.isfinite(numbers).all() else None


def _without_repeats(frames: list[Frame]) -> list[tuple[str, list[Frame]]]:
    """Frames parted so that no position repeats, with what tells the parts apart ('EchoTime 30'); else as they were."""
    if not _repeats(frames):
        return [("", frames)]
    for column, name in enumerate(_SPLITTING):
        parts: dict[str, list[Frame]] = defaultdict(list)
        for frame in frames:
            parts[frame.split[column]].append(frame)
        if len(parts) > 1 and not any(_repeats(part) for part in parts.values()):
            return [(f"{name} {value}", part) for value, part in parts.items()]
    return [("", frames)]


def _repeats(frames: list[Frame]) -> bool:
    positions = [tuple(round(p, 3) for p in frame.position) for frame in frames if frame.position is not None]
    return len(set(positions)) < len(positions)


def _series(header: Any, frames: list[Frame], detail: str) -> Series:
    level, width = (_first_number(header, name) for name in ("WindowCenter", "WindowWidth"))
    window = (level, width) if level is not None and width is not None and width > 0 else None
    return Series(
        uid=frames[0].series,
        number=int(header.get("SeriesNumber") or 0),
        kind=str(header.get("Modality", "") or "?"),
        description=str(header.get("SeriesDescription", "") or "").strip(),
        detail=detail,
        frames=tuple(frames),
        photometric=str(header.get("PhotometricInterpretation", "MONOCHROME2")),
        window=window,
    )


def _first_number(header: Any, name: str) -> float | None:
    """The first of one or several numbers; None if there is none, or none that can be read: a window is only a wish."""
    try:
        value = header.get(name)
        first = value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value
        number = float(first)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return number if np.isfinite(number) else None
