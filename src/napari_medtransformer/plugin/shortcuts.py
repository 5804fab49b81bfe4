"""Keys on the canvas. Manifests cannot bind keys yet, so they are bound to the viewer when a dock opens."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari_medtransformer.plugin.canvas import Tool

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController

Action = Callable[["SessionController"], None]


def _toggle_sign(controller: SessionController) -> None:
    controller.set_positive(not controller.positive)


SHORTCUTS: tuple[tuple[str, str, str, Action], ...] = (
    ("p", "P", "point tool", lambda c: c.set_tool(Tool.POINT)),
    ("b", "B", "box tool", lambda c: c.set_tool(Tool.BOX)),
    ("Escape", "Esc", "move only", lambda c: c.set_tool(Tool.PAN)),
    ("t", "T", "switch inside / outside", _toggle_sign),
    ("Tab", "Tab", "next of the model's masks", lambda c: c.prompting.cycle_mask()),
    ("n", "N", "next object, or a new one", lambda c: c.actions.next_object()),
    ("s", "S", "predict what is missing", lambda c: c.prediction.run()),
    ("Shift-s", "Shift+S", "propagate to 3D", lambda c: c.actions.propagate()),
    ("c", "C", "copy labels to a layer of my own", lambda c: c.actions.copy_to_layer()),
    ("Shift-c", "Shift+C", "clear this object's prompts on the slice", lambda c: c.prompting.clear_slice()),
    ("Control-z", "Ctrl+Z", "undo", lambda c: c.undo()),
    ("Control-Shift-z", "Ctrl+Shift+Z", "redo", lambda c: c.redo()),
)
"""napari's name of the key, the name people read, what it does, and how."""


def bind_shortcuts(viewer: Any, controller: SessionController) -> None:
    """Bind every key to the viewer; the active layer's own keys go first, as everywhere in napari."""
    reference = weakref.ref(controller)
    for key, _, _, action in SHORTCUTS:
        viewer.bind_key(key, _handler(reference, action), overwrite=True)


def shortcuts_help() -> str:
    """The keys as rich text."""
    rows = "".join(f"<tr><td><b>{name}</b>&nbsp;&nbsp;</td><td>{what}</td></tr>" for _, name, what, _ in SHORTCUTS)
    extra = "<tr><td><b>Shift-click</b>&nbsp;&nbsp;</td><td>a point of the other sign</td></tr>"
    return f"<b>Keys on the canvas</b><table>{extra}{rows}</table>"


def _handler(reference: weakref.ref[SessionController], action: Action) -> Callable[[Any], None]:
    def run(_viewer: Any) -> None:
        controller = reference()
        if controller is not None:
            action(controller)

    return run
