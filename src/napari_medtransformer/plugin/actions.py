"""What the Prompt dock's buttons do beyond giving prompts: objects, propagation, export."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_medtransformer.plugin.notify import report, reported, tell, warn
from napari_medtransformer.plugin.work import Job
from napari_medtransformer.progress import Progress
from napari_medtransformer.prompting import PromptSession
from napari_medtransformer.volumes import write_labels

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController


class SessionActions(QObject):
    """The current session's objects, propagation and files. Belongs to a controller, which it holds weakly."""

    progressed = Signal(object)  # a Progress while something long runs, None when it has ended
    volumes_changed = Signal()

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = weakref.ref(controller)
        self.long_job: Job | None = None
        self.volumes_ml: dict[int, float] = {}

    # ------------------------------------------------------------------ objects

    def select_object(self, object_id: int) -> None:
        """Prompts go to this object from now on."""
        controller = self._controller()
        if controller.workspace is not None and controller.workspace.current_object != object_id:
            controller.workspace.current_object = object_id
            controller.after_change()

    def new_object(self) -> None:
        """A further object, and select it."""
        controller = self._controller()
        if controller.session is not None:
            with reported():
                controller.workspace.current_object = controller.session.new_object()
            controller.after_change()

    def next_object(self) -> None:
        """Select the next object; after the last, a new one unless the last is still empty."""
        controller = self._controller()
        session = controller.session
        if session is None:
            return
        ids = [o.object_id for o in session.objects]
        current = controller.workspace.current_object
        place = ids.index(current) if current in ids else -1
        if place + 1 < len(ids):
            self.select_object(ids[place + 1])
        elif any(prompt.object_id == current for prompt in session.prompts.values()):
            self.new_object()
        elif ids:
            self.select_object(ids[0])

    def rename_object(self, object_id: int, name: str) -> None:
        """Give an object a name; the labels layer shows it in napari's status bar."""
        controller = self._controller()
        with reported():
            controller.session.rename_object(object_id, name)
        controller.after_change()

    def colour_object(self, object_id: int, colour: str) -> None:
        """Give an object a colour. colour: hex."""
        controller = self._controller()
        controller.workspace.colours[object_id] = colour
        controller.after_change()

    def remove_object(self, object_id: int) -> None:
        """Delete an object with its prompts and masks; undo brings it back."""
        controller = self._controller()
        with reported():
            controller.session.remove_object(object_id)
        controller.after_change()

    def clear_object(self, object_id: int) -> None:
        """Take away all prompts and masks of an object, on every slice; undo brings them back."""
        controller = self._controller()
        with reported():
            controller.session.clear_object(object_id)
        controller.after_change()

    def measure(self) -> None:
        """Count every object's millilitres in the worker."""
        controller = self._controller()
        session, workspace = controller.session, controller.workspace
        if session is None:
            return
        labels, volume = session.live_labels, workspace.volume
        controller.queue.submit(
            lambda: object_volumes_ml(labels, volume.spacing),
            label="",
            key="measure",
            on_done=self._measured,
        )

    def _measured(self, volumes_ml: dict[int, float]) -> None:
        self.volumes_ml = volumes_ml
        self.volumes_changed.emit()

    # ------------------------------------------------------------------ 3D

    def propagate(self) -> None:
        """Follow the current object through the slices, in the worker; can be cancelled."""
        controller = self._controller()
        session = controller.session
        if session is None or self.long_job is not None:
            return
        object_id = controller.workspace.current_object

        def accept(propagation: Any) -> None:
            with reported():
                if session.accept_propagation(propagation):
                    tell("Propagated; Undo takes it back as one step.")
                else:
                    warn("The prompts changed meanwhile; the propagation was dropped. Start it again.")
            controller.after_change()

        self.progressed.emit(Progress(0, None, "Propagating…"))
        self.long_job = controller.queue.submit_steps(
            lambda: session.propagation_steps(object_id),
            label="Propagating…",
            on_progress=self.progressed.emit,
            on_done=accept,
            on_error=report,
            on_end=self._long_job_ended,
        )
        controller.changed.emit()

    def cancel(self) -> None:
        """Stop what runs at its next step; nothing of it is kept."""
        if self.long_job is not None:
            self.long_job.cancel()

    def _long_job_ended(self) -> None:
        self.long_job = None
        self.progressed.emit(None)
        self._controller().changed.emit()

    # ------------------------------------------------------------------ files

    def copy_to_layer(self) -> None:
        """Copy the labels into a layer of the user's own, which can be painted on."""
        controller = self._controller()
        workspace, viewer = controller.workspace, controller.viewer
        layer = workspace.copy_of_labels() if workspace is not None else None
        if layer is None:
            warn("There is nothing to copy yet: click in the image first.")
            return
        workspace.add_layer(layer)
        tell(f"Copied to the layer {viewer.layers[-1].name}; it is yours to paint on.")

    def save_labels(self, path: str | Path) -> None:
        """Write all objects as labels on the input file's own grid."""
        controller = self._controller()
        session, volume = controller.session, controller.workspace.volume
        labels = session.labels
        controller.queue.submit(
            lambda: write_labels(labels, volume, path),
            label="Saving…",
            on_done=lambda written: tell(f"Saved {written}."),
            on_error=report,
        )

    def save_session(self, path: str | Path) -> None:
        """Write prompts, objects and masks to one file that can be opened again."""
        with reported():
            self._controller().session.save(path)
            tell(f"Saved {path}.")

    def open_session(self, path: str | Path) -> None:
        """Go on with a saved session of this volume."""
        controller = self._controller()
        with reported():
            session = PromptSession.load(path, controller.model, controller.workspace.volume)
            controller.adopt(session)


def object_volumes_ml(labels: np.ndarray, spacing_zyx_mm: tuple[float, float, float]) -> dict[int, float]:
    """Millilitres of every object. labels: (z, y, x) unsigned integers, 0 is background."""
    count = int(labels.max()) + 1
    # Slice by slice: bincount makes 64-bit integers of all that it is given.
    voxels = sum(np.bincount(plane.ravel(), minlength=count) for plane in labels)
    millilitres = float(np.prod(spacing_zyx_mm)) / 1000
    return {i: float(n) * millilitres for i, n in enumerate(voxels) if i and n}
