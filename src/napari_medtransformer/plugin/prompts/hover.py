"""What a click here would give: the outline of the model's answer follows the cursor, and never holds it up."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer

from napari_medtransformer.errors import MedTransformerError
from napari_medtransformer.plugin.layer_volume import SlicePoint
from napari_medtransformer.plugin.notify import report
from napari_medtransformer.plugin.prompts.tools import Sketch, Tool
from napari_medtransformer.prompting.drawing import in_volume, mask_outlines
from napari_medtransformer.prompting.prompts import PointPrompt, SliceKey

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController

THROTTLE_MS = 60
"""The model is asked this often at most; what the cursor passed over meanwhile is left out."""
_NAME = "hover"


class HoverPreview(QObject):
    """Asks for the place under the cursor once the last answer is there. Belongs to a controller, held weakly."""

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = weakref.ref(controller)
        self.on = controller.preferences.hover
        self._point: SlicePoint | None = None
        self._last: SlicePoint | None = None  # what was asked about last
        self._asked = 0  # the newest question: an answer to an older one is dropped
        self._busy = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(THROTTLE_MS)
        self._timer.timeout.connect(self._ask)

    def set_on(self, on: bool) -> None:
        """Whether the preview follows the cursor."""
        self.on = on
        if not on:
            self.clear()
        self._controller().changed.emit()

    @property
    def wants_moves(self) -> bool:
        """Whether the cursor is to be followed now."""
        controller = self._controller()
        return self.on and controller.tool is Tool.POINT and controller.session is not None

    def moved(self, point: SlicePoint | None) -> None:
        """The cursor is here now; None outside the volume."""
        if point is None:
            self.clear()
            return
        self._point = point
        if not self._timer.isActive() and not self._busy:
            self._timer.start()

    def clear(self) -> None:
        """Take the preview away; what is still being asked is dropped."""
        self._timer.stop()
        self._point, self._asked = None, self._asked + 1
        self._show(())

    def close(self) -> None:
        """Stop for good."""
        self._timer.stop()
        self._point = None

    def _ask(self) -> None:
        controller, point = self._controller(), self._point
        session = controller.session if controller is not None else None
        if point is None or session is None or session.in_3d or not self.wants_moves:
            return
        index = point.voxel[point.axis]
        if not session.is_encoded(point.axis, index):
            return  # it is on its way; a preview is not worth waiting for
        key = SliceKey(controller.workspace.current_object, point.axis, index)
        extra = PointPrompt(point.position_zyx, controller.positive, key.object_id, key.axis)
        request = session.request_with(extra)
        self._asked += 1
        self._busy, self._last = True, point
        stamp, revision = self._asked, session.revision

        def look() -> Any:
            try:
                outcome = session.predict(request)
            except MedTransformerError:
                return ()
            return tuple(in_volume(line, key.axis, key.index) for line in mask_outlines(outcome.prediction.mask))

        def show(lines: Any) -> None:
            fresh = stamp == self._asked and session is controller.session and revision == session.revision
            if fresh:
                colour = controller.workspace.colour(key.object_id)
                self._show(tuple(Sketch(line, colour, closed=True) for line in lines))

        controller.queue.submit(
            look, label="", key="hover", on_done=show, on_error=report, on_end=self._ended, urgent=True
        )

    def _ended(self) -> None:
        self._busy = False
        if self._point is not self._last and self.wants_moves:
            self._timer.start()  # the cursor has moved on meanwhile

    def _show(self, sketches: tuple[Sketch, ...]) -> None:
        controller = self._controller()
        if controller is not None and controller.workspace is not None:
            controller.workspace.prompts.sketch(sketches, _NAME)
