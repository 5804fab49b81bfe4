"""Keys on the canvas. Manifests cannot bind keys yet, so they are bound to the viewer when a dock opens.

Where micro-sam and nnInteractive give one key two meanings, micro-sam's stays, as it has more of them: S predicts and
Shift+S goes through the volume, so that scribbles are on D (draw); L, P, B and R are nnInteractive's.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QEvent, QObject, Qt

from napari_medtransformer.plugin.prompts.tools import Tool

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController

Action = Callable[["SessionController"], None]


def _toggle_sign(controller: SessionController) -> None:
    controller.set_positive(not controller.positive)


def _toggle_hover(controller: SessionController) -> None:
    controller.hover.set_on(not controller.hover.on)


def _escape(controller: SessionController) -> None:
    """One step out: of an outline, of a selection, of the tool."""
    if controller.gestures.clicking_outline:
        controller.gestures.drop_polygon()
    elif controller.prompting.selected:
        controller.prompting.select(())
    else:
        controller.set_tool(Tool.PAN)


def _reset(controller: SessionController) -> None:
    if controller.workspace is not None and controller.session is not None:
        controller.actions.clear_object(controller.workspace.current_object)


SHORTCUTS: tuple[tuple[str, str, str, Action], ...] = (
    ("p", "P", "point: click", lambda c: c.set_tool(Tool.POINT)),
    ("b", "B", "box: drag", lambda c: c.set_tool(Tool.BOX)),
    ("d", "D", "scribble: paint a stroke", lambda c: c.set_tool(Tool.SCRIBBLE)),
    ("l", "L", "lasso: drag around, or click corners and double-click", lambda c: c.set_tool(Tool.LASSO)),
    ("g", "G", "grab a label of another layer, to refine it", lambda c: c.set_tool(Tool.REFINE)),
    ("e", "E", "edit: click a prompt to select it, drag to move it", lambda c: c.set_tool(Tool.EDIT)),
    ("Delete", "Del", "remove the selected prompt", lambda c: c.prompting.remove_selected()),
    ("Backspace", "Backspace", "the same", lambda c: c.prompting.remove_selected()),
    ("Escape", "Esc", "drop the outline or the selection; then: move the view only", _escape),
    ("t", "T", "switch inside / outside", _toggle_sign),
    ("h", "H", "preview under the cursor, on and off", _toggle_hover),
    ("Tab", "Tab", "next of the model's masks", lambda c: c.prompting.cycle_mask()),
    ("n", "N", "next object, or a new one", lambda c: c.actions.next_object()),
    ("s", "S", "predict what waits for it", lambda c: c.prediction.run()),
    ("Shift-s", "Shift+S", "propagate to 3D", lambda c: c.actions.propagate()),
    ("c", "C", "commit to a labels layer of my own", lambda c: c.files.commit()),
    ("Shift-c", "Shift+C", "clear this object's prompts on the slice", lambda c: c.prompting.clear_slice()),
    ("r", "R", "reset this object on every slice", _reset),
    ("Control-z", "Ctrl+Z", "undo", lambda c: c.undo()),
    ("Control-Shift-z", "Ctrl+Shift+Z", "redo", lambda c: c.redo()),
)
"""napari's name of the key, the name people read, what it does, and how."""

_MOUSE = (("Shift-click", "a prompt of the other sign"), ("Alt-drag", "moves the view, whatever the tool"))


class CanvasKeys(QObject):
    """The same keys on the viewer, on images and on the masks, and Tab on the canvas, from `bind` until `release`.

    A layer's own keys go first: C adjusts an image's contrast, P paints. Layers of the user's own and the prompts' keep
    napari's keys. Holds viewer and controller weakly.
    """

    def __init__(self, viewer: Any, controller: SessionController) -> None:
        super().__init__()
        self._viewer, self._controller = weakref.ref(viewer), weakref.ref(controller)
        self._owners: weakref.WeakSet[Any] = weakref.WeakSet()

    def bind(self) -> None:
        """Bind them all; nothing happens where they are bound."""
        viewer, controller = self._viewer(), self._controller()
        if viewer is None or controller is None or self._owners:
            return
        self._owners.add(viewer)
        bind_shortcuts(viewer, controller)
        # Qt would move the focus with Tab before napari ever heard of the key.
        viewer.window._qt_viewer.canvas.native.installEventFilter(self)
        viewer.layers.selection.events.active.connect(self._bind_layer)
        self._bind_layer()

    def release(self) -> None:
        """Give napari its keys back."""
        viewer = self._viewer()
        if viewer is None or not self._owners:
            return
        viewer.layers.selection.events.active.disconnect(self._bind_layer)
        for owner in self._owners:
            for key, *_ in SHORTCUTS:
                owner.bind_key(key, None)
        self._owners.clear()
        with suppress(AttributeError, RuntimeError):  # a window that is closed has no canvas any more
            viewer.window._qt_viewer.canvas.native.removeEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """True if it was Tab alone."""
        controller = self._controller()
        if controller is None or event.type() != QEvent.Type.KeyPress or event.key() != Qt.Key.Key_Tab:
            return False
        controller.prompting.cycle_mask()
        return True

    def _bind_layer(self, _event: Any = None) -> None:
        viewer, controller = self._viewer(), self._controller()
        if viewer is None or controller is None:
            return
        layer = viewer.layers.selection.active
        workspace = controller.workspace
        if isinstance(layer, Image) or (workspace is not None and layer is not None and layer is workspace.masks):
            self._owners.add(layer)
            _bind_to(layer, controller)


def bind_shortcuts(viewer: Any, controller: SessionController) -> None:
    """Bind every key to the viewer; a layer's own keys go first, as everywhere in napari (see CanvasKeys)."""
    _bind_to(viewer, controller)


def _bind_to(owner: Any, controller: SessionController) -> None:
    reference = weakref.ref(controller)
    for key, _, _, action in SHORTCUTS:
        owner.bind_key(key, _handler(reference, action), overwrite=True)


def shortcuts_help() -> str:
    """The keys as rich text."""
    named = [(name, what) for _, name, what, _ in SHORTCUTS]
    rows = "".join(f"<tr><td><b>{name}</b>&nbsp;&nbsp;</td><td>{what}</td></tr>" for name, what in (*_MOUSE, *named))
    return f"<b>With the mouse over the canvas</b><table>{rows}</table>"


def _handler(reference: weakref.ref[SessionController], action: Action) -> Callable[[Any], None]:
    def run(_viewer: Any) -> None:
        controller = reference()
        if controller is not None:
            action(controller)

    return run
