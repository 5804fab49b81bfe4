"""The volumes that were worked on in one viewer, each with its workspace, and the one that is worked on now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from napari.layers import Image, Layer
from qtpy.QtCore import QTimer

from napari_medtransformer.plugin.layer_volume import frames_of
from napari_medtransformer.plugin.workspace import Workspace
from napari_medtransformer.prompting import PromptSession


class OpenVolumes:
    """Workspaces by layer and frame."""

    def __init__(self) -> None:
        self._workspaces: dict[tuple[Layer, int], Workspace] = {}
        self.current: Workspace | None = None

    def __iter__(self) -> Iterator[Workspace]:
        return iter(list(self._workspaces.values()))

    def of(self, layer: Image, frame: int) -> Workspace | None:
        """The workspace of a layer's volume, if it was worked on."""
        return self._workspaces.get((layer, frame))

    def add(self, workspace: Workspace) -> None:
        """From now on there is this one."""
        self._workspaces[workspace.layer, workspace.frame] = workspace

    def leave(self) -> None:
        """Put the current volume's things aside; of a layer with one frame they stay on the canvas."""
        if self.current is not None and frames_of(self.current.layer) > 1:
            self.current.set_visible(False)

    def sessions(self) -> list[PromptSession]:
        """Of every volume that was worked on."""
        return [workspace.session for workspace in self if workspace.session is not None]

    def unsaved(self, viewer: Any) -> list[Workspace]:
        """The volumes in the viewer with work that no file holds."""
        return [w for w in self if w.unsaved and viewer is not None and w.layer in viewer.layers]

    def unfinished(self, layer: Layer) -> bool:
        """Whether any frame of an image has unsaved work, or prompts that wait for their model."""
        return any(w.unsaved or w.waiting for w in self if w.layer is layer)

    def drawn_on(self, layer: Layer) -> list[Layer]:
        """The masks, prompts and results on an image, of all its frames."""
        return [drawn for workspace in self if workspace.layer is layer for drawn in workspace.drawn]

    def forget(self, layer: Layer) -> list[Workspace]:
        """A layer was taken out of the viewer. Returns the workspaces that go with it."""
        gone = [self._workspaces.pop(key) for key in list(self._workspaces) if key[0] is layer]
        for workspace in gone:
            # Later: more layers may be about to be taken out. A bound method alone would not keep its workspace alive.
            QTimer.singleShot(0, lambda gone=workspace: gone.hand_over())
        for workspace in self:
            workspace.forget(layer)
        return gone
