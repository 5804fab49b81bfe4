"""What the viewer shows, followed: planes stand upright, edges are lettered, the slice on screen is encoded ahead."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_medtransformer.models.encoding import EncodingStopped, watched_steps
from napari_medtransformer.plugin import planes
from napari_medtransformer.plugin.frames import Frames
from napari_medtransformer.plugin.notify import report
from napari_medtransformer.plugin.volume.aids import aids_of
from napari_medtransformer.progress import Progress
from napari_medtransformer.prompting.session_following import nearest_first

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController
    from napari_medtransformer.plugin.work import Job

PREFETCH_DELAY_MS = 120
"""A slice is encoded ahead once the slider has rested this long."""
HANDS_ON_S = 2.0
"""So long after the mouse was last moved over the canvas, encoding ahead leaves one of its threads' cores to it."""


class ViewFollower(QObject):
    """Listens to the viewer's dimensions on behalf of a controller; holds both weakly. `detach` ends it."""

    prefetched = Signal(object)  # a Progress while slices are encoded ahead, None when that has ended

    def __init__(self, viewer: Any, controller: SessionController) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self._controller = weakref.ref(controller)
        self.aids = aids_of(viewer)
        self.frames = Frames(viewer)
        self._interrupted = False
        self._touched = 0.0  # when the mouse was used last
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PREFETCH_DELAY_MS)
        self._timer.timeout.connect(self._prefetch)
        events = viewer.dims.events
        self._listening = [
            (events.current_step, self._on_slice),
            (events.order, self._on_plane),
            (events.ndisplay, self._on_plane),
        ]
        for emitter, callback in self._listening:
            emitter.connect(callback)

    def detach(self) -> None:
        """Stop listening."""
        self._timer.stop()
        self.frames.detach()
        for emitter, callback in self._listening:
            emitter.disconnect(callback)
        self._listening.clear()

    def show(self) -> None:
        """Show the controller's volume upright and lettered, whoever opened it; encode the slice soon."""
        viewer, controller = self._viewer(), self._controller()
        if viewer is None or controller is None:
            return
        workspace = controller.workspace
        if workspace is not None:
            self.aids.assume(controller.layer, workspace.volume)
            self._timer.start()

    def touch(self) -> None:
        """The mouse is being used on the canvas."""
        self._touched = time.perf_counter()

    def encode_soon(self) -> None:
        """Encode the slice on screen once things have rested."""
        self._timer.start()

    def resume(self) -> None:
        """Go on encoding ahead if prompts elsewhere have ended it."""
        if self._interrupted:
            self._timer.start()

    def shown_slice(self) -> tuple[int, int] | None:
        """(axis, index) of the slice of the volume that is on screen; None in 3D or outside the volume."""
        viewer, controller = self._viewer(), self._controller()
        if viewer is None or controller is None or controller.workspace is None:
            return None
        return planes.shown_slice(viewer, controller.layer, controller.workspace.volume.shape)

    def _on_slice(self) -> None:
        self._timer.start()
        controller = self._controller()
        if controller is not None:
            controller.follow_slice()

    def _on_plane(self) -> None:
        self.show()
        self._on_slice()

    def _prefetch(self) -> None:
        controller, where = self._controller(), self.shown_slice()
        session = controller.session if controller is not None else None
        if where is None or session is None:
            return
        axis, index = where
        reach = controller.preferences.reach
        self._interrupted = False
        own: list[Job] = []  # the worker may begin before it is known here

        def steps() -> Iterator[Progress]:
            """Encoding gives way to prompts on other slices, and to another slice on screen, between two blocks.

            What nobody waits for also leaves a core to the window while somebody works in it, and all of them while
            it draws.
            """
            order = nearest_first(index, session.volume.shape[axis], reach)
            slices, at = session.prefetch_around(axis, index, reach), 0

            def watch(done: int, blocks: int) -> None:
                if any(job.cancelled.is_set() for job in own):
                    raise EncodingStopped
                controller.prediction.watch_ahead(axis, order[at], done, blocks)
                hands_on = time.perf_counter() - self._touched < HANDS_ON_S
                sparing = hands_on and at > 0 and not controller.prediction.asking
                controller.queue.share_cores(spare=1 if sparing else 0)
                if at > 0 and not controller.prediction.asking:
                    self.frames.rest()

            for step in watched_steps(session.model, slices, watch):
                at = min(step.done, len(order) - 1)
                yield step

        job = controller.queue.submit_steps(
            steps,
            label="",
            key="prefetch",
            on_progress=self._on_prefetch,
            on_error=self._on_prefetch_error,
            on_end=lambda: self.prefetched.emit(None),
        )
        own.append(job)

    def _on_prefetch_error(self, error: Exception) -> None:
        if isinstance(error, EncodingStopped):
            self._interrupted = True
        else:
            report(error)

    def _on_prefetch(self, progress: Progress) -> None:
        self.prefetched.emit(progress)
