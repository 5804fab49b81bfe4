"""How pages are laid out: parts below one another or, where there is room, side by side."""

from __future__ import annotations

from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QBoxLayout, QVBoxLayout, QWidget

MARGIN, SPACING = 6, 8
WIDE = 640
"""Pixels from which parts lie side by side."""
_NO_LIMIT = 16777215  # Qt's


def stacked(*parts: QWidget, last_grows: bool = False, margin: int = 0) -> QWidget:
    """Parts below one another; what room is left is the last one's, or stays empty below it."""
    page = QWidget()
    layout = QVBoxLayout(page)
    layout.setContentsMargins(margin, margin, margin, margin)
    layout.setSpacing(SPACING)
    for part in parts:
        layout.addWidget(part)
    if last_grows:
        layout.setStretch(len(parts) - 1, 1)
    else:
        layout.addStretch(1)
    return page


class SideBySide(QWidget):
    """Parts below one another in a narrow dock, side by side in a wide one."""

    def __init__(self) -> None:
        super().__init__()
        self._box = QBoxLayout(QBoxLayout.Direction.TopToBottom, self)
        self._box.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN)
        self._box.setSpacing(SPACING)
        self._first: QWidget | None = None
        self._first_width = _NO_LIMIT

    def fill(self, *parts: tuple[QWidget, int], first_width: int = _NO_LIMIT) -> None:
        """Take parts (widget, stretch). first_width: pixels that the first one has at most beside the others."""
        self._first, self._first_width = parts[0][0], first_width
        for part, stretch in parts:
            self._box.addWidget(part, stretch)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """There may be room now, or none any more."""
        wide = event.size().width() >= WIDE
        self._box.setDirection(QBoxLayout.Direction.LeftToRight if wide else QBoxLayout.Direction.TopToBottom)
        if self._first is not None:
            self._first.setMaximumWidth(self._first_width if wide else _NO_LIMIT)
        super().resizeEvent(event)
