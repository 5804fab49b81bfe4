"""Combo boxes of docks: what is too long is shortened, not cut off, and can still be read."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint
from qtpy.QtGui import QHelpEvent, QImage
from qtpy.QtWidgets import QApplication, QComboBox, QToolTip

from napari_medtransformer.plugin.widgets.choices import Choice

LONG = "sub-01_ses-02_acq-portalvenous_run-1_CT_resampled_T2w"


@pytest.fixture
def shown(qtbot):
    """A combo box of 200 pixels that shows LONG: shown(kind)."""

    def make(combo: QComboBox) -> QComboBox:
        qtbot.addWidget(combo)
        combo.addItem(LONG)
        combo.addItem("CT")
        combo.setFixedSize(200, 28)
        combo.show()
        qtbot.waitExposed(combo)
        return combo

    return make


def picture(combo: QComboBox) -> np.ndarray:
    """The painted pixels, (rows, columns) grey."""
    grabbed = combo.grab().toImage().convertToFormat(QImage.Format.Format_Grayscale8)
    rows, columns = grabbed.height(), grabbed.width()
    flat = np.frombuffer(grabbed.constBits().asstring(rows * grabbed.bytesPerLine()), np.uint8)
    return flat.reshape(rows, -1)[:, :columns].copy()


def test_a_long_text_is_shortened_in_its_middle(shown) -> None:
    combo = shown(Choice("the image"))
    assert combo.currentText() == LONG
    read = combo.shown_text
    assert read != LONG
    begin, end = read.split("…")
    assert LONG.startswith(begin)
    assert LONG.endswith(end)
    assert combo.fontMetrics().horizontalAdvance(read) < 200
    other = shown(QComboBox())
    assert (picture(combo) != picture(other)).any()  # Qt's own cuts it off
    combo.setCurrentIndex(1)
    assert combo.shown_text == "CT"


def test_what_fits_is_painted_as_qt_does(shown) -> None:
    own, qt = shown(Choice()), shown(QComboBox())
    for combo in (own, qt):
        combo.setPlaceholderText("none")
    for place in (1, -1):
        for combo in (own, qt):
            combo.setCurrentIndex(place)
        np.testing.assert_array_equal(picture(own), picture(qt))
    assert own.shown_text == "none"


def test_a_shortened_text_is_told_whole(shown) -> None:
    combo = shown(Choice("the image"))
    for place, told in ((0, f"{LONG}\nthe image"), (1, "the image")):
        combo.setCurrentIndex(place)
        at = QPoint(20, 10)
        QApplication.sendEvent(combo, QHelpEvent(QEvent.Type.ToolTip, at, combo.mapToGlobal(at)))
        assert QToolTip.text() == told
    QToolTip.hideText()
