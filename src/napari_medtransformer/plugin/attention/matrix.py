"""All sites asked the present query, for the matrix of depth × heads: soon after each query, in the worker."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_medtransformer.plugin.notify import report

if TYPE_CHECKING:
    from napari_medtransformer.inspection.queries import Answer
    from napari_medtransformer.plugin.attention.state import AttentionState

DELAY_MS = 150
"""All sites are asked once the query has rested this long."""


class MatrixOfHeads(QObject):
    """The answers of every site and a small picture of every head. Belongs to a state, held weakly."""

    changed = Signal()

    def __init__(self, state: AttentionState) -> None:
        super().__init__()
        self._state = weakref.ref(state)
        self.answers: tuple[Answer, ...] = ()
        self.cells: list[list[np.ndarray]] = []
        self.wanted = False
        self._made_of: Any = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY_MS)
        self._timer.timeout.connect(self._ask)

    def want(self, wanted: bool) -> None:
        """Whether every site is asked as well, soon after each query."""
        self.wanted = wanted
        self.follow()

    def follow(self) -> None:
        """There is another answer."""
        if self.wanted and self._state().seen is not None:
            self._timer.start()

    def forget(self) -> None:
        """Another volume or model."""
        self.answers, self.cells, self._made_of = (), [], None
        self.changed.emit()

    def _ask(self) -> None:
        state = self._state()
        seen = state.seen
        if seen is None or not state.awake or not self.wanted:
            return
        style, known = state.style, self._made_of
        wish = (seen.inspection, seen.answer.query, style.colour_map, style.percentile)
        if known is not None and known[0] is wish[0] and known[1:] == wish[1:]:
            self.changed.emit()
            return
        from napari_medtransformer.plugin.attention import head_maps

        def show(found: tuple[list[Answer], list[list[np.ndarray]]]) -> None:
            answers, self.cells = found
            self.answers, self._made_of = tuple(answers), wish
            self.changed.emit()

        state.controller.queue.submit_steps(
            lambda: head_maps.matrix_of(*wish),
            label="",
            key="attention matrix",
            on_done=show,
            on_error=report,
        )
