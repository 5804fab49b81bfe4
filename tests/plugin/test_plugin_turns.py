"""Long things are done one at a time, and the window lives between them."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QTimer

from napari_medtransformer.plugin.turns import Turns


def test_the_window_lives_between_two_turns(qtbot: Any) -> None:
    turns, seen = Turns(), []
    beat = QTimer()
    beat.timeout.connect(lambda: seen.append("beat"))
    beat.start(1)
    turns.later(lambda: seen.append("one"), lambda: seen.append("two"))
    turns.later(lambda: seen.append("three"))
    assert seen == []
    qtbot.waitUntil(lambda: "three" in seen)
    beat.stop()
    one, two, three = (seen.index(what) for what in ("one", "two", "three"))
    assert "beat" in seen[one:two]
    assert "beat" in seen[two:three]
    assert not len(turns)


def test_what_may_not_go_on_is_dropped(qtbot: Any) -> None:
    seen: list[int] = []
    turns = Turns(lambda: len(seen) < 2)
    turns.later(*(lambda n=n: seen.append(n) for n in range(5)))
    qtbot.waitUntil(lambda: not len(turns))
    assert seen == [0, 1]


def test_everything_can_be_done_at_once(qtbot: Any) -> None:
    seen: list[int] = []
    turns = Turns()
    turns.later(lambda: seen.append(1), lambda: seen.append(2))
    turns.take_all()
    assert seen == [1, 2]
    qtbot.wait(40)
    assert seen == [1, 2]
