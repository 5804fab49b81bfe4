"""A heatmap that follows the cursor: every map is the engine's, and there is one for each frame."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_medtransformer.inspection.answering import ask
from napari_medtransformer.inspection.queries import VoxelQuery
from napari_medtransformer.plugin.attention import head_maps, pace
from napari_medtransformer.plugin.attention.dock import AttentionDock
from napari_medtransformer.plugin.attention.head_maps import PICTURE, pictures_of
from napari_medtransformer.plugin.layer_volume import SlicePoint


@pytest.fixture
def followed(open_desk, torso, liver):
    """A desk whose dock follows the cursor, and a function that moves the cursor by some voxels along x."""
    desk = open_desk(torso())
    dock = AttentionDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, name="Attention", area="bottom")
    desk.show(liver)
    desk.prompt(liver)
    desk.wait()
    dock.look.live.setChecked(True)
    z, y, x = (float(p) for p in liver)

    def move(step: int) -> None:
        desk.controller.hovered(SlicePoint((z, y, x + step), 0))

    return desk, move


def test_the_map_follows_the_cursor_without_throwing_answers_away(followed, liver, monkeypatch) -> None:
    desk, move = followed
    state = desk.controller.attention
    _, y, x = (float(p) for p in liver)
    go, look = threading.Event(), head_maps.look

    def slowly(wish):
        go.wait(60)
        return look(wish)

    monkeypatch.setattr(head_maps, "look", slowly)
    drawn = []
    monkeypatch.setattr(
        state._drawing, "draw", lambda answer, head, where, moving: drawn.append((answer.mark_yx, moving))
    )
    for step in range(1, 6):  # the hand is faster than the worker
        move(step)
        desk.qtbot.wait(20)
    go.set()
    desk.wait()
    desk.qtbot.waitUntil(lambda: drawn[-1][1] is False)
    assert list(dict.fromkeys(drawn)) == [((y, x + 1), True), ((y, x + 5), True), ((y, x + 5), False)]

    desk.qtbot.waitUntil(lambda: state.seen.is_pictured)
    wanted = pictures_of(state.inspection, state.answer, PICTURE, state.style.colour_map, state.style.percentile)
    for name, picture in wanted.items():
        np.testing.assert_array_equal(state.seen.pictures[name], picture)


@pytest.mark.parametrize("at_once", [True, False], ids=["in the window's thread", "in the worker"])
def test_every_map_under_the_cursor_is_the_engines(followed, liver, monkeypatch, at_once) -> None:
    desk, move = followed
    monkeypatch.setattr(pace, "AT_ONCE_S", np.inf if at_once else 0.0)
    state = desk.controller.attention
    own = state.layers.heat.data
    z, y, x = (float(p) for p in liver)
    asked_in = []
    real = head_maps.look
    monkeypatch.setattr(head_maps, "look", lambda wish: asked_in.append(threading.current_thread()) or real(wish))
    for step in (3, 20, -20):
        move(step)
        desk.qtbot.waitUntil(lambda step=step: state.answer.mark_yx == (y, x + step))
        expected = ask(state.inspection, state.site, VoxelQuery((z, y, x + step))).on_pixels(state.head, smooth=True)
        np.testing.assert_allclose(np.squeeze(state.layers.heat.data), expected, rtol=1e-6)
    assert state.layers.heat.data is own  # nothing but values went to the layer
    # the first question at a site always goes to the worker, which finds out how long it takes
    assert (asked_in[-1] is threading.main_thread()) == at_once


def test_one_map_is_computed_for_each_frame_however_fast_the_hand_is(followed, monkeypatch) -> None:
    desk, move = followed
    monkeypatch.setattr(pace, "AT_ONCE_S", np.inf)
    state, frames, maps = desk.controller.attention, [], []
    move(1)
    desk.wait()
    desk.canvas._scene_canvas.events.draw.connect(lambda event: frames.append(len(maps)), position="last")
    state.layers.heat.events.set_data.connect(lambda event: maps.append(state.answer.mark_yx))
    for step in range(2, 40):
        for offset in (0.1, 0.2, 0.3):  # three moves come between two turns of the event loop
            move(step + offset)
            move(step)
        desk.qtbot.wait(1)
    desk.qtbot.waitUntil(lambda: state.seen.is_pictured)
    assert len(maps) >= 2
    assert len(maps) <= len(frames) + 1


def test_a_map_that_is_sent_without_slicing_is_drawn_as_after_slicing(followed, monkeypatch) -> None:
    desk, move = followed
    state = desk.controller.attention
    heat, canvas, sliced = state.layers.heat, desk.viewer.window._qt_viewer.canvas, []
    before = canvas.layer_to_visual[heat].node._data.copy()
    slice_again = type(heat).set_view_slice
    monkeypatch.setattr(type(heat), "set_view_slice", lambda self: (sliced.append(self), slice_again(self))[1])
    mark = state.answer.mark_yx
    move(20)
    desk.qtbot.waitUntil(lambda: state.answer.mark_yx != mark)
    assert heat not in sliced
    sent = canvas.layer_to_visual[heat].node._data.copy()
    assert not np.array_equal(sent, before)
    heat.refresh()
    assert heat in sliced
    np.testing.assert_array_equal(canvas.layer_to_visual[heat].node._data, sent)


def test_the_mark_is_hidden_while_the_hand_moves_and_lies_under_it_when_it_rests(followed, liver) -> None:
    desk, move = followed
    state = desk.controller.attention
    state._pace._rest.setInterval(400)
    layers = state.layers
    assert layers.query.visible
    move(9)
    desk.qtbot.waitUntil(lambda: not layers.query.visible)
    desk.qtbot.waitUntil(lambda: layers.query.visible)
    np.testing.assert_allclose(layers.query.data[0], np.add(liver, (0, 0, 9)))


def test_a_mark_that_the_user_has_hidden_stays_hidden(followed, liver) -> None:
    desk, move = followed
    state = desk.controller.attention
    state.layers.query.visible = False
    move(9)
    _, y, x = (float(p) for p in liver)
    desk.qtbot.waitUntil(lambda: state.answer.mark_yx == (y, x + 9) and state.seen.is_pictured)
    desk.qtbot.wait(2 * pace.REST_MS)
    assert not state.layers.query.visible


def test_following_paints_no_row_of_the_list_of_layers_anew(followed) -> None:
    desk, move = followed
    state, told = desk.controller.attention, []
    move(1)
    desk.qtbot.waitUntil(lambda: state.seen.is_pictured)
    model = desk.viewer.window._qt_viewer.layers.model().sourceModel()
    state._pace._rest.setInterval(60_000)
    state._pace._pictured_at = np.inf
    move(2)
    desk.qtbot.wait(300)
    model.dataChanged.connect(lambda *_: told.append(1))
    before = state.answer
    move(6)
    desk.qtbot.waitUntil(lambda: state.answer is not before)
    desk.qtbot.wait(100)
    assert told == []
