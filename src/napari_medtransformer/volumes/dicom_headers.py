"""DICOM headers: which files of a folder are images, which series they make, and where every slice lies.

Frames of multi-frame objects and single files become the same record, so that the rest knows only frames.
DICOM PS3.3, C.7.6.2 (image plane), C.7.6.16 (multi-frame functional groups).
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_medtransformer.errors import UnreadableFile
from napari_medtransformer.volumes.guard import decoding

# Segmentation Storage, Label Map Segmentation Storage
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
# More files than this in one folder are no study that a person opens by choosing a folder.
_MOST_FILES = 50_000
# Direction cosines and pixel spacings of one volume differ by no more: headers jitter in their last digits.
_SAME_COSINE = 1e-3
_SAME_SPACING_MM = 1e-4
# What tells volumes of one series apart that share their positions, in the order in which it is tried.
_SPLITTING = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "EchoTime",
    "EffectiveEchoTime",
    "DiffusionBValue",
    "AcquisitionNumber",
    "TriggerTime",
    "ContentTime",
    "ImageType",
    "FrameType",
)
# The functional groups in which a multi-frame object states them.
_SPLITTING_GROUPS = (
    *("FrameContentSequence", "MREchoSequence", "MRDiffusionSequence"),
    *("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence"),
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

    A series is split by orientation, size and pixel spacing (scouts), and by time, echo, b-value and the like where
    positions repeat. Reports, structure sets and segmentations are left out. The same object stored twice counts once.
    """
    groups: dict[tuple, list[tuple[Any, list[Frame]]]] = defaultdict(list)
    seen: set[tuple[str, ...]] = set()
    for file in files:
        with decoding(file):
            header = read_header(file)
            if "Rows" not in header or "Columns" not in header or is_segmentation(header):
                continue
            # Scripts and anonymisers give all slices one UID: the same object has the same number and place as well.
            instance = instance_uid(header)
            same = instance, str(header.get("InstanceNumber")), str(header.get("ImagePositionPatient"))
            if instance and same in seen:
                continue
            seen.add(same)
            for frame in frames_of(header, file):
                alike = groups[frame.series, frame.shape]
                group = next((group for _, group in alike if _fits(frame, group[0])), None)
                if group is None:
                    alike.append((header, [frame]))
                else:
                    group.append(frame)
    series = []
    for header, group in itertools.chain.from_iterable(groups.values()):
        for detail, part in _without_repeats(group):
            with decoding(part[0].file):
                series.append(_series(header, part, detail))
    return sorted(series, key=lambda one: (one.number, one.uid, one.detail))


def read_header(file: Path) -> Any:
    """The data set of a DICOM file up to its pixels, only the elements needed here."""
    import pydicom

    return pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))


def instance_uid(header: Any) -> str:
    """The object's own UID: of the data set, or of the file where an anonymiser emptied the former; '' for neither."""
    return str(header.get("SOPInstanceUID") or header.file_meta.get("MediaStorageSOPInstanceUID") or "")


def is_segmentation(header: Any) -> bool:
    """Whether the object is a DICOM-SEG, of segments or a label map."""
    return (header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")) in _SEGMENTATIONS


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
    stated = [group[0] for name in _SPLITTING_GROUPS if (group := own.get(name))] if own is not None else []
    split = tuple(
        str(next((group.get(name) for group in stated if group.get(name) is not None), header.get(name, "")))
        for name in _SPLITTING
    )
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


def _fits(frame: Frame, first: Frame) -> bool:
    """Whether a frame lies in the direction of another, its pixels as large, but for the rounding of headers."""
    pairs = (frame.orientation, first.orientation, _SAME_COSINE), (frame.spacing, first.spacing, _SAME_SPACING_MM)
    return all(
        own is other if own is None or other is None else max(map(abs, np.subtract(own, other))) <= tolerance
        for own, other, tolerance in pairs
    )


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers, or None if there are not that many."""
    if value is None or isinstance(value, str) or not hasattr(value, "__len__") or len(value) != count:
        return None
    numbers = tuple(float(one) for one in value)
    return numbers if np.isfinite(numbers).all() else None


def _without_repeats(frames: list[Frame]) -> list[tuple[str, list[Frame]]]:
    """Frames parted so that no position repeats, with what tells the parts apart ('EchoTime 30'); else as they were.

    Parts that hold every position are looked for first: by one of _SPLITTING, then by two. Where a value differs from
    slice to slice, as times of a beating heart do, the frames of each position are taken in the order of theirs.
    """
    if not _repeats(frames):
        return [("", frames)]
    places = len({_place(frame) for frame in frames})
    columns = range(len(_SPLITTING))
    told_apart = [*((column,) for column in columns), *itertools.combinations(columns, 2)]
    for chosen in told_apart:
        parts = _parted(frames, chosen)
        if all(len(part) == places and not _repeats(part) for part in parts.values()):
            return _told(parts, chosen)
    in_turn = _in_turn(frames)
    if in_turn is not None:
        return [(f"volume {place} of {len(in_turn)}", part) for place, part in enumerate(in_turn, 1)]
    for chosen in told_apart:
        parts = _parted(frames, chosen)
        if all(len(part) > 1 and not _repeats(part) for part in parts.values()):  # some of them miss slices
            return _told(parts, chosen)
    return [("", frames)]


def _parted(frames: list[Frame], columns: tuple[int, ...]) -> dict[tuple[str, ...], list[Frame]]:
    parts: dict[tuple[str, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        parts[tuple(frame.split[column] for column in columns)].append(frame)
    return parts


def _told(parts: dict[tuple[str, ...], list[Frame]], columns: tuple[int, ...]) -> list[tuple[str, list[Frame]]]:
    names = [_SPLITTING[column] for column in columns]
    return [
        (", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True)), part)
        for values, part in parts.items()
    ]


def _in_turn(frames: list[Frame]) -> list[list[Frame]] | None:
    """The first frame of every position, the second of every, and so on; None where their numbers differ."""
    at: dict[tuple[float, ...] | None, list[Frame]] = defaultdict(list)
    for frame in frames:
        at[_place(frame)].append(frame)
    count = len(next(iter(at.values())))
    # Nothing tells two copies at one place apart but their numbers; equal ones are a mistake that is said.
    told = all(len({(one.split, one.number, one.index) for one in group}) == count for group in at.values())
    if None in at or count < 2 or not told or any(len(group) != count for group in at.values()):
        return None
    ordered = [sorted(group, key=_turn) for group in at.values()]
    return [list(part) for part in zip(*ordered, strict=True)]


def _turn(frame: Frame) -> tuple[Any, ...]:
    """By what a frame is sorted among those of its position: numbers as such, then words."""
    values = []
    for text in frame.split:
        try:
            values.append((0, float(text), ""))
        except ValueError:
            values.append((1, 0.0, text))
    return *values, frame.number, frame.index


def _place(frame: Frame) -> tuple[float, ...] | None:
    return None if frame.position is None else tuple(round(p, 3) for p in frame.position)


def _repeats(frames: list[Frame]) -> bool:
    positions = [place for frame in frames if (place := _place(frame)) is not None]
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
