"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from napari_medtransformer.errors import CannotWrite, in_words

# The bits of a file's mode that say who may read, write and run it.
_PERMISSIONS = 0o777


def file_to_write(path: str | os.PathLike[str]) -> Path:
    """`path`, if a file of that name may be written: it can be a file's, is no folder's, and its folder takes files.

    Raises CannotWrite.
    """
    try:
        target = Path(path)
        with suppress(FileNotFoundError, NotADirectoryError):  # a new file, or a missing folder
            target.stat()
    except (OSError, TypeError, ValueError) as error:  # a name too long, no permission, what is no path
        raise CannotWrite(f"{in_words(path)} cannot be written: {error}. Choose another name.") from error
    if not target.parent.is_dir():
        raise CannotWrite(f"{target} was not written: there is no folder {target.parent}. Create it first.")
    if target.is_dir():
        raise CannotWrite(f"{target} was not written: it is a folder. Choose a file name.")
    _check_access(target.parent, target)
    return target


def folder_to_write(path: str | os.PathLike[str]) -> Path:
    """A folder into which files can be written, made with those above it if need be. Raises CannotWrite."""
    try:
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, TypeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CannotWrite(f"{path} is no folder and none could be made: {reason}.") from error
    _check_access(folder, folder)
    return folder


def _check_access(folder: Path, target: Path) -> None:
    """Raises CannotWrite where the system would refuse a new file, so that it is told before the work."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CannotWrite(f"{target} was not written: no permission to write in {folder}. Save it elsewhere.")


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """A stream to a new file that takes the place of `target` once everything is written; on any error it is removed.

    Raises CannotWrite for what the system refuses (full disk, missing folder, no permission).
    """
    target = Path(os.path.realpath(target))  # a link keeps pointing at the new file
    temporary = target.with_name(f".{target.name[:80]}.{secrets.token_hex(4)}.part")
    try:
        # Opened with the usual mode, so that the user's umask decides who may read a new file (a tempfile would be
        # private); whom an existing one was open to, it stays open to.
        with temporary.open("xb") as stream:
            with suppress(OSError):  # a new file, or a disk that knows no modes
                temporary.chmod(target.stat().st_mode & _PERMISSIONS)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())  # a full disk may show only here
        temporary.replace(target)
    except OSError as error:
        raise CannotWrite(f"{target} was not written: {_reason(error, target)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(target: Path, text: str) -> None:
    """Write a text file whole (UTF-8), its folder made if need be. Raises CannotWrite."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"{target} was not written: {_reason(error, target)}") from error
    with replacing(target) as stream:
        stream.write(text.encode())


def _reason(error: OSError, target: Path) -> str:
    """Why the system refused, and what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full. Free some space on the disk of {target.parent} and save again."
    if error.errno == errno.EFBIG:
        return "it would exceed the largest file allowed here. Save it elsewhere."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to write in {target.parent}. Save it elsewhere."
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{target.parent} is no folder. Save it elsewhere."
    return f"{error.strerror or error}."
