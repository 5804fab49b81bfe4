"""Work that nobody waits for rests while the window draws, and no longer."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from napari.components import ViewerModel

from napari_medtransformer.plugin import frames as frames_module
from napari_medtransformer.plugin.frames import Frames

AN_HOUR_S = 3600.0
PATIENCE_S = 60.0


def resting(frames: Frames) -> threading.Thread:
    thread = threading.Thread(target=frames.rest, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work rests until a frame is there, however long that takes."""
    monkeypatch.setattr(frames_module, "REST_S", AN_HOUR_S)


@pytest.fixture
def viewer(make_napari_viewer: Any, qtbot: Any) -> Any:
    viewer = make_napari_viewer(show=True)
    qtbot.waitExposed(viewer.window._qt_window)
    qtbot.wait(200)
    return viewer


def draw(viewer: Any) -> None:
    viewer.window._qt_viewer.canvas._scene_canvas.update()


def test_work_rests_until_the_frame_that_it_led_to_is_on_the_screen(viewer: Any, qtbot: Any, no_end: None) -> None:
    frames = Frames(viewer)
    frames.expect()
    thread = resting(frames)
    time.sleep(0.2)  # no event is handled meanwhile, so nothing is drawn
    assert thread.is_alive()
    draw(viewer)
    qtbot.waitUntil(lambda: not thread.is_alive(), timeout=1000 * PATIENCE_S)
    frames.detach()


def test_work_rests_from_the_beginning_of_any_frame_to_its_end(viewer: Any, qtbot: Any, no_end: None) -> None:
    frames = Frames(viewer)
    rested: list[bool] = []

    def look(event: Any) -> None:
        thread = resting(frames)
        time.sleep(0.1)
        rested.append(thread.is_alive())
        threads.append(thread)

    threads: list[threading.Thread] = []
    canvas = viewer.window._qt_viewer.canvas._scene_canvas
    canvas.events.draw.connect(look, position="last")
    draw(viewer)
    qtbot.waitUntil(lambda: bool(threads) and not threads[0].is_alive(), timeout=1000 * PATIENCE_S)
    canvas.events.draw.disconnect(look)
    assert rested[0]
    start = time.perf_counter()
    frames.rest()  # nothing is drawn now
    assert time.perf_counter() - start < AN_HOUR_S / 60
    frames.detach()


def test_work_goes_on_where_no_frame_comes(viewer: Any) -> None:
    frames = Frames(viewer)
    frames.expect()
    thread = resting(frames)
    thread.join(PATIENCE_S)  # no event is handled meanwhile
    assert not thread.is_alive()
    frames.detach()


def test_work_goes_on_when_the_canvas_is_followed_no_more(viewer: Any, no_end: None) -> None:
    frames = Frames(viewer)
    frames.expect()
    thread = resting(frames)
    frames.detach()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    frames.expect()  # an answer that was on its way
    again = resting(frames)
    again.join(PATIENCE_S)
    assert not again.is_alive()


def test_without_a_window_nothing_rests(no_end: None) -> None:
    frames = Frames(ViewerModel())
    frames.expect()
    thread = resting(frames)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    frames.detach()
