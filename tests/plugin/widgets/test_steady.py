"""Widgets that change while somebody works: they move nothing beside them and are painted now and then."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_medtransformer.plugin.widgets.steady import CalmBar, SteadyText
from napari_medtransformer.progress import Progress


class Counter(QObject):
    """Counts events of one kind that reach a widget."""

    def __init__(self, widget: QWidget, kind: QEvent.Type) -> None:
        super().__init__(widget)
        self.kind, self.count = kind, 0
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        self.count += event.type() == self.kind
        return False


def shown_with(qtbot, widget: QWidget) -> QWidget:
    frame = QWidget()
    QVBoxLayout(frame).addWidget(widget)
    frame.resize(300, 120)
    qtbot.addWidget(frame)
    frame.show()
    qtbot.waitExposed(frame)
    qtbot.wait(20)
    return frame


def test_a_text_of_any_length_has_nothing_laid_out_anew(qtbot):
    text = SteadyText(lines=2)
    frame = shown_with(qtbot, text)
    layouts, height = Counter(frame, QEvent.Type.LayoutRequest), text.height()
    for said in ("short", "many words " * 30, "two\nlines", ""):
        text.say(said)
        qtbot.wait(10)
        assert text.text() == text.toolTip() == said
    assert layouts.count == 0
    assert text.height() == height


def test_two_lines_of_text_fit_whole(qtbot):
    text = SteadyText(lines=2)
    frame = shown_with(qtbot, text)
    frame.setStyleSheet("QLabel { padding: 2px; font-size: 15px; }")
    qtbot.wait(20)
    text.say("one\ntwo")
    assert text.height() >= text.label.sizeHint().height() >= 2 * text.label.fontMetrics().lineSpacing()
    assert text.label.width() == text.width()


def test_a_bar_told_many_times_is_painted_a_few_times_and_ends_up_right(qtbot):
    bar = CalmBar()
    frame = shown_with(qtbot, bar)
    assert frame.isVisible()
    bar.tell(Progress(0, 100, "slices"))
    qtbot.wait(20)
    paints = Counter(bar, QEvent.Type.Paint)
    for done in range(1, 101):
        bar.tell(Progress(done, 100, "slices"))
    assert paints.count == 0  # nothing was painted while it was told
    qtbot.waitUntil(lambda: bar.value() == 100, timeout=10_000)
    qtbot.wait(20)
    assert 1 <= paints.count <= 3
    assert bar.text() == "slices"


def test_a_bar_is_shown_at_once_and_hidden_with_none(qtbot):
    bar = CalmBar()
    frame = shown_with(qtbot, bar)
    assert frame.isVisible()
    assert not bar.isVisible()
    bar.tell(Progress(3, None, ""))
    assert bar.isVisible()
    assert (bar.minimum(), bar.maximum()) == (0, 0)  # Qt's sign for a length that nobody knows
    bar.tell(None)
    assert not bar.isVisible()
    qtbot.wait(300)
    assert not bar.isVisible()  # what was told before does not bring it back
