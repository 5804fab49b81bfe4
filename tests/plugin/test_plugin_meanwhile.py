"""What a user does while something else is under way: switches, closes, renames, removes. Nothing is mixed up."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Points
from qtpy.QtWidgets import QLineEdit

from napari_medtransformer.plugin.attention.dock import AttentionDock
from napari_medtransformer.plugin.layer_volume import SlicePoint
from napari_medtransformer.plugin.prompts.dock import PromptDock
from napari_medtransformer.plugin.samples import hippocampus
from napari_medtransformer.plugin.volume import dock as volume_dock

PATIENCE_MS = 180_000


@contextmanager
def held_up(controller: Any) -> Iterator[None]:
    """The worker does nothing as long as this lasts."""
    gate = threading.Event()
    controller.queue.submit(gate.wait, label="", urgent=True)
    try:
        yield
    finally:
        gate.set()


def errors(notifications: list[Any]) -> list[str]:
    return [heard.message for heard in notifications if str(heard.severity) == "error"]


@pytest.fixture
def looking(open_desk):
    """A desk with the Attention dock open."""

    def open_it(*layers, **options):
        desk = open_desk(*layers, **options)
        desk.viewer.window.add_dock_widget(AttentionDock(desk.viewer), name="Attention", area="bottom")
        desk.qtbot.wait(20)
        return desk

    return open_it


def test_a_click_while_another_model_loads_is_answered_once_it_is_there(looking, torso, liver, notifications) -> None:
    desk = looking(torso())
    desk.show(liver)
    with held_up(desk.controller):
        desk.controller.models.load("medt-click-tiny", weights="random")
        assert desk.controller.model is None
        desk.prompt(liver)
    desk.wait()
    assert desk.controller.session.labels[liver] == 1
    assert desk.controller.session.model is desk.controller.model
    assert errors(notifications) == []


def test_attention_for_an_image_that_was_left_is_not_shown_on_the_next(looking, torso, liver, notifications) -> None:
    first, second = torso(), torso()
    desk = looking(first, second)
    controller = desk.controller
    controller.set_layer(first)
    desk.wait()
    with held_up(controller):
        desk.prompt(liver)
        controller.set_layer(second)
    desk.wait()
    assert controller.attention.seen is None
    assert controller.attention.layers.heat is None
    assert errors(notifications) == []


def test_an_image_closed_while_its_click_is_answered_leaves_no_prompts_behind(
    looking, torso, liver, notifications
) -> None:
    layer = torso()
    desk = looking(layer)
    desk.show(liver)
    desk.prompt(liver)
    desk.wait()
    masks = desk.controller.workspace.masks
    found = np.array(masks.data)
    with held_up(desk.controller):
        desk.prompt((liver[0], liver[1] + 3, liver[2]))
        desk.viewer.layers.remove(layer)
    desk.wait()
    assert desk.controller.workspace is None
    assert [x.name for x in desk.viewer.layers] == [masks.name], "what was found is the user's"
    assert masks.editable
    masks.data[0, 0, 0] = 9  # it can be painted on
    np.testing.assert_array_equal(masks.data[liver[0]], found[liver[0]])
    assert errors(notifications) == []


def test_all_layers_may_be_selected_and_deleted_at_once(looking, torso, liver, notifications) -> None:
    desk = looking(torso())
    desk.show(liver)
    desk.prompt(liver)
    desk.wait()
    assert desk.controller.attention.layers.heat is not None
    desk.viewer.layers.select_all()
    desk.viewer.layers.remove_selected()
    desk.qtbot.wait(50)
    assert list(desk.viewer.layers) == []
    layer = torso()
    desk.viewer.add_layer(layer)
    desk.controller.set_layer(layer)
    desk.prompt(liver)
    desk.wait()
    assert desk.controller.session.labels[liver] == 1
    assert errors(notifications) == []


def test_clearing_the_layer_list_is_no_trouble(looking, torso, liver, notifications) -> None:
    desk = looking(torso())
    desk.show(liver)
    desk.prompt(liver)
    desk.wait()
    desk.viewer.layers.clear()
    desk.qtbot.wait(50)
    assert list(desk.viewer.layers) == []
    assert desk.controller.workspace is None
    assert errors(notifications) == []


def test_frames_with_work_on_another_one_may_be_cleared_at_once(open_desk, notifications) -> None:
    z, y, x = np.ogrid[:6, :40, :48]
    ball = np.where((z - 3) ** 2 * 9 + (y - 20) ** 2 + (x - 24) ** 2 < 120, 100, -50).astype(np.int16)
    desk = open_desk(Image(np.stack([ball, ball])))
    desk.prompt((3, 20, 24))
    desk.wait()
    desk.viewer.dims.set_point(0, 1 - round(desk.viewer.dims.point[0]))
    desk.wait()
    desk.viewer.layers.clear()
    desk.qtbot.wait(50)
    assert list(desk.viewer.layers) == []
    assert errors(notifications) == []


def test_an_image_renamed_in_the_midst_is_still_the_same(open_desk, torso, liver, notifications) -> None:
    layer = torso()
    desk = open_desk(layer)
    dock = PromptDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, name="Prompt", area="right")
    with held_up(desk.controller):
        desk.prompt(liver)
        layer.name = "another name"
    desk.wait()
    assert desk.controller.session.labels[liver] == 1
    assert dock.layer_choice.currentText() == "another name"
    assert errors(notifications) == []


def test_the_window_may_be_closed_while_the_worker_is_busy(open_desk, torso, liver, notifications) -> None:
    desk = open_desk(torso())
    for dock, area in ((PromptDock, "right"), (AttentionDock, "bottom")):
        desk.viewer.window.add_dock_widget(dock(desk.viewer), area=area)
    desk.show(liver)
    gate = threading.Event()
    desk.controller.queue.submit(gate.wait, label="Waiting…", urgent=True)
    desk.prompt(liver)
    desk.controller.actions.propagate()
    desk.viewer.close()
    gate.set()
    desk.controller.queue.wait()
    desk.qtbot.wait(100)
    assert errors(notifications) == []


def test_the_window_may_be_closed_while_a_volume_is_segmented_and_another_resampled(
    open_desk, notifications, monkeypatch
) -> None:
    data, options, _ = hippocampus()[0]
    desk = open_desk(Image(data, **options), model=None)
    _, segment = desk.viewer.window.add_plugin_dock_widget("napari-medtransformer", "Segment")
    _, volume = desk.viewer.window.add_plugin_dock_widget("napari-medtransformer", "Volume")
    desk.qtbot.waitUntil(lambda: segment.models.model is not None, timeout=PATIENCE_MS)
    gate = threading.Event()
    real = volume_dock.resample_isotropic
    monkeypatch.setattr(volume_dock, "resample_isotropic", lambda image: (gate.wait(), real(image))[1])
    volume.isotropic.click()
    segment.run.click()
    assert volume.working == 1
    assert segment.state.running
    queue = segment.queue
    desk.viewer.close()
    gate.set()
    queue.wait()
    desk.qtbot.wait(300)
    assert errors(notifications) == []


def test_points_of_another_image_taken_away_by_hand_are_that_images_own(open_desk, torso, liver) -> None:
    first, second = torso(), torso()
    desk = open_desk(first, second)
    controller = desk.controller
    sessions = []
    for layer in (first, second):
        controller.set_layer(layer)
        desk.wait()
        desk.prompt(liver)
        desk.wait()
        sessions.append((controller.session, controller.workspace.prompts.points))
    (one, points), (other, _) = sessions
    assert controller.session is other
    points.selected_data = {0}
    points.remove_selected()
    desk.wait()
    assert one.prompts == {}
    assert len(other.prompts) == 1
    assert controller.session is one, "the image whose prompts were touched is worked on"


def test_a_point_set_with_naparis_own_tool_is_a_prompt(open_desk, torso, liver) -> None:
    desk = open_desk(torso())
    desk.show(liver)
    desk.prompt(liver)
    desk.wait()
    points: Points = desk.controller.workspace.prompts.points
    z, y, x = liver
    points.add((z, y + 4, x))
    desk.wait()
    given = [prompt.position_zyx for prompt in desk.controller.session.prompts.values()]
    assert given == [(z, y, x), (z, y + 4, x)]
    assert len(points.data) == 2
    points.add((z + 900.0, y, x))  # outside the image: no prompt, and no point
    desk.wait()
    assert len(desk.controller.session.prompts) == 2
    assert len(points.data) == 2


def test_a_prompt_that_waits_for_its_model_can_be_taken_away(open_desk, torso, liver, click_model) -> None:
    desk = open_desk(torso(), model=None)
    z, y, x = liver
    desk.prompt(liver)
    desk.prompt((z, y + 6, x))
    points = desk.controller.workspace.prompts.points
    points.selected_data = {0}
    points.remove_selected()
    desk.controller.models.use(click_model)
    desk.wait()
    assert [p.position_zyx for p in desk.controller.session.prompts.values()] == [(z, y + 6, x)]


def test_two_windows_at_once_know_nothing_of_each_other(open_desk, torso, liver, caplog) -> None:
    """Software OpenGL may mix up the drawing contexts of two windows: that is vispy's, told apart and let pass."""
    one, other = open_desk(torso()), open_desk(torso())
    with one.qtbot.captureExceptions() as caught:
        one.show(liver)
        one.prompt(liver)
        other.prompt((liver[0], 5, 5))
        one.wait()
        other.wait()
        assert one.controller is not other.controller
        assert one.controller.session.labels[liver] == 1
        assert other.controller.session.labels[liver] == 0
        other.viewer.close()
        one.prompt((liver[0], liver[1] + 5, liver[2]))
        one.wait()
    assert len(one.controller.session.prompts) == 2
    mixed_up = ("OpenGL got errors (Check before draw)", "GLError")
    others = [repr(error) for _, error, _ in caught if not any(words in repr(error) for words in mixed_up)]
    # what is kept of an error holds its frames, and with them a window that is to be gone by now
    caught.clear()
    caplog.clear()
    for kept in ("last_type", "last_value", "last_traceback"):
        vars(sys).pop(kept, None)
    assert others == []


def test_a_name_being_typed_is_not_taken_away_by_an_answer(open_desk, torso, liver) -> None:
    desk = open_desk(torso())
    dock = PromptDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, name="Prompt", area="right")
    desk.prompt(liver)
    desk.wait()
    objects = dock.work.objects
    desk.qtbot.waitUntil(lambda: objects.topLevelItemCount() == 1 and objects.topLevelItem(0).text(3) != "")
    objects.editItem(objects.topLevelItem(0), 1)
    editor = objects.findChild(QLineEdit)
    editor.setText("liv")
    desk.prompt((liver[0], liver[1] + 8, liver[2]))
    desk.wait()
    desk.qtbot.wait(400)  # measuring waits for quiet
    desk.wait()
    assert objects.findChild(QLineEdit) is editor
    editor.setText("liver")
    desk.qtbot.keyClick(editor, "\r")
    desk.qtbot.wait(100)
    assert desk.controller.session.objects[0].name == "liver"
    assert objects.topLevelItem(0).text(1) == "liver"


def test_labels_that_a_layer_cannot_hold_are_not_put_into_it(open_desk, torso, liver) -> None:
    layer = torso()
    desk = open_desk(layer)
    controller = desk.controller
    session = controller.session
    mask = np.zeros(session.volume.shape, bool)
    mask[liver] = True
    session.import_mask(mask, 300)
    controller.after_change()
    narrow = desk.viewer.add_labels(np.zeros(session.volume.shape, np.uint8), name="narrow")
    desk.viewer.layers.selection = {narrow}
    controller.files.commit()
    assert not np.asarray(narrow.data).any()
    made = controller.workspace.committed()
    assert made is not narrow
    assert np.asarray(made.data)[liver] == 300


def test_maps_of_another_volume_are_not_compared_with_this_ones(open_desk, torso, liver) -> None:
    first, second = torso(), torso()
    desk = open_desk(first, second)
    dock = AttentionDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, name="Attention", area="bottom")
    for layer in (first, second):
        desk.controller.set_layer(layer)
        desk.prompt(liver)
        desk.wait()
        dock.show_page("Compare")
        if layer is first:
            dock.compare.keep.click()
            assert dock.compare.kept is not None
    assert dock.compare.kept is None


def test_heads_switched_off_for_one_slice_are_on_again_on_the_next(open_desk, torso, liver) -> None:
    desk = open_desk(torso())
    dock = AttentionDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, name="Attention", area="bottom")
    z, y, x = liver
    desk.prompt(liver)
    desk.wait()
    switches = dock.cause.switches
    with held_up(desk.controller):
        switches.toggle("encoder.5", 0)
        assert switches.off
        desk.prompt((z - 2, y, x))  # before the answer is there
    desk.wait()
    assert not switches.off
    assert switches.outcome == {}


def test_an_image_dropped_on_another_keeps_every_click_on_its_own(open_desk, torso, liver) -> None:
    layer = torso()
    desk = open_desk(layer)
    plain = Image(np.zeros((20, 30, 40), np.float32), name="plain")
    with held_up(desk.controller):
        desk.prompt(liver)
        desk.viewer.add_layer(plain)
        desk.controller.set_layer(plain)
        desk.controller.clicked(SlicePoint((10.0, 15.0, 20.0), 0))
    desk.wait()
    assert desk.controller.session.live_labels[10, 15, 20] == 1
    desk.controller.set_layer(layer)
    desk.wait()
    assert desk.controller.session.labels[liver] == 1
    assert len(desk.controller.session.prompts) == 1
