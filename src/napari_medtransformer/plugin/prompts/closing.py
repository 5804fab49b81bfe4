"""Before a window with unsaved work closes, the user is asked."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject

from napari_medtransformer.plugin.prompts.questions import Closing, ask_closing

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController


class CloseGuard(QObject):
    """Watches the viewer's window, whatever docks are in it.

    A program that closes the viewer takes its layers away first, and is not asked.

    ask(names, kept) is how the user is asked.
    """

    def __init__(self, viewer: Any, controller: SessionController) -> None:
        super().__init__()
        self._controller = weakref.ref(controller)
        self.ask: Callable[[list[str], bool], Closing] = ask_closing
        viewer.window._qt_window.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """True, and the window stays, if the user says so."""
        if event.type() != QEvent.Type.Close:
            return False
        controller = self._controller()
        if controller is None or self._may_close(controller):
            return False
        event.ignore()
        return True

    def _may_close(self, controller: SessionController) -> bool:
        unsaved = [] if controller.viewer is None else controller.unsaved()
        if not unsaved:
            return True
        answer = self.ask([workspace.layer.name for workspace in unsaved], controller.preferences.autosave)
        if answer is Closing.SAVE:
            return all(controller.turn_to(workspace) and controller.files.save_session_as() for workspace in unsaved)
        return answer is Closing.LEAVE
