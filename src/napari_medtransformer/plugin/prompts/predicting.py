"""The loop that answers prompts: ask in the worker, take the answer in, or wait for the user's word."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_medtransformer.models.encoding import EncodingStopped, watched_encoder
from napari_medtransformer.plugin.notify import report, tell
from napari_medtransformer.plugin.planes import PLANES
from napari_medtransformer.progress import Progress
from napari_medtransformer.prompting import PromptSession
from napari_medtransformer.prompting.prompts import SliceKey

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController

SOON_S = 0.25
"""The next answer on an encoded slice is worth waiting for if the last took no longer; some of it was spent on drawing
the prompt, if that was not waiting."""
SHOWN_AFTER_S = 0.5
"""Encoding is worth a word once it has taken this long."""


class PredictionLoop(QObject):
    """Predicts after every prompt, or only on demand. Belongs to a controller, which it holds weakly."""

    encoding = Signal(object)  # a Progress while an encoder takes its time, None when it has ended

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = weakref.ref(controller)
        self.auto = controller.preferences.auto
        self.seconds: float | None = None  # from asking to the last answer
        self.answers = 0  # that were taken in so far
        self.progress: Progress | None = None  # of the encoder that runs
        self._asked: list[SliceKey] = []  # that are not answered yet
        self._since = 0.0  # when the first of them was asked
        self._stop = threading.Event()
        self._stopped = False  # what was stopped waits for the user's word
        self.encoding.connect(self._on_encoding)

    def set_auto(self, on: bool) -> None:
        """Whether every prompt is answered at once; switched on, what waits is answered now."""
        self.auto = on
        if on:
            self.run()
        self._controller().changed.emit()

    def waiting(self) -> int:
        """Slices whose prompts wait for an answer that nobody has asked for."""
        session = self._controller().session
        return 0 if session is None or (self.auto and not self._stopped) else len(session.pending())

    @property
    def asking(self) -> bool:
        """Whether prompts wait for the worker's answer."""
        return bool(self._asked)

    def watch_ahead(self, axis: int, index: int, done: int, blocks: int) -> None:
        """In the worker, while a slice is encoded ahead: prompts that wait for it see how far it is.

        Raises EncodingStopped where prompts wait that are all elsewhere, or the user wants no more of it.
        """
        asked = list(self._asked)
        if not asked:
            return
        if self._stop.is_set() or all((key.axis, key.index) != (axis, index) for key in asked):
            raise EncodingStopped
        if time.perf_counter() - self._since > SHOWN_AFTER_S:
            self.encoding.emit(Progress(done, blocks, _what(asked[0])))

    def answers_soon(self) -> bool:
        """Whether what was asked last is likely to be answered before anybody would notice a delay."""
        session, asked = self._controller().session, list(self._asked)
        if session is None or not asked or (self.seconds or 0) > SOON_S:
            return False
        key = asked[-1]
        return not key.in_3d and session.is_encoded(key.axis, key.index)

    def follow(self, session: PromptSession, requests: Iterable[Any]) -> None:
        """Something was prompted, moved or removed: predict it, unless prediction is on demand. None is passed over."""
        for request in requests:
            if request is not None and self.auto:
                self.ask(session, request)

    def run(self) -> None:
        """Predict every slice that still lacks its answer, of the current session."""
        session = self._controller().session
        if session is not None:
            for request in session.pending():
                self.ask(session, request)

    def stop(self) -> None:
        """End the encoder that runs, between two of its blocks; its prompts stay and wait for `run`."""
        self._stop.set()

    def ask(self, session: PromptSession, request: Any) -> None:
        """Predict in the worker; of several requests for one slice only the newest is answered."""
        asked, key, frames = time.perf_counter(), request.key, self._controller().view.frames
        self._stop.clear()
        self._stopped = False
        if not self._asked:
            self._since = asked
        self._asked.append(key)
        waiting = [key]

        def over() -> bool:
            """The answer is there, or will not come; whether that is new."""
            if waiting:
                self._asked.remove(waiting.pop())
                return True
            return False

        def watch(done: int, blocks: int) -> None:
            """In the worker."""
            if self._stop.is_set():
                raise EncodingStopped
            if time.perf_counter() - asked > SHOWN_AFTER_S:
                self.encoding.emit(Progress(done, blocks, _what(key)))

        def predict() -> Any:
            with watched_encoder(session.model, watch):
                outcome = session.predict(request)
            frames.expect()  # else slices would go on being encoded before the window has begun to draw the answer
            return outcome

        def accept(outcome: Any) -> None:
            controller = self._controller()
            if controller is not None and session.accept(outcome):
                over()  # before the window shows the answer, and beside it whether others are waited for
                self.seconds = time.perf_counter() - asked
                self.answers += 1
                controller.after_change()

        def failed(error: Exception) -> None:
            if isinstance(error, EncodingStopped):
                self._stopped = True
                tell("Stopped; the prompt waits for S.")
            else:
                report(error)

        def ended() -> None:
            unanswered = over()
            self.encoding.emit(None)
            controller = self._controller()
            if controller is None:
                return
            if unanswered:
                controller.changed.emit()
            if not self._asked and not self._stopped:
                controller.view.resume()

        self._controller().queue.submit(
            predict,
            label="Predicting…",
            key=f"predict {id(session)} {key}",
            on_done=accept,
            on_error=failed,
            on_end=ended,
            urgent=True,
        )

    def _on_encoding(self, progress: Progress | None) -> None:
        if progress is None and self.progress is None:
            return
        self.progress = progress
        controller = self._controller()
        if controller is not None:
            controller.changed.emit()


def _what(key: SliceKey) -> str:
    return "the surroundings of the prompts" if key.in_3d else f"{PLANES[key.axis].lower()} slice {key.index}"
