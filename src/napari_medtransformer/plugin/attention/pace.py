"""Heatmaps that follow the cursor: one question at a time, the newest place next, thumbnails now and then."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_medtransformer.plugin.notify import report

if TYPE_CHECKING:
    from napari_medtransformer.plugin.attention.head_maps import Seen
    from napari_medtransformer.plugin.attention.state import AttentionState

PICTURES_MS = 150
"""The map on the anatomy follows the cursor as fast as it can; thumbnails and numbers beside it, this often."""


class CursorPace(QObject):
    """Asks for the place under the cursor once the last answer is there. Belongs to a state, held weakly.

    What the cursor passed over meanwhile is left out, and no answer is thrown away: else a map would not be drawn
    before the hand rests.
    """

    pictured = Signal()  # the state's thumbnails are those of its newest answer again

    def __init__(self, state: AttentionState) -> None:
        super().__init__()
        self._state = weakref.ref(state)
        self._moved = False
        self._asked = 0  # questions so far
        self._busy = False  # with the last of them
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PICTURES_MS)
        self._timer.timeout.connect(self._ask_pictures)

    def move(self) -> None:
        """The cursor is over another voxel."""
        self._moved = True
        self.go_on()

    def answered(self) -> None:
        """An answer is there and about to be drawn; the worker goes on meanwhile."""
        self._busy = False
        self.go_on()

    def go_on(self) -> None:
        """Ask for the newest place unless the worker is still at an earlier one."""
        state = self._state()
        if self._moved and not self._busy and state is not None:
            self._moved, self._asked = False, self._asked + 1
            self._busy = state.ask_under_cursor(partial(self._ended, self._asked))

    def picture(self, seen: Seen) -> None:
        """An answer came without thumbnails: those shown are brought up to date soon."""
        if not self._timer.isActive():
            self._timer.start()

    def _ended(self, question: int) -> None:
        if question == self._asked:
            self._busy = False
            self.go_on()

    def _ask_pictures(self) -> None:
        state = self._state()
        seen = None if state is None else state.seen
        if seen is None:
            return
        from napari_medtransformer.plugin.attention import head_maps

        style, upside_down = state.style, state.upside_down

        def show(pictures: Mapping[str, np.ndarray]) -> None:
            now = state.seen
            if now is None or now.answer.site != seen.answer.site or now.inspection is not seen.inspection:
                return
            state.seen = replace(now, pictures=pictures, is_pictured=now.answer is seen.answer)
            if not state.seen.is_pictured:
                self.picture(state.seen)
            self.pictured.emit()

        state.controller.queue.submit(
            lambda: head_maps.pictures_of(
                seen.inspection, seen.answer, head_maps.PICTURE, style.colour_map, style.percentile, upside_down
            ),
            label="",
            key="attention pictures",
            on_done=show,
            on_error=report,
        )
