"""Downloads of weights in a worker of their own, so that clicks are answered meanwhile."""

from __future__ import annotations

from qtpy.QtCore import QObject, Signal

from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.download import fetch_weights
from napari_medtransformer.plugin.work import Job, WorkQueue
from napari_medtransformer.progress import Progress


class Downloads(QObject):
    """One download after another; each can be watched and cancelled. What has come of it is kept for the next time."""

    changed = Signal(str)  # a model's name: its download began, went on or ended
    fetched = Signal(str)
    failed = Signal(str, Exception)

    def __init__(self) -> None:
        super().__init__()
        self._queue = WorkQueue()
        self._jobs: dict[str, Job] = {}
        self._progress: dict[str, Progress] = {}

    def start(self, card: ModelCard) -> None:
        """Fetch a model's weights unless that is under way."""
        name = card.name
        if name in self._jobs:
            return
        self._progress[name] = Progress(0, None, "waiting for its turn")
        self._jobs[name] = self._queue.submit_steps(
            lambda: fetch_weights(card),
            label=f"Fetching {name}…",
            on_progress=lambda progress: self._went_on(name, progress),
            on_done=lambda _: self.fetched.emit(name),
            on_error=lambda error: self.failed.emit(name, error),
            on_end=lambda: self._ended(name),
        )
        self.changed.emit(name)

    def cancel(self, name: str) -> None:
        """Stop a download; one that is not under way is no mistake."""
        job = self._jobs.get(name)
        if job is not None:
            job.cancel()
            self._progress[name] = Progress(0, None, "stopping…")
            self.changed.emit(name)

    def progress(self, name: str) -> Progress | None:
        """How far a model's download is, None if none is under way."""
        return self._progress.get(name)

    def close(self) -> None:
        """Stop everything; nothing is heard of it."""
        self._queue.close()

    def _went_on(self, name: str, progress: Progress) -> None:
        if name in self._jobs:
            self._progress[name] = progress
            self.changed.emit(name)

    def _ended(self, name: str) -> None:
        self._jobs.pop(name, None)
        self._progress.pop(name, None)
        self.changed.emit(name)
