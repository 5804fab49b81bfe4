"""What leaves the session and comes back: label files, session files, labels layers of the user's own, unsaved work."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers import Labels
from qtpy.QtCore import QObject, Signal

from napari_medtransformer.plugin.notify import report, reported, tell, warn
from napari_medtransformer.plugin.prompts.commits import Overlap, commit_to, fits, in_the_way
from napari_medtransformer.prompting import PromptSession
from napari_medtransformer.volumes import write_labels

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController
    from napari_medtransformer.plugin.workspace import Workspace


LABELS_FILTER = "Labels (*.nii.gz *.nii *.seg.nrrd *.nrrd *.mha *.dcm)"
SESSION_FILTER = "Session (*.medt)"


class SessionFiles(QObject):
    """Saving, opening and handing over. Belongs to a controller, which it holds weakly.

    ask_overlap(layer name, voxels in the way) is how the user is asked before labels are replaced; None cancels.
    ask_file(workspace, title, ending, kinds) is how for a file; "" cancels.
    """

    saved = Signal()

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = weakref.ref(controller)
        self.ask_overlap: Callable[[str, int], Overlap | None] = _ask_overlap
        self.ask_file: Callable[[Workspace, str, str, str], str] = _ask_file

    def commit(self) -> None:
        """Hand the labels over to a layer of the user's own: the one used before, the one selected, or a new one."""
        controller = self._controller()
        workspace = controller.workspace
        if workspace is None or workspace.session is None or not workspace.session.live_labels.any():
            warn("There is nothing to commit yet: click in the image first.")
            return
        layer = self._target(workspace)
        overlap: Overlap | None = Overlap.OVERWRITE
        if layer is not None:
            in_way = in_the_way(workspace, layer)
            overlap = self.ask_overlap(layer.name, in_way) if in_way else Overlap.KEEP
        if overlap is None:
            return
        if layer is None or overlap is Overlap.NEW_LAYER:
            layer = workspace.labels_layer_for_user()
            workspace.add_layer(layer, below_prompts=True)
            tell(f"Committed to the new layer {layer.name}; it is yours to paint on.")
        else:
            tell(f"Committed to {layer.name}; Undo takes it back.")
        workspace.commits.add(commit_to(workspace, layer, overlap))
        workspace.committed = weakref.ref(layer)
        controller.changed.emit()

    def save_labels_as(self) -> None:
        """Ask for a file and write the labels."""
        path = self.ask_file(self._controller().workspace, "Save labels", "_labels.nii.gz", LABELS_FILTER)
        if path:
            self.save_labels(path)

    def save_labels(self, path: str | Path) -> None:
        """Write all objects as labels on the input file's own grid, the upper ones over the lower."""
        controller = self._controller()
        session, volume = controller.session, controller.workspace.volume
        labels = session.labels
        controller.queue.submit(
            lambda: write_labels(labels, volume, path),
            label="Saving…",
            on_done=lambda written: tell(f"Saved {written}."),
            on_error=report,
        )

    def save_session_as(self) -> bool:
        """Ask for a file and save the session; whether it was saved."""
        path = self.ask_file(self._controller().workspace, "Save session", ".medt", SESSION_FILTER)
        return bool(path) and self.save_session(path)

    def save_session(self, path: str | Path) -> bool:
        """Write prompts, objects and masks to one file that can be opened again; whether it was written."""
        controller = self._controller()
        with reported():
            controller.session.save(path)
            controller.recovery.let_go(controller.workspace, discard=True)
            tell(f"Saved {path}.")
            self.saved.emit()
            return True
        return False

    def open_session(self, path: str | Path) -> None:
        """Go on with a saved session of this volume."""
        controller = self._controller()
        with reported():
            session = PromptSession.load(
                path, controller.model, controller.workspace.volume, controller.embedding_store()
            )
            # What was there before stays on disk, to be offered again, if it was not saved.
            controller.recovery.let_go(controller.workspace, discard=not controller.workspace.unsaved)
            controller.adopt(session)

    def _target(self, workspace: Workspace) -> Labels | None:
        """The layer that the labels go to, if it is there already."""
        viewer = self._controller().viewer
        active = viewer.layers.selection.active
        if active is not None and fits(active, workspace):
            return active
        before = workspace.committed() if workspace.committed is not None else None
        return before if before is not None and before in viewer.layers and fits(before, workspace) else None


def _ask_file(workspace: Workspace, title: str, ending: str, kinds: str) -> str:
    from napari_medtransformer.plugin.prompts.questions import ask_file

    return ask_file(workspace, title, ending, kinds)


def _ask_overlap(name: str, voxels: int) -> Overlap | None:
    from napari_medtransformer.plugin.prompts.questions import ask_overlap

    return ask_overlap(name, voxels)
