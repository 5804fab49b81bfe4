"""Who may run: tests marked `alone` wait until no other process runs a test, and others wait for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(folder: Path, alone: bool) -> Iterator[None]:
    """Wait for one's turn among the processes that share a folder, and have it for as long as the block lasts."""
    import fcntl  # not on Windows

    with (folder / "door").open("a") as door, (folder / "room").open("a") as room:
        # Whoever waits to be alone holds the door, so that the room empties.
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)  # closing would not do while a forked process has the file, too
