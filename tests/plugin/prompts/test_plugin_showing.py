"""What the window draws when: a prompt with its answer, long work after a while, maps at the cursor's pace."""

from __future__ import annotations

import threading

import numpy as np
import pytest

A_MINUTE_MS = 60_000


@pytest.fixture
def held_answers(monkeypatch):
    """A function that makes a session wait with its answers; the event it returns lets them go."""

    def hold(session) -> threading.Event:
        go, predict = threading.Event(), session.predict

        def wait_and_predict(request):
            go.wait(60)
            return predict(request)

        monkeypatch.setattr(session, "predict", wait_and_predict)
        return go

    return hold


def shown_points(desk) -> int:
    layer = desk.controller.workspace.prompts.points
    return 0 if layer is None else len(layer.data)


def test_a_prompt_and_its_answer_are_drawn_together(open_desk, torso, liver, held_answers) -> None:
    layer = torso()
    desk = open_desk(layer)
    desk.show(liver)
    desk.click(layer, liver)
    desk.wait()
    z, y, x = liver
    desk.controller.prediction.seconds = 0.05
    desk.controller.showing._held.setInterval(A_MINUTE_MS)
    desk.qtbot.wait(200)
    frames = []
    desk.canvas._scene_canvas.events.draw.connect(lambda event: frames.append(shown_points(desk)))
    go = held_answers(desk.controller.session)
    desk.click(layer, (z, y + 3, x))
    desk.qtbot.wait(200)
    assert len(desk.controller.session.prompts) == 2
    assert frames == []  # neither the press nor the prompt was worth a frame
    go.set()
    desk.wait()
    desk.qtbot.waitUntil(lambda: len(frames) > 0)
    desk.qtbot.wait(300)
    assert frames == [2]  # one frame for prompt, answer and all that is written down of them
    np.testing.assert_array_equal(desk.controller.workspace.masks.data, desk.controller.session.labels)


def test_a_prompt_is_drawn_without_its_answer_when_that_is_late(open_desk, torso, liver, held_answers) -> None:
    layer = torso()
    desk = open_desk(layer)
    desk.show(liver)
    desk.click(layer, liver)
    desk.wait()
    desk.controller.prediction.seconds = 0.05
    z, y, x = liver
    go = held_answers(desk.controller.session)
    desk.click(layer, (z, y + 3, x))
    desk.qtbot.waitUntil(lambda: shown_points(desk) == 2)
    assert desk.controller.queue.pending > 0
    go.set()
    desk.wait()


def test_a_prompt_is_drawn_when_another_volume_is_turned_to_before_its_answer(
    open_desk, torso, liver, held_answers
) -> None:
    first, second = torso(), torso()
    desk = open_desk(second, first)
    workspace = desk.controller.workspace
    desk.show(liver)
    desk.click(first, liver)
    desk.wait()
    desk.controller.prediction.seconds = 0.05
    desk.controller.showing._held.setInterval(A_MINUTE_MS)
    z, y, x = liver
    go = held_answers(workspace.session)
    desk.click(first, (z, y + 3, x))
    assert len(workspace.prompts.points.data) == 1
    desk.controller.set_layer(second)
    assert len(workspace.prompts.points.data) == 2
    go.set()
    desk.wait()


def test_work_is_told_of_once_it_takes_a_while(open_desk, torso, qtbot) -> None:
    showing = open_desk(torso()).controller.showing
    told: list[str] = []
    showing.busy_changed.connect(lambda: told.append(showing.busy))
    showing.work("Predicting…")
    showing.work("")
    qtbot.wait(300)
    assert told == []
    showing.work("Encoding…")
    showing.work("Predicting…")
    qtbot.waitUntil(lambda: told == ["Predicting…"])
    showing.work("")
    assert told == ["Predicting…", ""]


def test_what_is_dragged_with_the_point_tool_stays_under_the_hand(open_desk, torso, liver) -> None:
    layer = torso()
    desk = open_desk(layer)
    desk.show(liver)
    z, y, x = liver
    goal = np.array(desk.pixel_of(layer, (z, y - 12, x + 9)))
    desk.drag(layer, liver, (z, y - 12, x + 9))
    desk.qtbot.wait(100)
    assert np.abs(np.array(desk.pixel_of(layer, liver)) - goal).max() <= 2  # moves come in whole pixels, throttled
