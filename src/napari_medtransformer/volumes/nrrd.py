"""NRRD: read and written here, so that damaged headers are caught and a full disk is noticed.

Format: teem.sourceforge.net/nrrd/format.html. Segment names and colours as 3D Slicer's .seg.nrrd has them
(slicer.readthedocs.io, "Segmentations", "Segmentation file (.seg.nrrd)").
"""

from __future__ import annotations

import gzip
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from napari_medtransformer.errors import UnreadableFile, UnsupportedVolume
from napari_medtransformer.volumes import geometry
from napari_medtransformer.volumes.guard import decoding
from napari_medtransformer.volumes.label_table import Label
from napari_medtransformer.volumes.lazy import frame_of
from napari_medtransformer.volumes.raw_data import RawData, little_endian, read_raw
from napari_medtransformer.volumes.volume import Decoded, FileGrid

_HEADER_BYTES = 1 << 20
# The fields that say where the grid lies; they are copied verbatim into what is written for it.
_GEOMETRY = ("space", "space dimension", "space directions", "space origin", "spacings", "axis mins")
_TYPES = {
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i1": "signed char, int8, int8_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i4": "int, signed int, int32, int32_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "f4": "float",
    "f8": "double",
}
_DTYPES = {name: code for code, names in _TYPES.items() for name in names.split(", ")}
_ENCODINGS = {"raw": "", "gzip": "gzip", "gz": "gzip", "bzip2": "bz2", "bz2": "bz2"} | dict.fromkeys(
    ("txt", "text", "ascii"), "text"
)
# Signs that turn the axes of a patient space into right, anterior, superior.
_SPACES = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
_WRITTEN = {
    "u1": "uint8",
    "u2": "uint16",
    "u4": "uint32",
    "u8": "uint64",
    "i1": "int8",
    "i2": "int16",
    "i4": "int32",
    "i8": "int64",
    "f4": "float",
    "f8": "double",
}


@dataclass(frozen=True)
class _Header:
    """The fields by lower-case name (keys of key/value pairs as they are), and where the header ends."""

    fields: dict[str, str]
    end: int


@dataclass(frozen=True)
class _Segment:
    """One segment of a .seg.nrrd: the voxels of a value in a layer."""

    label: Label
    layer: int
    value: int


def read_nrrd(path: Path) -> Decoded:
    """An NRRD (.nrrd or .nhdr with its data file). Time points, channels or segments are the fourth axis.

    Raises UnreadableFile or UnsupportedVolume.
    """
    header = _header(path)
    with decoding(path):
        fields = header.fields
        sizes = [int(n) for n in fields["sizes"].split()]
        if len(sizes) != int(fields["dimension"]) or not 1 < len(sizes) < 5 or min(sizes) < 1:
            raise UnsupportedVolume(f"{path.name} has dimensions {tuple(sizes)}; expected 2 to 4, none empty.")
        kind, encoding = fields["type"].lower(), fields["encoding"].lower()
        if kind not in _DTYPES or encoding not in _ENCODINGS:
            raise UnsupportedVolume(f"{path.name} holds {kind} encoded as {encoding}; expected numbers, raw or gzip.")
        vectors = _vectors(fields, len(sizes), path)
        spatial = [axis for axis, vector in enumerate(vectors) if vector is not None]
        if not 2 <= len(spatial) <= 3:
            raise UnsupportedVolume(f"{path.name} has {len(spatial)} axes in space of {len(sizes)}; expected 2 or 3.")
        affine = _affine(fields, [vectors[axis] for axis in spatial], path)
        order = ">" if fields.get("endian", "little").lower() == "big" else "<"
        raw = RawData(
            file=_data_file(path, fields),
            offset=0 if _is_detached(fields) else header.end,
            dtype=np.dtype(order + _DTYPES[kind]),
            shape=tuple(sizes),
            encoding=_ENCODINGS[encoding],
            skipped_lines=int(fields.get("line skip", fields.get("lineskip", 0))),
            skipped_bytes=int(fields.get("byte skip", fields.get("byteskip", 0))),
        )
        array = read_raw(raw, path)
        array = array.transpose(*spatial, *(axis for axis in range(len(sizes)) if axis not in spatial))
    shape = array.shape[: len(spatial)]
    i, j, k = (*shape, 1)[:3]
    if len(spatial) == 2:
        array = array[:, :, np.newaxis]
    lines = "\n".join(f"{key}: {fields[key]}" for key in _GEOMETRY if key in fields).encode()
    return Decoded(array, FileGrid(path, "nrrd", (i, j, k), affine, shape, lines if shape == tuple(sizes) else b""))


def header_fields(path: Path) -> dict[str, str]:
    """The fields of an NRRD header by lower-case name, keys of key/value pairs as they are."""
    return _header(path).fields


def _header(path: Path) -> _Header:
    try:
        with path.open("rb") as stream:
            start = stream.read(_HEADER_BYTES)
    except OSError as error:
        raise UnreadableFile(f"{path.name} cannot be opened: {error.strerror}.") from error
    if not re.match(rb"NRRD000[1-9]\r?\n", start):
        raise UnreadableFile(f"{path.name} is not an NRRD file: it does not start with NRRD. Was it renamed?")
    blank = re.search(rb"\r?\n\r?\n", start)
    end = blank.end() if blank else len(start)
    fields: dict[str, str] = {}
    for line in start[:end].split(b"\n")[1:]:
        text = line.rstrip(b"\r").decode("utf-8", errors="replace")
        if text.startswith("#"):
            continue
        if ":=" in text:
            key, value = text.split(":=", 1)
            fields[key] = value
        elif ":" in text:
            key, value = text.split(":", 1)
            fields[key.strip().lower()] = value.strip()
    for needed in ("type", "dimension", "sizes", "encoding"):
        if needed not in fields:
            raise UnreadableFile(f"{path.name} is damaged: its header has no field “{needed}”. Export it again.")
    return _Header(fields, end)


def _is_detached(fields: dict[str, str]) -> bool:
    return "data file" in fields or "datafile" in fields


def _data_file(path: Path, fields: dict[str, str]) -> Path:
    """The file with the values: the header's own, or the one that it names."""
    if not _is_detached(fields):
        return path
    name = fields.get("data file") or fields.get("datafile") or ""
    if name.startswith("LIST") or "%" in name or not name:
        raise UnsupportedVolume(f"{path.name} spreads its slices over several files. Convert it to one file first.")
    return path.parent / name


def _vectors(fields: dict[str, str], dimension: int, path: Path) -> list[np.ndarray | None]:
    """For every axis its step in space, None for an axis that is not in space."""
    if "space directions" in fields:
        found = re.findall(r"none|\([^)]*\)", fields["space directions"])
        if len(found) != dimension:
            raise UnreadableFile(f"{path.name} is damaged: {len(found)} space directions for {dimension} axes.")
        vectors = [None if text == "none" else np.array([float(n) for n in text[1:-1].split(",")]) for text in found]
        if any(vector is not None and len(vector) not in (2, 3) for vector in vectors):
            raise UnsupportedVolume(
                f"{path.name} has space directions {fields['space directions']}; expected 3 numbers."
            )
        return [vector if vector is None else np.resize([*vector, 0.0], 3) for vector in vectors]
    kinds = fields.get("kinds", "").lower().split()
    names = kinds if len(kinds) == dimension else ["domain"] * dimension
    # Without kinds a fourth axis is the last one.
    inside = [axis for axis, kind in enumerate(names) if kind in ("domain", "space", "???")][:3]
    steps = [float(n) for n in fields.get("spacings", "").split()] or [1.0] * dimension
    if len(steps) != dimension:
        raise UnreadableFile(f"{path.name} is damaged: {len(steps)} spacings for {dimension} axes.")
    vectors = [None] * dimension
    for row, axis in enumerate(inside):
        vectors[axis] = np.eye(3)[row] * (steps[axis] if np.isfinite(steps[axis]) else 1.0)
    return vectors


def _affine(fields: dict[str, str], vectors: Sequence[np.ndarray | None], path: Path) -> np.ndarray:
    """The (4, 4) affine from (i, j, k) to RAS mm."""
    affine = np.eye(4)
    for axis, vector in enumerate(vectors):
        affine[:3, axis] = vector
    if len(vectors) == 2:
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / (np.linalg.norm(normal) or 1.0)
    if "space origin" in fields:
        origin = [float(n) for n in fields["space origin"].strip("() ").split(",")]
        affine[:3, 3] = np.resize([*origin, 0.0], 3) if len(origin) in (2, 3) else np.nan
    space = fields.get("space", "").lower()
    signs = _SPACES.get(space)
    if signs is None:
        said = f"the space “{space}”" if space else "no patient space"
        warnings.warn(f"{path.name} states {said}; its axes are taken as left, posterior, superior.", stacklevel=6)
        signs = _SPACES["lps"]
    return np.diag([*signs, 1.0]) @ affine


def read_segments(path: Path) -> list[Label]:
    """The names and colours of a .seg.nrrd, by the numbers that `flat_segments` gives; empty for a file without any."""
    return [segment.label for segment in _segments(path)]


def flat_segments(layers: np.ndarray, path: Path) -> np.ndarray:
    """The layers (i, j, k, layer) of a .seg.nrrd as labels (i, j, k); other arrays as they are.

    Segment N becomes label N + 1, as one value may stand for another segment in every layer. Where segments overlap
    the later one is kept, with a warning. Raises UnreadableFile.
    """
    segments = _segments(path) if layers.ndim == 4 else []
    if not segments:
        return layers
    labels = np.zeros(layers.shape[:3], np.min_scalar_type(len(segments)), order="F")
    overlaps = 0
    for segment in segments:
        if not 0 <= segment.layer < layers.shape[3]:
            raise UnreadableFile(
                f"{path.name} is damaged: it has {layers.shape[3]} layers, and {segment.label.name} is in layer "
                f"{segment.layer}. Export it again."
            )
        inside = np.asarray(frame_of(layers, segment.layer)) == segment.value
        overlaps += int(np.count_nonzero(labels[inside]))
        labels[inside] = segment.label.number
    if overlaps:
        warnings.warn(
            f"{path.name} has segments that overlap in {overlaps} voxels; each shows the last of them there.",
            stacklevel=3,
        )
    return labels


def _segments(path: Path) -> list[_Segment]:
    """The segments that a header describes, in order."""
    fields = header_fields(path)
    is_layered = fields["dimension"] == "4"
    segments = []
    for index in range(len(fields)):
        if f"Segment{index}_Name" not in fields and f"Segment{index}_ID" not in fields:
            break
        try:
            # Where neither is said, each segment is the ones of a layer of its own.
            layer = int(fields.get(f"Segment{index}_Layer", index))
            value = int(fields.get(f"Segment{index}_LabelValue", 1 if is_layered else index + 1))
            red, green, blue = (
                min(1.0, max(0.0, float(part))) for part in fields.get(f"Segment{index}_Color", "0.5 0.5 0.5").split()
            )
            name = fields.get(f"Segment{index}_Name") or fields[f"Segment{index}_ID"]
            label = Label(index + 1 if is_layered else value, name, (red, green, blue))
        except ValueError as error:
            raise UnreadableFile(f"{path.name} describes its segment {index} wrongly: {error}.") from error
        segments.append(_Segment(label, layer, value))
    return segments


def write_nrrd(array: np.ndarray, grid: FileGrid, stream: BinaryIO, labels: Sequence[Label] | None = None) -> None:
    """Write (i, j, k) or (i, j, k, heads) as NRRD, gzipped. labels: adds 3D Slicer's description of the segments."""
    is_list = array.ndim == 4
    lines = [
        "NRRD0005",
        f"type: {_WRITTEN[array.dtype.str[1:]]}",
        f"dimension: {array.ndim}",
        f"sizes: {' '.join(map(str, array.shape))}",
        f"kinds: domain domain domain{' list' * is_list}",
        "endian: little",
        "encoding: gzip",
    ]
    if grid.format == "nrrd" and grid.header and len(grid.file_shape) == 3 and not is_list:
        lines += grid.header.decode().splitlines()
    else:
        affine = geometry.ras_from_lps(grid.affine_ijk)
        directions = " ".join(f"({','.join(repr(float(c)) for c in affine[:3, axis])})" for axis in range(3))
        lines += [
            "space: left-posterior-superior",
            f"space directions: {directions}{' none' * is_list}",
            f"space origin: ({','.join(repr(float(c)) for c in affine[:3, 3])})",
        ]
    if labels is not None:
        lines += _segment_lines(array, labels)
    stream.write(("\n".join(lines) + "\n\n").encode())
    with gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=6, mtime=0) as packed:
        packed.write(little_endian(array))


def _segment_lines(array: np.ndarray, labels: Sequence[Label]) -> list[str]:
    """The key/value pairs by which 3D Slicer knows the segments of a binary labelmap."""
    lines = []
    for index, label in enumerate(labels):
        extents = []
        inside = array == label.number
        for axis in range(3):
            where = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
            extents += [where[0], where[-1]] if where.size else [0, -1]
        name = " ".join(label.name.split())  # a line break would end the field
        prefix = f"Segment{index}"
        lines += [
            f"{prefix}_Color:={' '.join(f'{part:.6g}' for part in label.color)}",
            f"{prefix}_ColorAutoGenerated:=0",
            f"{prefix}_Extent:={' '.join(map(str, extents))}",
            f"{prefix}_ID:=Segment_{label.number}",
            f"{prefix}_LabelValue:={label.number}",
            f"{prefix}_Layer:=0",
            f"{prefix}_Name:={name}",
            f"{prefix}_NameAutoGenerated:=0",
            f"{prefix}_Tags:=Segmentation.Status:inprogress|",
        ]
    return [
        *lines,
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|",
        "Segmentation_MasterRepresentation:=Binary labelmap",
        "Segmentation_SourceRepresentation:=Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset:=0 0 0",
    ]
