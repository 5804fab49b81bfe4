"""Heatmaps that follow the cursor: one question at a time, the newest place next, thumbnails once the hand rests."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_medtransformer.plugin.notify import report

if TYPE_CHECKING:
    from napari_medtransformer.plugin.attention.head_maps import Seen
    from napari_medtransformer.plugin.attention.state import AttentionState

REST_MS = 120
"""A hand that stays for so long over a voxel rests: the mark is drawn, thumbnails and numbers follow."""
PICTURES_S = 0.5
"""While it keeps moving, the map follows as fast as it can; thumbnails and numbers, this often."""
AT_ONCE_S = 0.006
"""An answer that took no longer is found in the window's thread: the worker would share Python with the canvas, and
each of the two would wait for the other longer than this."""


class CursorPace(QObject):
    """Asks for the place under the cursor once the last answer is drawn. Belongs to a state, held weakly.

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
        self._pictured_at = -math.inf
        self._quickest = math.inf  # seconds that a question took at the last site of the last inspection
        self._quickest_of: tuple[int, str] | None = None
        self._answering = False
        self._rest = _timer(self, REST_MS, self._on_rest)
        # After mouse events and the canvas, which come first: one map for each frame, and for where the cursor is.
        self._next = _timer(self, 0, self._answer)
        self._drawn = _timer(self, 0, self._on_drawn)

    def move(self) -> None:
        """The cursor is over another voxel."""
        self._moved = True
        if self._rest.isActive():
            self._rest.start()
        self.go_on()

    def answered(self, seen: Seen) -> None:
        """An answer is there and about to be drawn; the worker goes on meanwhile."""
        place = _place(seen)
        self._quickest = min(self._quickest, seen.seconds) if place == self._quickest_of else seen.seconds
        self._quickest_of = place
        if not self._answering:
            self._busy = False
            self.go_on()

    def go_on(self) -> None:
        """Ask for the newest place unless an earlier one is still being asked about or drawn."""
        state = self._state()
        if not self._moved or self._busy or state is None:
            return
        self._busy = True
        if self._at_once(state):
            self._next.start()
            return
        self._moved, self._asked = False, self._asked + 1
        self._busy = state.ask_under_cursor(partial(self._ended, self._asked))

    def picture(self) -> None:
        """An answer came without thumbnails: those shown are brought up to date soon."""
        if time.monotonic() - self._pictured_at > PICTURES_S:
            self._ask_pictures()
        self._rest.start()

    def _at_once(self, state: AttentionState) -> bool:
        seen = state.seen
        known = seen is not None and state.is_quick and self._quickest_of == _place(seen)
        return known and self._quickest < AT_ONCE_S

    def _answer(self) -> None:
        state = self._state()
        if state is None:
            return
        self._moved, self._answering = False, True
        try:
            state.answer_under_cursor()
        finally:
            self._answering = False
            self._drawn.start()

    def _on_drawn(self) -> None:
        self._busy = False
        self.go_on()

    def _ended(self, question: int) -> None:
        if question == self._asked:
            self._busy = False
            self.go_on()

    def _on_rest(self) -> None:
        state = self._state()
        if state is not None and state.seen is not None:
            state.draw()
            if not state.seen.is_pictured:
                self._ask_pictures()

    def _ask_pictures(self) -> None:
        state = self._state()
        seen = None if state is None else state.seen
        if seen is None:
            return
        from napari_medtransformer.plugin.attention import head_maps

        self._pictured_at = time.monotonic()
        style = state.style

        def show(pictures: Mapping[str, np.ndarray]) -> None:
            now = state.seen
            if now is None or now.answer.site != seen.answer.site or now.inspection is not seen.inspection:
                return
            state.seen = replace(now, pictures=pictures, is_pictured=now.answer is seen.answer)
            if not state.seen.is_pictured:
                self.picture()
            self.pictured.emit()

        state.controller.queue.submit(
            lambda: head_maps.pictures_of(
                seen.inspection, seen.answer, head_maps.PICTURE, style.colour_map, style.percentile
            ),
            label="",
            key="attention pictures",
            on_done=show,
            on_error=report,
        )


def _place(seen: Seen) -> tuple[int, str]:
    """The site that answered, in what was inspected; nothing is kept alive by it."""
    return id(seen.inspection), seen.answer.site


def _timer(parent: CursorPace, milliseconds: int, slot: Callable[[], None]) -> QTimer:
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(slot)
    return timer
