"""MetaImage (MHA, and MHD with its raw file): read and written here, so that damaged headers are caught.

Format: itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from napari_medtransformer.errors import UnreadableFile, UnsupportedVolume
from napari_medtransformer.volumes import geometry
from napari_medtransformer.volumes.guard import decoding
from napari_medtransformer.volumes.raw_data import RawData, little_endian, read_raw
from napari_medtransformer.volumes.volume import Decoded, FileGrid

_HEADER_BYTES = 1 << 16
# The fields that say where the grid lies; they are copied verbatim into what is written for it.
_GEOMETRY = (
    *("TransformMatrix", "Rotation", "Orientation", "Offset", "Position", "Origin"),
    *("ElementSpacing", "ElementSize", "CenterOfRotation", "AnatomicalOrientation"),
)
_DTYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_WRITTEN = {
    "u1": "MET_UCHAR",
    "u2": "MET_USHORT",
    "u4": "MET_UINT",
    "u8": "MET_ULONG_LONG",
    "i1": "MET_CHAR",
    "i2": "MET_SHORT",
    "i4": "MET_INT",
    "i8": "MET_LONG_LONG",
    "f4": "MET_FLOAT",
    "f8": "MET_DOUBLE",
}


def read_meta(path: Path) -> Decoded:
    """A MetaImage. Time points or channels are the fourth axis. Raises UnreadableFile or UnsupportedVolume."""
    fields, end = _header(path)
    with decoding(path):
        sizes = [int(n) for n in fields["DimSize"].split()]
        dimension, channels = int(fields["NDims"]), int(fields.get("ElementNumberOfChannels", 1))
        if len(sizes) != dimension or not 1 < dimension < 5 or min(*sizes, channels) < 1:
            raise UnsupportedVolume(f"{path.name} has dimensions {tuple(sizes)}; expected 2 to 4, none empty.")
        if channels > 1 and dimension > 3:
            raise UnsupportedVolume(f"{path.name} has both time and channels; expected at most one of them.")
        kind = fields["ElementType"].upper()
        if kind not in _DTYPES:
            raise UnsupportedVolume(f"{path.name} holds {kind}; expected integers or real numbers.")
        name = fields["ElementDataFile"]
        if name.upper().startswith("LIST") or "%" in name or not name:
            raise UnsupportedVolume(f"{path.name} spreads its slices over several files. Convert it to one file first.")
        local = name.upper() == "LOCAL"
        big = _true(fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")))
        packed = "zlib" if _true(fields.get("CompressedData", "False")) else ""
        raw = RawData(
            file=path if local else path.parent / name,
            offset=end if local else 0,
            dtype=np.dtype((">" if big else "<") + _DTYPES[kind]),
            shape=(channels, *sizes) if channels > 1 else tuple(sizes),
            encoding=packed if _true(fields.get("BinaryData", "True")) else "text",
            skipped_bytes=int(fields.get("HeaderSize", 0)),
        )
        array = read_raw(raw, path)
        if channels > 1:
            array = np.moveaxis(array, 0, -1)
        affine = _affine(fields, dimension, path)
    shape = tuple(sizes[:3])
    i, j, k = (*shape, 1)[:3]
    if dimension == 2:
        array = array[:, :, np.newaxis]
    kept = b"" if dimension != 3 else "\n".join(f"{key} = {fields[key]}" for key in _GEOMETRY if key in fields).encode()
    return Decoded(array, FileGrid(path, "metaimage", (i, j, k), affine, shape, kept))


def _header(path: Path) -> tuple[dict[str, str], int]:
    """The fields by name, and where the values begin."""
    fields: dict[str, str] = {}
    end = 0
    try:
        with path.open("rb") as stream:
            start = stream.read(_HEADER_BYTES)
    except OSError as error:
        raise UnreadableFile(f"{path.name} cannot be opened: {error.strerror}.") from error
    for line in start.splitlines(keepends=True):
        end += len(line)
        key, separator, value = line.decode("utf-8", errors="replace").partition("=")
        if not separator:
            break
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    for needed in ("NDims", "DimSize", "ElementType", "ElementDataFile"):
        if needed not in fields:
            raise UnreadableFile(
                f"{path.name} is damaged or no MetaImage: its header has no {needed}. Export it again."
            )
    return fields, end


def _affine(fields: dict[str, str], dimension: int, path: Path) -> np.ndarray:
    """The (4, 4) affine from (i, j, k) to RAS mm. MetaIO keeps one axis' direction after the other, in LPS."""

    def numbers(names: tuple[str, ...], count: int) -> np.ndarray | None:
        for name in names:
            if name in fields:
                found = np.array([float(n) for n in fields[name].split()])
                if len(found) != count:
                    raise UnreadableFile(f"{path.name} is damaged: its {name} has {len(found)} numbers, not {count}.")
                return found
        return None

    directions = numbers(("TransformMatrix", "Rotation", "Orientation"), dimension**2)
    spacing = numbers(("ElementSpacing", "ElementSize"), dimension)
    origin = numbers(("Offset", "Position", "Origin"), dimension)
    inside = min(dimension, 3)
    affine = np.eye(4)
    if directions is not None:
        affine[:inside, :inside] = directions.reshape(dimension, dimension).T[:inside, :inside]
    if spacing is not None:
        affine[:3, :inside] *= spacing[:inside]
    if origin is not None:
        affine[:inside, 3] = origin[:inside]
    return geometry.ras_from_lps(affine)


def _true(text: str) -> bool:
    return text.strip().lower() in ("true", "1")


def write_meta(array: np.ndarray, grid: FileGrid, stream: BinaryIO) -> None:
    """Write (i, j, k) or (i, j, k, heads) as MHA, compressed; heads become channels."""
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
    ]
    if grid.format == "metaimage" and grid.header:
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
    data = little_endian(np.moveaxis(array, -1, 0) if array.ndim == 4 else array)
    packed = zlib.compress(data, 6)
    lines += [
        f"CompressedDataSize = {len(packed)}",
        f"DimSize = {' '.join(map(str, array.shape[:3]))}",
        *([f"ElementNumberOfChannels = {array.shape[3]}"] if array.ndim == 4 else []),
        f"ElementType = {_WRITTEN[array.dtype.str[1:]]}",
        "ElementDataFile = LOCAL",
    ]
    stream.write(("\n".join(lines) + "\n").encode())
    stream.write(packed)
