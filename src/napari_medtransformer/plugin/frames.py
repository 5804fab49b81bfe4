"""When the window draws a frame: work that nobody waits for rests meanwhile, as both would want the same cores."""

from __future__ import annotations

import threading
import time
from typing import Any

from qtpy.QtCore import QObject

REST_S = 0.15
"""Work rests for one frame no longer than this: what a software renderer needs on a busy machine. A window that is
hidden draws none."""


class Frames(QObject):
    """Follows a viewer's canvas. `rest` is for other threads; in a viewer without a window it never waits.

    A frame of an OpenGL canvas whose renderer is software, as on a remote desktop or a virtual machine, takes all
    cores for some tens of milliseconds; on a graphics card it is over so soon that nothing rests to speak of.
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._shown = threading.Event()
        self._shown.set()
        self._until = 0.0  # when work goes on, whatever became of the frame
        canvas = getattr(getattr(getattr(viewer, "window", None), "_qt_viewer", None), "canvas", None)
        native = getattr(canvas, "native", None)
        self._draws: Any = None
        # Signals of Qt's OpenGL widget; a canvas on another backend goes without.
        if hasattr(native, "aboutToCompose") and hasattr(native, "frameSwapped"):
            native.aboutToCompose.connect(self._begun)
            native.frameSwapped.connect(self._swapped)
            self._draws = canvas._scene_canvas.events.draw
            self._draws.connect(self._begun, position="first")

    def detach(self) -> None:
        """Follow the canvas no more; whoever rests goes on."""
        if self._draws is not None:
            self._draws.disconnect(self._begun)
            self._draws = None
        self._swapped()

    def expect(self) -> None:
        """A frame is about to be drawn: what it shows was just found. Any thread."""
        if self._draws is not None:
            self._until = time.perf_counter() + REST_S
            self._shown.clear()

    def rest(self) -> None:
        """Wait until the frame that is being drawn is on the screen, if one is. Any thread but the window's."""
        left = self._until - time.perf_counter()
        if left > 0:
            self._shown.wait(left)

    def _begun(self, event: Any = None) -> None:
        self.expect()

    def _swapped(self) -> None:
        self._shown.set()
