"""Mouse and keys on the canvas are prompts' while a dock is in the window, and napari's own otherwise."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_medtransformer.plugin.docking import OpenDocks
from napari_medtransformer.plugin.prompts.canvas import CanvasTools
from napari_medtransformer.plugin.prompts.shortcuts import CanvasKeys

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController


class MouseAndKeys(QObject):
    """Those of one viewer. The mouse is taken at once, the keys when a dock for prompts comes."""

    def __init__(self, viewer: Any, controller: SessionController) -> None:
        super().__init__()
        self._controller = weakref.ref(controller)
        self.canvas = CanvasTools(viewer, controller)
        self._keys = CanvasKeys(viewer, controller)
        self.docks = OpenDocks(viewer.window._qt_window)
        self.docks.came.connect(self._take)
        self.docks.left.connect(self._rest)

    def detach(self) -> None:
        """Give both back to napari."""
        self.canvas.detach()
        self._keys.release()

    def _take(self) -> None:
        self.canvas.attach()
        if self.docks.give_prompts:
            self._keys.bind()

    def _rest(self) -> None:
        controller = self._controller()
        if controller is not None:
            controller.hover.clear()
            controller.gestures.drop_polygon()
        self.detach()
