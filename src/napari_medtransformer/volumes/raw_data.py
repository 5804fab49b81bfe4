"""Values after or beside a text header (NRRD, MetaImage): mapped where they lie bare, unpacked within bounds if not."""

from __future__ import annotations

import bz2
import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_medtransformer.errors import UnreadableFile
from napari_medtransformer.volumes.file_values import values_in_file
from napari_medtransformer.volumes.guard import check_memory, check_promise, size

_CHUNK_BYTES = 1 << 22
# bzip2 packs 45,900,000 equal bytes into 46 (its manual, "limitations"): no check by ratio is worth making there.


@dataclass(frozen=True)
class RawData:
    """Where values lie and how. shape: first axis fastest. encoding: '', 'gzip', 'zlib', 'bz2' or 'text'.

    skipped_lines, skipped_bytes: of the file, before the values (in the unpacked stream for NRRD's bytes);
    -1 bytes: the values are at the end of the file.
    """

    file: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    encoding: str
    skipped_lines: int = 0
    skipped_bytes: int = 0


def read_raw(raw: RawData, path: Path) -> np.ndarray:
    """The values as an array of raw.shape in native byte order; where they lie bare a read-only map, or a LazyArray.

    Memory is taken as far as the file really holds data. Raises UnreadableFile that says how much is missing.
    """
    try:
        held = raw.file.stat().st_size
    except OSError as error:
        raise UnreadableFile(f"{path.name} needs the file {raw.file.name} beside it: {error.strerror}.") from error
    needed = math.prod(raw.shape) * raw.dtype.itemsize
    offset = raw.offset + _skipped_lines(raw)
    if raw.skipped_bytes < -1 or (raw.skipped_bytes == -1 and raw.encoding):
        raise UnreadableFile(f"{path.name} is damaged: it skips {raw.skipped_bytes} bytes of its data.")
    if raw.encoding == "text":
        check_promise(path, 2 * math.prod(raw.shape) - 1, held, compressed=False)
        with raw.file.open("rb") as stream:
            stream.seek(offset)
            values = np.array(stream.read().split()[: math.prod(raw.shape)], np.float64).astype(raw.dtype)
        if values.size < math.prod(raw.shape):
            raise UnreadableFile(f"{path.name} is truncated: {values.size} of {math.prod(raw.shape)} values.")
    elif raw.encoding:
        if raw.encoding != "bz2":
            check_promise(path, needed, held - offset, compressed=True)
        check_memory(path, needed)
        values = _unpacked(raw, offset, needed, path).view(raw.dtype)
    else:
        offset = held - needed if raw.skipped_bytes == -1 else offset + raw.skipped_bytes
        check_promise(path, needed, held - max(offset, 0), compressed=False)
        values = values_in_file(raw.file, raw.dtype, offset, raw.shape, first_fastest=True)
    array = values if values.shape == raw.shape else values.reshape(raw.shape, order="F")
    return array if array.dtype.isnative else array.astype(raw.dtype.newbyteorder("="))


def _skipped_lines(raw: RawData) -> int:
    """The length of the lines to skip, in bytes."""
    if raw.skipped_lines <= 0:
        return 0
    with raw.file.open("rb") as stream:
        stream.seek(raw.offset)
        for _ in range(raw.skipped_lines):
            if not stream.readline(_CHUNK_BYTES):
                raise UnreadableFile(f"{raw.file.name} is truncated: it has not even the lines to skip.")
        return stream.tell() - raw.offset


def _unpacked(raw: RawData, offset: int, needed: int, path: Path) -> np.ndarray:
    """`needed` bytes of a packed stream that begins at `offset`."""
    buffer = np.empty(needed, np.uint8)
    done, skip = 0, raw.skipped_bytes
    with raw.file.open("rb") as stream:
        stream.seek(offset)
        opened: Any
        if raw.encoding == "gzip":
            opened = gzip.GzipFile(fileobj=stream)
        elif raw.encoding == "bz2":
            opened = bz2.BZ2File(stream)
        else:
            opened = _Zlib(stream)
        while skip > 0 and (chunk := opened.read(min(skip, _CHUNK_BYTES))):
            skip -= len(chunk)
        while done < needed and (chunk := opened.read(min(needed - done, _CHUNK_BYTES))):
            buffer[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
            done += len(chunk)
        if done == needed:
            opened.read(1)  # the checksum is compared at the end
    if done < needed:
        raise UnreadableFile(
            f"{path.name} is truncated: its header promises {size(needed)} of voxels, it holds {size(done)}. "
            f"Copy or export it again."
        )
    return buffer


class _Zlib:
    """A zlib stream (MetaImage) read like a file."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._inflate = zlib.decompressobj()

    def read(self, count: int) -> bytes:
        """At most `count` bytes; empty at the end."""
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._stream.read(_CHUNK_BYTES)
            chunk = self._inflate.decompress(packed, count)
            if chunk or not packed:
                return chunk
        return b""


def little_endian(array: np.ndarray) -> bytes:
    """The values in file order, first axis fastest."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(order="F")
