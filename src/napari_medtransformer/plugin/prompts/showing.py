"""When the window shows what changed: at once, or with the answer that is about to come."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer, Signal

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController
    from napari_medtransformer.plugin.workspace import Workspace

HOLD_MS = 100
"""A prompt is drawn in one frame with its answer if that comes within this time: what the eye takes for at once
(Card, Moran and Newell 1983, the cycle of the perceptual processor). Drawn before, it would take the processor from
the model, and the answer would be drawn later."""
BUSY_MS = 150
"""What the worker does is told once it has taken this long; a click is answered before that."""


class Showing(QObject):
    """Brings the canvas and, by the controller's `changed`, the docks up to date. Holds its controller weakly."""

    busy_changed = Signal()

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = weakref.ref(controller)
        self.busy = ""  # what the worker is doing, as far as it is worth a word
        self._doing = ""
        self._held_in: Workspace | None = None  # whose prompt is not drawn yet
        self._held = _timer(self, HOLD_MS, self.now)
        self._waiting = _timer(self, BUSY_MS, self._tell_busy)

    def now(self) -> None:
        """Show everything as it is now."""
        self._held.stop()
        controller = self._controller()
        if controller is None:
            return
        workspace, held, self._held_in = controller.workspace, self._held_in, None
        layers = () if controller.viewer is None else controller.viewer.layers
        if held is not None and held is not workspace and held.layer in layers:
            held.refresh()  # another volume was turned to before its prompt was drawn
        if workspace is not None:
            workspace.refresh(controller.prompting.selected)
            controller.recovery.keep(workspace)
        controller.changed.emit()

    def with_answer(self) -> None:
        """Show a prompt that was just given: with its answer if that is soon there, and soon in any case."""
        controller = self._controller()
        if controller is None or not controller.prediction.answers_soon():
            self.now()
        elif not self._held.isActive():
            self._held.start()
            self._held_in = controller.workspace

    def work(self, label: str) -> None:
        """The worker does this now; empty: nothing that is worth a word."""
        self._doing = label
        if label and not self.busy:
            if not self._waiting.isActive():
                self._waiting.start()
            return
        self._waiting.stop()
        self._tell_busy()

    def close(self) -> None:
        """Show nothing more."""
        self._held_in = None
        self._held.stop()
        self._waiting.stop()

    def _tell_busy(self) -> None:
        if self.busy != self._doing:
            self.busy = self._doing
            self.busy_changed.emit()


def _timer(parent: QObject, milliseconds: int, do: Callable[[], None]) -> QTimer:
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(do)
    return timer
