"""A session kept on disk while it is worked on, by a thread of its own, and found again after a crash.

autosave = Autosave(session, on_problem=tell)     # from now on every change is on disk a moment after it happened
autosave.problem                                  # None, or why the last changes are not on disk (a full disk)
autosave.close()                                  # work goes on elsewhere: the file stays, to be offered again
autosave.close(discard=True)                      # the work was saved or thrown away: the file goes

for found in recoverable(): ...                   # what programs that no longer run have left
session = PromptSession.recover(found.path, model, volume); found.discard()
"""

from __future__ import annotations

import secrets
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from napari_medtransformer.errors import CannotWrite, MedTransformerError
from napari_medtransformer.openmp import without_team
from napari_medtransformer.prompting.journal import Journal, Moment, read_journal
from napari_medtransformer.prompting.storage import SessionFacts

if TYPE_CHECKING:
    from napari_medtransformer.prompting.session import PromptSession

_SUFFIX = ".medt-autosave"
_RETRY_SECONDS = 10.0  # after a disk refused, even if nothing more is done


def default_folder() -> Path:
    """Where sessions are kept unless told otherwise: this user's state."""
    from platformdirs import user_state_path

    return user_state_path("napari-medtransformer", appauthor=False) / "sessions"


class Autosave:
    """Keeps one session on disk. on_problem: called with a line when writing fails, in the writing thread.

    A session without any change leaves no file. Raises CannotWrite if the folder cannot be made.
    """

    def __init__(
        self, session: PromptSession, folder: Path | None = None, on_problem: Callable[[str], None] | None = None
    ) -> None:
        self.folder = default_folder() if folder is None else Path(folder)
        self.path = self.folder / f"{secrets.token_hex(8)}{_SUFFIX}"
        self.problem: str | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(f"{self.path}.lock", thread_local=False)
            self._lock.acquire(timeout=0)
        except OSError as error:
            raise CannotWrite(f"sessions cannot be kept in {self.folder}: {error.strerror or error}.") from error
        self._session = session
        self._on_problem = on_problem
        self._journal = Journal(self.path)
        self._wake = threading.Condition()
        self._waiting: Callable[[], Moment] | None = None
        self._writing = False
        self._closed = False
        self._leave = session.subscribe(self._changed)
        self._thread = threading.Thread(target=self._work_alone, name="autosave", daemon=True)
        self._thread.start()
        if session.objects:
            self._changed(session)

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until all changes are on disk; False if they are not after `timeout` seconds, or the disk refuses."""
        until = time.monotonic() + timeout
        with self._wake:
            while self._waiting is not None or self._writing:
                if self.problem is not None and not self._writing:
                    return False
                if not self._wake.wait(until - time.monotonic()) and time.monotonic() >= until:
                    return False
        return self.problem is None

    def close(self, discard: bool = False) -> None:
        """Stop. discard: the file goes; else it stays, up to date, and is offered by `recoverable`."""
        self._leave()
        if not discard:
            self.flush()
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._thread.join(timeout=30.0)
        if discard:
            self.path.unlink(missing_ok=True)
        self._lock.release()
        with suppress(OSError):
            Path(self._lock.lock_file).unlink(missing_ok=True)

    def _changed(self, session: PromptSession) -> None:
        """Take note of the present moment: records that never change, so nothing is copied but references."""
        state, predictions, facts = session.state, session.known_predictions(), session.facts_later()
        with self._wake:
            self._waiting = lambda: Moment(facts(), state, predictions)
            self._wake.notify_all()

    def _work_alone(self) -> None:
        with without_team():  # hashing a model asks torch for a little
            self._work()

    def _work(self) -> None:
        while True:
            with self._wake:
                while self._waiting is None and not self._closed:
                    self._wake.wait()
                if self._closed:
                    return
                moment, self._waiting, self._writing = self._waiting, None, True
            problem = self._write(moment) if moment is not None else None
            with self._wake:
                self._writing = False
                told = problem if problem != self.problem else None
                self.problem = problem
                if problem is not None and self._waiting is None:
                    self._waiting = moment  # nothing is lost: it is tried again
                self._wake.notify_all()
            if told is not None:
                self._tell(told)
            if problem is not None:
                with self._wake:
                    self._wake.wait(_RETRY_SECONDS)

    def _write(self, moment: Callable[[], Moment]) -> str | None:
        """Why it was not written, or None."""
        try:
            self._journal.write(moment())
        except Exception as error:  # whatever it is: a thread that died of it would be waited for in vain
            why = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
            return f"the session is not kept on disk at the moment ({why}); make room in {self.folder}, or save it."
        return None

    def _tell(self, problem: str) -> None:
        if self._on_problem is None:
            warnings.warn(problem, stacklevel=2)
        else:
            self._on_problem(problem)


@dataclass(frozen=True)
class Recoverable:
    """A session that a program left behind. changed: when it was last written, seconds since 1970."""

    path: Path
    facts: SessionFacts
    objects: int
    prompts: int
    changed: float

    def discard(self) -> None:
        """Throw it away."""
        self.path.unlink(missing_ok=True)
        Path(f"{self.path}.lock").unlink(missing_ok=True)


def recoverable(folder: Path | None = None) -> list[Recoverable]:
    """The sessions whose program no longer runs, the latest first. A damaged file is told by a warning and left."""
    folder = default_folder() if folder is None else Path(folder)
    found = []
    for path in folder.glob(f"*{_SUFFIX}"):
        lock = FileLock(f"{path}.lock")
        try:
            with lock.acquire(timeout=0):
                facts, state, _, _ = read_journal(path)
                prompts = sum(len(there.prompts) for there in state.slices.values())
                found.append(Recoverable(path, facts, len(state.objects), prompts, path.stat().st_mtime))
        except Timeout:
            continue  # somebody is working on it
        except (OSError, MedTransformerError) as error:
            warnings.warn(f"a session that was kept automatically cannot be read: {error}", stacklevel=2)
    return sorted(found, key=lambda one: -one.changed)
