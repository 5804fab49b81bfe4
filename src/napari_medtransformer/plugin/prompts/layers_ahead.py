"""The layers that the first click needs, made before it comes."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from napari_medtransformer.plugin.layer_volume import frames_of
from napari_medtransformer.plugin.prompts.tools import Tool
from napari_medtransformer.plugin.turns import Turns
from napari_medtransformer.plugin.workspace import Workspace

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController

_DRAWING = (Tool.BOX, Tool.SCRIBBLE, Tool.LASSO)


class LayersAhead:
    """Makes the layers of masks and points of the first volume in a viewer once a model can answer clicks on it, and
    that of lines once a tool is taken that draws them.

    napari makes a layer, and the renderer its programs, in some tenths of a second that would else come between the
    first click and its mask. Each is made in a turn of its own. Later volumes get theirs with their first prompt, as
    programs are there by then, and a list of empty layers helps nobody.
    """

    def __init__(self, controller: SessionController) -> None:
        self._controller = weakref.ref(controller)
        self._made_for: weakref.ref[Workspace] | None = None
        self._turns = Turns(lambda: self._wanted() is not None)
        controller.changed.connect(self._look)
        self._look()

    def _look(self) -> None:
        workspace = self._wanted()
        if workspace is not None and self._made_for is None:
            self._made_for = weakref.ref(workspace)
            self._turns.later(workspace.show_masks, workspace.prompts.show_points)
        if workspace is not None and workspace.prompts.shapes is None and self._controller().tool in _DRAWING:
            self._turns.later(workspace.prompts.show_shapes)

    def _wanted(self) -> Workspace | None:
        """The volume whose layers shall be made."""
        controller = self._controller()
        workspace = None if controller is None else controller.workspace
        if workspace is None or workspace.session is None or frames_of(workspace.layer) > 1:
            return None
        return workspace if self._made_for is None or self._made_for() is workspace else None
