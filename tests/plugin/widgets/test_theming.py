"""Docks wear napari's theme, also once it is changed under them; and the tabs of one dock fit into its width."""

from __future__ import annotations

import pytest
from napari.utils.theme import get_theme
from qtpy.QtCore import QTimer
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QApplication, QFrame, QLabel

from napari_medtransformer.plugin.attention.dock import AttentionDock
from napari_medtransformer.plugin.prompts.commits import Overlap
from napari_medtransformer.plugin.prompts.dock import PromptDock
from napari_medtransformer.plugin.prompts.questions import ask_overlap
from napari_medtransformer.plugin.segment.dock import SegmentDock
from napari_medtransformer.plugin.volume.dock import VolumeDock
from napari_medtransformer.plugin.widgets.style import DOCK_WIDTH


def background(widget) -> QColor:
    picture = widget.grab().toImage()
    return picture.pixelColor(picture.width() // 2, 3)


@pytest.mark.parametrize("kind", [PromptDock, AttentionDock, SegmentDock, VolumeDock])
def test_a_dock_follows_when_the_theme_is_changed(open_desk, kind) -> None:
    desk = open_desk()
    dock = kind(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, area="right")
    desk.qtbot.wait(50)
    card = next(frame for frame in dock.findChildren(QFrame, "medtSection") if frame.isVisible())
    heading = card.findChildren(QLabel)[0]
    for theme in ("light", "dark"):
        desk.viewer.theme = theme
        desk.qtbot.wait(50)
        assert background(card).name() == QColor(get_theme(theme).foreground.as_hex()).name()
        text, under = (colour.lightness() for colour in (heading.palette().windowText().color(), background(card)))
        assert abs(text - under) > 80  # of 255: it can be read


def test_no_tab_of_the_attention_dock_needs_more_width_than_other_docks(open_desk) -> None:
    desk = open_desk()
    dock = AttentionDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, area="right")
    desk.qtbot.wait(50)
    assert dock.minimumSizeHint().width() <= DOCK_WIDTH + 40


def test_a_question_belongs_to_its_window_and_wears_its_theme(open_desk) -> None:
    desk = open_desk()
    seen = []

    def answer() -> None:
        box = QApplication.activeModalWidget()
        seen.extend([box.parent(), background(box).lightness()])
        next(button for button in box.buttons() if button.text() == "Into a new layer").click()

    QTimer.singleShot(500, answer)
    assert ask_overlap("liver", 12) is Overlap.NEW_LAYER
    assert seen[0] is desk.viewer.window._qt_window
    assert seen[1] < 100  # of 255: napari is dark unless told otherwise
