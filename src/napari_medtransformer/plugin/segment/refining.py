"""Hands structures of a segmentation to the Prompt dock, where clicks correct them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_medtransformer.plugin.models.slot import DEFAULT_MODEL
from napari_medtransformer.plugin.notify import report, tell
from napari_medtransformer.plugin.planes import shown_slice

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController
    from napari_medtransformer.plugin.workspace import Workspace

PROMPT_COMMAND = ("napari-medtransformer", "Prompt")

Structure = tuple[str, str, np.ndarray]


class Refining(QObject):
    """Belongs to a dock. What is handed over waits until a model answers prompts on its image."""

    handed_over = Signal()

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = controller
        self._waiting: list[tuple[weakref.ref[Workspace], Structure]] = []
        controller.changed.connect(self._go_on)

    @property
    def waiting(self) -> bool:
        """Whether structures wait for a model."""
        return bool(self._waiting)

    def hand_over(self, structures: Iterable[Structure]) -> None:
        """Make objects of structures, (name, colour, mask (z, y, x)) each, and bring up the Prompt dock."""
        controller = self._controller
        viewer = controller.viewer
        if viewer is None or controller.workspace is None:
            return
        workspace = weakref.ref(controller.workspace)
        self._waiting += [(workspace, structure) for structure in structures]
        viewer.window.add_plugin_dock_widget(*PROMPT_COMMAND, tabify=True)
        if controller.models.card is None:
            controller.models.load(DEFAULT_MODEL)
        self._go_on()

    def _go_on(self) -> None:
        session, workspace = self._controller.session, self._controller.workspace
        if session is None or workspace is None:
            return
        waiting = [(its(), structure) for its, structure in self._waiting]
        structures = [structure for its, structure in waiting if its is workspace]
        self._waiting = [(weakref.ref(its), structure) for its, structure in waiting if its not in (workspace, None)]
        if not structures:
            return
        try:
            axis = self._shown_axis()
            for name, colour, mask in structures:
                object_id = session.new_object(name)
                session.import_mask(mask, object_id, axis)
                session.colour_object(object_id, colour)
                workspace.current_object = object_id
        except Exception as error:  # a refusal must not leave the rest waiting for ever
            report(error)
        self._controller.after_change()
        self.handed_over.emit()
        names = ", ".join(name for name, _, _ in structures)
        tell(f"{names}: now an object of the Prompt dock. Click inside what is missing, Shift-click what is too much.")

    def _shown_axis(self) -> int:
        """The axis across the slices on screen: masks are refined on those."""
        controller = self._controller
        shown = shown_slice(controller.viewer, controller.layer, controller.workspace.volume.shape)
        return 0 if shown is None else shown[0]
