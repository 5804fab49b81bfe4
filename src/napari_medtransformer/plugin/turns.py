"""Things that take the window long by themselves, done one at a time, with its life going on in between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from qtpy.QtCore import QObject, QTimer

TURN_MS = 10
"""What the window has between two turns, besides what it needs to paint and to answer the mouse."""


class Turns(QObject):
    """Belongs to the window's thread. may_go_on: asked before each turn; when it says no, what is left is dropped."""

    def __init__(self, may_go_on: Callable[[], bool] = lambda: True) -> None:
        super().__init__()
        self._may_go_on = may_go_on
        self._left: deque[Callable[[], None]] = deque()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(TURN_MS)
        self._timer.timeout.connect(self._take)

    def __len__(self) -> int:
        return len(self._left)

    def later(self, *actions: Callable[[], None]) -> None:
        """Do each of these in a turn of its own, after what is waiting already."""
        self._left.extend(actions)
        if self._left and not self._timer.isActive():
            self._timer.start()

    def take_all(self) -> None:
        """Do at once what is left."""
        while self._left:
            self._take()

    def _take(self) -> None:
        if not self._may_go_on():
            self._left.clear()
        if self._left:
            self._left.popleft()()
        if self._left:
            self._timer.start()
