"""The loop that answers prompts: ask in the worker, take the answer in, or wait for the user's word."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_medtransformer.plugin.notify import report
from napari_medtransformer.prompting import PromptSession

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController


class PredictionLoop(QObject):
    """Predicts after every prompt, or only on demand. Belongs to a controller, which it holds weakly."""

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = weakref.ref(controller)
        self.auto = controller.preferences.auto
        self.seconds: float | None = None  # from asking to the last answer
        self.answers = 0  # that were taken in so far

    def set_auto(self, on: bool) -> None:
        """Whether every prompt is answered at once; switched on, what waits is answered now."""
        self.auto = on
        if on:
            self.run()
        self._controller().changed.emit()

    def waiting(self) -> int:
        """Slices whose prompts wait for an answer that nobody has asked for."""
        session = self._controller().session
        return 0 if session is None or self.auto else len(session.pending())

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

    def ask(self, session: PromptSession, request: Any) -> None:
        """Predict in the worker; of several requests for one slice only the newest is answered."""
        asked = time.perf_counter()

        def accept(outcome: Any) -> None:
            controller = self._controller()
            if controller is not None and session.accept(outcome):
                self.seconds = time.perf_counter() - asked
                self.answers += 1
                controller.after_change()

        self._controller().queue.submit(
            lambda: session.predict(request),
            label="Predicting…",
            key=f"predict {id(session)} {request.key}",
            on_done=accept,
            on_error=report,
            urgent=True,
        )
