"""What the Prompt dock's buttons do beyond giving prompts: objects, propagation, masks filled and cleaned."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_medtransformer.errors import InvalidPrompt
from napari_medtransformer.models.encoding import EncodingStopped, watched_steps
from napari_medtransformer.plugin.notify import report, reported, tell, warn
from napari_medtransformer.plugin.prompts.statistics_table import Row
from napari_medtransformer.plugin.work import Job
from napari_medtransformer.progress import Progress

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController


EDITS = {
    "fill": ("Fill between", "Filled between the prompted slices"),
    "smooth": ("Smooth", "Smoothed"),
    "largest": ("Keep largest", "Kept the largest part"),
    "holes": ("Close holes", "Closed the holes"),
}
"""By the session's name of an edit: what people read on its button, and afterwards."""


class SessionActions(QObject):
    """The current session's objects, and what is done to their masks. Belongs to a controller, held weakly."""

    progressed = Signal(object)  # a Progress while something long runs, None when it has ended
    measured = Signal(list, str)  # Rows of the table of measurements, and the unit of the image's values

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = weakref.ref(controller)
        self.long_job: Job | None = None

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
        with reported():
            controller.session.colour_object(object_id, colour)
        controller.after_change()

    def class_object(self, object_id: int, class_name: str) -> None:
        """Say what kind of thing an object is, such as lesion."""
        controller = self._controller()
        with reported():
            controller.session.class_object(object_id, class_name)
        controller.after_change()

    def order_objects(self, object_ids: list[int]) -> None:
        """Which object lies on which, from the lowest to the one on top; one that is not there yet has no place."""
        controller = self._controller()
        there = {one.object_id for one in controller.session.objects}
        with reported():
            controller.session.order_objects([number for number in object_ids if number in there])
        controller.after_change()

    def remove_object(self, object_id: int) -> None:
        """Delete an object with its prompts and masks; undo brings it back.

        One that is not there yet is deselected.
        """
        controller = self._controller()
        if all(one.object_id != object_id for one in controller.session.objects):
            controller.keep_current_object()
        else:
            controller.session.remove_object(object_id)
        controller.after_change()

    def clear_object(self, object_id: int) -> None:
        """Take away all prompts and masks of an object, on every slice; undo brings them back."""
        controller = self._controller()
        with reported():
            controller.session.clear_object(object_id)
        controller.after_change()

    @property
    def volumes_ml(self) -> dict[int, float]:
        """Millilitres of every object that has a mask, by its number."""
        session = self._controller().session
        return {} if session is None else session.volumes_ml

    def statistics(self) -> None:
        """Measure every object in the worker, for the table."""
        controller = self._controller()
        session = controller.session
        if session is None:
            return
        unit = "HU" if session.volume.modality == "CT" else ""

        def measure() -> list[Row]:
            rows = []
            for known in session.objects:  # those that are there when their turn has come
                with suppress(InvalidPrompt):  # removed while the others were measured
                    one = session.statistics(known.object_id)
                    name = known.name or f"object {known.object_id}"
                    rows.append(Row(name, known.class_name, one.volume_ml, one.mean, one.std, one.diameter_mm))
            return rows

        def show(rows: list[Row]) -> None:
            self.measured.emit(rows, unit)

        controller.queue.submit(measure, label="Measuring…", key="statistics", on_done=show, on_error=report)

    # ------------------------------------------------------------------ 3D

    def propagate(self, afresh: bool = False) -> None:
        """Follow the current object through the slices, in the worker; can be cancelled.

        Only what depends on prompts that changed since the last time is followed again, unless afresh.
        """
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

        own: list[Job] = []  # the worker may begin before it is known here

        def watch(done: int, blocks: int) -> None:
            """In the worker: a large model takes long for a slice, and whoever cancels should not wait for it."""
            if any(job.cancelled.is_set() for job in own):
                raise EncodingStopped

        self.progressed.emit(Progress(0, None, "Propagating…"))
        self.long_job = controller.queue.submit_steps(
            lambda: watched_steps(session.model, session.propagation_steps(object_id, afresh=afresh), watch),
            label="Propagating…",
            on_progress=self.progressed.emit,
            on_done=accept,
            on_error=report,
            on_end=self._long_job_ended,
        )
        own.append(self.long_job)
        controller.changed.emit()

    def propagate_afresh(self) -> None:
        """Follow the current object anew from every prompted slice, not only where prompts changed."""
        self.propagate(afresh=True)

    def edit(self, kind: str) -> None:
        """Fill between slices, smooth, keep the largest part or close holes of the current object: one step of undo.

        kind: "fill", "smooth", "largest" or "holes".
        """
        controller = self._controller()
        session = controller.session
        if session is None or self.long_job is not None:
            return
        object_id = controller.workspace.current_object
        title, done = EDITS[kind]

        def accept(change: Any) -> None:
            before = session.revision
            with reported():
                if not session.accept_edit(change):
                    warn("The object changed meanwhile; the edit was dropped. Start it again.")
                elif session.revision == before:
                    tell(f"{title}: there was nothing to change.")
                else:
                    tell(f"{done}; Undo takes it back.")
            controller.after_change()

        self.long_job = controller.queue.submit(
            lambda: session.edit(kind, object_id),
            label=f"{title}…",
            on_done=accept,
            on_error=report,
            on_end=self._long_job_ended,
        )
        self.progressed.emit(Progress(0, None, f"{title}…"))
        controller.changed.emit()

    def cancel(self) -> None:
        """Stop what runs at its next step; nothing of it is kept."""
        if self.long_job is not None:
            self.long_job.cancel()

    def _long_job_ended(self) -> None:
        self.long_job = None
        self.progressed.emit(None)
        self._controller().changed.emit()
