"""The border to foreign decoders: whatever they raise on a damaged file becomes one error of our tree."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_medtransformer.errors import MedTransformerError, UnreadableFile, UnsupportedVolume

# What deflate can compress at most (zlib's technical notes, "Maximum Compression Factor").
GZIP_MOST = 1032
# ITK and SimpleITK put the place in their C++ sources before what went wrong.
_ITK_PLACE = re.compile(r"^.*?(?:sitk::ERROR:|ITK ERROR:|Description:)\s*", re.DOTALL)
_OBJECT_PLACE = re.compile(r"\w+\(0x[0-9a-f]+\):\s*")


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Run a decoder on `path`: its exceptions become UnreadableFile, its warnings are dropped.

    Decoders of image formats raise nearly every type there is on a damaged file (struct.error, KeyError,
    AttributeError, ...), so nothing short of Exception is complete; the original is kept as the cause.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MedTransformerError:
        raise
    except MemoryError as error:
        raise UnsupportedVolume(f"{path.name} needs more memory than there is. Crop it first.") from error
    except PermissionError as error:
        raise UnreadableFile(f"{path.name} cannot be opened: {error.strerror}.") from error
    except Exception as error:
        raise UnreadableFile(
            f"{path.name} is damaged or not what its name says: {one_line(error)}. Copy or export it again."
        ) from error


def check_promise(path: Path, needed: int, held: int, *, compressed: bool) -> None:
    """Raise UnreadableFile if a file of `held` bytes cannot hold the `needed` bytes that its header promises."""
    if needed > held * (GZIP_MOST if compressed else 1):
        raise UnreadableFile(
            f"{path.name} is truncated: its header promises {size(needed)} of voxels, the file has "
            f"{size(held)}{' compressed' * compressed}. Copy or export it again."
        )


def check_memory(path: Path, needed: int) -> None:
    """Raise UnsupportedVolume if `needed` bytes are more than the machine has; asked before they are taken, since
    systems that promise memory freely end the process instead of refusing."""
    there = physical_memory()
    if needed > there:
        raise UnsupportedVolume(
            f"{path.name} needs {size(needed)} of memory, the machine has {size(there)}. Crop it, or store it "
            f"uncompressed and without a slope: such files are read as they are shown."
        )


def physical_memory() -> float:
    """The machine's memory in bytes; infinite where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return math.inf


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
        count /= 1000
    return f"{count:.4g} TB"


def one_line(error: BaseException) -> str:
    """An exception's text without line breaks, places in C++ sources or a final stop; at most 200 characters."""
    text = _OBJECT_PLACE.sub("", _ITK_PLACE.sub("", str(error)))
    text = " ".join(text.split()) or type(error).__name__
    return (text if len(text) <= 200 else f"{text[:197]}...").rstrip(".")
