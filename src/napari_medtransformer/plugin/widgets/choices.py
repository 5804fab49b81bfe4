"""What several docks are built of: choices that are kept, buttons that say why not, listeners that are let go."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QPaintEvent, QPalette
from qtpy.QtWidgets import QComboBox, QSizePolicy, QStyle, QStyleOptionComboBox, QStylePainter, QToolButton, QToolTip

from napari_medtransformer.plugin.widgets.style import enable


class Choice(QComboBox):
    """An empty combo box that takes the width there is, widens no dock, and shortens in the middle what is too long.

    Its tooltip then begins with the whole text. letters: how many there is room for at least.
    """

    def __init__(self, tooltip: str = "", letters: int = 6) -> None:
        super().__init__()
        self.setToolTip(tooltip)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMinimumContentsLength(letters)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)

    @property
    def shown_text(self) -> str:
        """What can be read of the choice, or of the placeholder."""
        return self._styled().currentText

    def _styled(self) -> QStyleOptionComboBox:
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        if self.currentIndex() < 0 and self.placeholderText():
            option.currentText = self.placeholderText()
            option.palette.setBrush(QPalette.ColorRole.ButtonText, option.palette.placeholderText())
        part = QStyle.SubControl.SC_ComboBoxEditField
        room = self.style().subControlRect(QStyle.ComplexControl.CC_ComboBox, option, part, self).width()
        middle = Qt.TextElideMode.ElideMiddle
        option.currentText = self.fontMetrics().elidedText(option.currentText, middle, room)
        return option

    def paintEvent(self, event: QPaintEvent | None) -> None:
        option, painter = self._styled(), QStylePainter(self)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)

    def event(self, event: QEvent | None) -> bool:
        if event is not None and event.type() == QEvent.Type.ToolTip and self.shown_text != self.currentText():
            told = "\n".join(text for text in (self.currentText(), self.toolTip()) if text)
            QToolTip.showText(event.globalPos(), told, self)
            return True
        return super().event(event)


def offer(combo: QComboBox, items: Sequence[tuple[str, Any]], placeholder: str = "") -> None:
    """Offer items, (text, data) each, and keep the choice if it is still among them. placeholder: shown without any."""
    chosen = combo.currentText()
    combo.clear()
    for text, data in items:
        combo.addItem(text, data)
    combo.setPlaceholderText(placeholder)
    combo.setCurrentIndex(max(combo.findText(chosen), 0) if items else -1)
    combo.setEnabled(bool(items))


def allow(button: QToolButton, tip: str, obstacle: str) -> None:
    """Enable a button unless something is in its way; its tooltip then says what."""
    enable(button, not obstacle, tip, obstacle)


def letting_go(source: Any, events: Iterable[str], callback: Callable[..., Any]) -> Callable[[], None]:
    """A function that takes `callback` off events of a layer or a layer list, if that is still there.

    events: their names. For a widget's `destroyed`.
    """
    known, names = weakref.ref(source), tuple(events)

    def let_go() -> None:
        present = known()
        if present is not None:
            for name in names:
                getattr(present.events, name).disconnect(callback)

    return let_go
