"""NRRD and MetaImage (MHA, MHD): read through SimpleITK, written here so that a full disk is noticed.

Formats: teem.sourceforge.net/nrrd/format.html, itk.org/Wiki/ITK/MetaIO/Documentation; segment names and colours as
3D Slicer's .seg.nrrd has them (slicer.readthedocs.io, "Segmentations", "Segmentation file (.seg.nrrd)").
"""

from __future__ import annotations

import gzip
import math
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from napari_medtransformer.errors import UnreadableFile, UnsupportedVolume
from napari_medtransformer.volumes import geometry
from napari_medtransformer.volumes.guard import check_promise, decoding
from napari_medtransformer.volumes.label_table import Label
from napari_medtransformer.volumes.volume import Decoded, FileGrid

_HEADER_BYTES = 1 << 20
# The lines of each header that say where the grid lies; they are copied verbatim into what is written for it.
_NRRD_GEOMETRY = ("space", "space dimension", "space directions", "space origin", "spacings", "axis mins")
_META_GEOMETRY = {
    name.lower(): name
    for name in (
        *("TransformMatrix", "Offset", "Position", "Orientation", "Rotation", "Origin"),
        *("ElementSpacing", "CenterOfRotation", "AnatomicalOrientation"),
    )
}
_NRRD_TYPES = {"u1": "uint8", "u2": "uint16", "u4": "uint32", "f4": "float"}
_META_TYPES = {"u1": "MET_UCHAR", "u2": "MET_USHORT", "u4": "MET_UINT", "f4": "MET_FLOAT"}


def read_itk(path: Path) -> Decoded:
    """An NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd) file. Time or channels stay as a fourth axis.

    Raises UnreadableFile or UnsupportedVolume.
    """
    is_nrrd = path.name.lower().endswith((".nrrd", ".nhdr"))
    fields = header_fields(path)
    with decoding(path):
        import SimpleITK as sitk

        reader = sitk.ImageFileReader()
        reader.SetImageIO("NrrdImageIO" if is_nrrd else "MetaImageIO")
        reader.SetFileName(str(path))
        warned = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ITK would print them
        try:
            reader.ReadImageInformation()
            dimension, sizes = reader.GetDimension(), reader.GetSize()
            if dimension > 4 or any(n < 1 for n in sizes):
                raise UnsupportedVolume(f"{path.name} has dimensions {tuple(sizes)}; expected 2 to 4, none empty.")
            pixel = reader.GetPixelID()
            itemsize = _itemsize(pixel, path)
            needed = math.prod(sizes) * reader.GetNumberOfComponents() * itemsize
            _check_size(path, fields, needed, is_nrrd)
            image = reader.Execute()
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(warned)
        array = sitk.GetArrayViewFromImage(image)
        # ITK's memory dies with its image: a copy, made in file order.
        array = np.array(array.transpose(*range(dimension - 1, -1, -1), *range(dimension, array.ndim)), order="F")
        affine = _affine(image, dimension)
    if is_nrrd and not fields.keys() & {"space", "space dimension"}:
        warnings.warn(
            f"{path.name} states no patient space; its axes are taken as left, posterior, superior.", stacklevel=4
        )
    i, j, k = (*array.shape[:dimension], 1, 1)[:3]
    lines = _geometry_lines(fields, is_nrrd)
    grid = FileGrid(path, "nrrd" if is_nrrd else "metaimage", (i, j, k), affine, array.shape[:dimension], lines)
    return Decoded(array, grid)


def header_fields(path: Path) -> dict[str, str]:
    """The fields of an NRRD or MetaImage header by lower-case name, keys of NRRD key/value pairs as they are."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_HEADER_BYTES)
    except OSError as error:
        raise UnreadableFile(f"{path.name} cannot be opened: {error.strerror}.") from error
    is_nrrd = start.startswith(b"NRRD")
    fields: dict[str, str] = {}
    for line in start.split(b"\n"):
        text = line.rstrip(b"\r").decode("utf-8", errors="replace")
        if is_nrrd and not text:
            break
        if is_nrrd and ":=" in text:
            key, value = text.split(":=", 1)
            fields[key] = value
        elif (":" if is_nrrd else "=") in text:
            key, value = text.split(":" if is_nrrd else "=", 1)
            fields[key.strip().lower()] = value.strip()
            if key.strip().lower() == "elementdatafile":
                break
    return fields


def read_segments(path: Path) -> list[Label]:
    """The names and colours of a .seg.nrrd, by label value; empty for a file that has none."""
    fields = header_fields(path)
    labels = []
    for index in range(len(fields)):
        if f"Segment{index}_Name" not in fields and f"Segment{index}_ID" not in fields:
            break
        try:
            number = int(fields.get(f"Segment{index}_LabelValue", index + 1))
            red, green, blue = (
                min(1.0, max(0.0, float(part))) for part in fields.get(f"Segment{index}_Color", "0.5 0.5 0.5").split()
            )
            name = fields.get(f"Segment{index}_Name") or fields[f"Segment{index}_ID"]
            labels.append(Label(number, name, (red, green, blue)))
        except ValueError as error:
            raise UnreadableFile(f"{path.name} describes its segment {index} wrongly: {error}.") from error
    return labels


def write_nrrd(array: np.ndarray, grid: FileGrid, stream: BinaryIO, labels: Sequence[Label] | None = None) -> None:
    """Write (i, j, k) or (i, j, k, heads) as NRRD, gzipped. labels: adds 3D Slicer's description of the segments."""
    is_list = array.ndim == 4
    lines = [
        "NRRD0005",
        f"type: {_NRRD_TYPES[array.dtype.str[1:]]}",
        f"dimension: {array.ndim}",
        f"sizes: {' '.join(map(str, array.shape))}",
        f"kinds: domain domain domain{' list' * is_list}",
        "endian: little",
        "encoding: gzip",
    ]
    if grid.format == "nrrd" and len(grid.file_shape) == 3 and b"none" not in grid.header and not is_list:
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
        packed.write(_little_endian(array))


def write_meta(array: np.ndarray, grid: FileGrid, stream: BinaryIO) -> None:
    """Write (i, j, k) or (i, j, k, heads) as MHA, compressed; heads become channels."""
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
    ]
    if grid.format == "metaimage" and len(grid.file_shape) == 3:
        lines += grid.header.decode().splitlines()
    else:
        spacing, origin, direction = geometry.itk_from_affine(grid.affine_ijk)
        columns = np.reshape(direction, (3, 3)).T.ravel()  # MetaIO keeps one axis' direction after the other
        lines += [
            f"TransformMatrix = {' '.join(repr(float(c)) for c in columns)}",
            f"Offset = {' '.join(map(repr, origin))}",
            "CenterOfRotation = 0 0 0",
            f"ElementSpacing = {' '.join(map(repr, spacing))}",
        ]
    data = _little_endian(np.moveaxis(array, -1, 0) if array.ndim == 4 else array)
    packed = zlib.compress(data, 6)
    lines += [
        f"CompressedDataSize = {len(packed)}",
        f"DimSize = {' '.join(map(str, array.shape[:3]))}",
        *([f"ElementNumberOfChannels = {array.shape[3]}"] if array.ndim == 4 else []),
        f"ElementType = {_META_TYPES[array.dtype.str[1:]]}",
        "ElementDataFile = LOCAL",
    ]
    stream.write(("\n".join(lines) + "\n").encode())
    stream.write(packed)


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


def _itemsize(pixel: int, path: Path) -> int:
    import SimpleITK as sitk

    name = sitk.GetPixelIDValueAsString(pixel)
    for bits in (8, 16, 32, 64):
        if f"{bits}-bit" in name and "complex" not in name:
            return bits // 8
    raise UnsupportedVolume(f"{path.name} holds {name} values; expected integers or real numbers.")


def _check_size(path: Path, fields: dict[str, str], needed: int, is_nrrd: bool) -> None:
    """Refuse headers that promise more than their file holds, before ITK takes the memory."""
    if is_nrrd:
        detached = "data file" in fields or "datafile" in fields
        raw = fields.get("encoding", "raw").lower() == "raw"
    else:
        detached = fields.get("elementdatafile", "").upper() != "LOCAL"
        raw = fields.get("compresseddata", "false").lower() != "true" and fields.get("binarydata", "").lower() == "true"
    held = path.stat().st_size
    if detached:
        named = path.parent / (fields.get("data file") or fields.get("datafile") or fields.get("elementdatafile") or "")
        if not named.is_file():
            return  # a list or a pattern of files: ITK says what is missing
        held = named.stat().st_size
    check_promise(path, needed, held, compressed=not raw)


def _affine(image: Any, dimension: int) -> np.ndarray:
    """The RAS affine of the first three axes of a SimpleITK image of 2 to 4 dimensions."""
    spacing = [*image.GetSpacing(), 1.0][:3]
    origin = [*image.GetOrigin(), 0.0][:3]
    direction = np.eye(max(3, dimension))
    direction[:dimension, :dimension] = np.reshape(image.GetDirection(), (dimension, dimension))
    return geometry.affine_from_itk(spacing, origin, direction[:3, :3])


def _geometry_lines(fields: dict[str, str], is_nrrd: bool) -> bytes:
    """The lines of a header that say where the grid lies, as they were."""
    if is_nrrd:
        return "\n".join(f"{key}: {fields[key]}" for key in _NRRD_GEOMETRY if key in fields).encode()
    return "\n".join(f"{name} = {fields[key]}" for key, name in _META_GEOMETRY.items() if key in fields).encode()


def _little_endian(array: np.ndarray) -> bytes:
    """The values in file order, first axis fastest."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(order="F")
