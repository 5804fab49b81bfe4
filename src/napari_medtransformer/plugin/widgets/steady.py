"""Widgets that change often and disturb nothing: a text that moves nothing else, a bar that is painted now and then.

A window with an OpenGL canvas is composed as a whole whenever any part of it changes, and a text in a layout makes the
whole dock be laid out, and perhaps painted, anew.
"""

from __future__ import annotations

from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtGui import QResizeEvent, QShowEvent
from qtpy.QtWidgets import QProgressBar, QSizePolicy, QWidget

from napari_medtransformer.plugin.widgets.style import QuietLabel
from napari_medtransformer.progress import Progress

BAR_MS = 200
"""A bar is painted this often at most."""


class SteadyText(QWidget):
    """Secondary text in the room of so many lines, however long it is; the whole text is its tooltip."""

    def __init__(self, lines: int = 2) -> None:
        super().__init__()
        self.label = QuietLabel()
        self.label.setParent(self)
        self.label.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self._lines = lines
        self._fit()
        self.setMinimumWidth(self.label.minimumWidth())
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def text(self) -> str:
        """What it says."""
        return self.label.text()

    def say(self, text: str) -> None:
        """Say something else."""
        if self.label.text() != text:
            self.label.setText(text)
            self.setToolTip(text)

    def showEvent(self, event: QShowEvent | None) -> None:
        """napari's style sheet, and with it the font, is known only now."""
        self._fit()

    def changeEvent(self, event: QEvent | None) -> None:
        """The font may be another."""
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.StyleChange, QEvent.Type.FontChange):
            self._fit()

    def _fit(self) -> None:
        said = self.label.text()
        self.label.ensurePolished()
        self.label.setText("\n".join("x" * self._lines))  # with what the style puts around it
        self.setFixedHeight(self.label.sizeHint().height())
        self.label.setText(said)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """The label has no layout: it fills this widget and asks for nothing."""
        self.label.setGeometry(self.rect())


class CalmBar(QProgressBar):
    """A progress bar that is painted with one of the window's next frames, and never at once."""

    def __init__(self) -> None:
        super().__init__()
        self._told: Progress | None = None
        self._pause = QTimer(self)
        self._pause.setSingleShot(True)
        self._pause.setInterval(BAR_MS)
        self._pause.timeout.connect(self._show_told)
        self.hide()

    def tell(self, progress: Progress | None) -> None:
        """How far something is; None hides the bar."""
        self._told = progress
        if progress is None:
            self._pause.stop()
            self.hide()
        elif not self._pause.isActive():
            self._show_told()

    def _show_told(self) -> None:
        progress = self._told
        if progress is None:
            return
        total, message = progress.total or 0, progress.message or "%v of %m"
        if (self.value(), self.maximum(), self.format()) != (progress.done, total, message):
            # Told a value, Qt's bar repaints at once, and with it composes the whole window; now it waits its turn.
            self.setUpdatesEnabled(False)
            self.setRange(0, total)
            self.setValue(progress.done)
            self.setFormat(message)
            self.setUpdatesEnabled(True)
            self._pause.start()
        self.show()
