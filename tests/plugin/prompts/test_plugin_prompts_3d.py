"""A model that answers in 3D in a real window: clicks in any plane by hand, one mask in 3D, moved, removed, undone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from qtpy.QtCore import Qt

from napari_medtransformer.models import find_card
from napari_medtransformer.models.initial import draw_weights
from napari_medtransformer.models.sam_med3d import SamMed3DModel
from napari_medtransformer.models.sam_med3d_network import SamMed3D, SamMed3DConfig
from napari_medtransformer.plugin.attention.dock import AttentionDock
from napari_medtransformer.plugin.planes import set_plane
from napari_medtransformer.plugin.prompts.dock import PromptDock
from napari_medtransformer.plugin.prompts.tools import Tool
from napari_medtransformer.prompting.object_3d import segment_object


@pytest.fixture(scope="module")
def model() -> SamMed3DModel:
    config = SamMed3DConfig(
        size=64, width=48, depth=2, heads=4, global_blocks=(1,), decoder_width=48, decoder_heads=4, decoder_depth=1
    )
    return SamMed3DModel(find_card("sam-med3d"), draw_weights(SamMed3D(config), 0), torch.device("cpu"), torch.float32)


def expected(model: SamMed3DModel, session: Any) -> np.ndarray:
    """What the model says to the clicks of the session, with each as it was meant."""
    places = [tuple(p.position_zyx) for p in session.prompts.values()]
    signs = [int(p.positive) for p in session.prompts.values()]
    mask = segment_object(model, session.volume, places, signs).mask
    for place, sign in zip(places, signs, strict=True):
        mask[tuple(int(np.floor(p + 0.5)) for p in place)] = bool(sign)
    return mask


def test_clicks_by_hand_in_three_planes_make_one_mask_in_3d(open_desk, torso, liver, model) -> None:
    layer = torso()
    desk = open_desk(layer, model=model)
    controller, (z, y, x) = desk.controller, liver
    for axis, place, shift in ((0, liver, False), (1, (z + 3, y, x + 4), False), (2, (z - 4, y + 9, x), True)):
        set_plane(desk.viewer, axis)
        desk.show(place)
        desk.click(layer, place, shift=shift)
        desk.wait()
        found = controller.session.labels == 1
        assert found[place] == (not shift)
    assert [prompt.axis for prompt in controller.session.prompts.values()] == [0, 1, 2]
    np.testing.assert_array_equal(controller.session.labels == 1, expected(model, controller.session))
    np.testing.assert_array_equal(np.asarray(desk.viewer.layers["torso_ct objects"].data), controller.session.labels)
    masks = [controller.session.labels]
    while controller.prompting.can_undo:
        controller.undo()
        masks.append(controller.session.labels)
    assert not masks[-1].any()
    for before in masks[-2::-1]:
        controller.redo()
        np.testing.assert_array_equal(controller.session.labels, before)


def test_a_click_dragged_or_deleted_by_hand_is_answered_anew(open_desk, torso, liver, model) -> None:
    from napari_medtransformer.plugin.prompts.shortcuts import bind_shortcuts

    layer = torso()
    desk = open_desk(layer, model=model)
    bind_shortcuts(desk.viewer, desk.controller)
    session, (z, y, x) = desk.controller.session, liver
    desk.show(liver)
    desk.click(layer, liver)
    desk.click(layer, (z, y + 8, x - 6), shift=True)
    desk.wait()
    one = session.labels
    desk.controller.set_tool(Tool.EDIT)
    desk.drag(layer, (z, y + 8, x - 6), (z, y - 9, x + 8))
    desk.wait()
    moved = list(session.prompts.values())[1]
    assert moved.position_zyx == pytest.approx((z, y - 9, x + 8), abs=0.8)
    np.testing.assert_array_equal(session.labels == 1, expected(model, session))
    assert not np.array_equal(session.labels, one)
    desk.click(layer, (z, y - 9, x + 8))
    desk.key(Qt.Key.Key_Delete)
    desk.wait()
    assert len(session.prompts) == 1
    np.testing.assert_array_equal(session.labels == 1, expected(model, session))


def test_several_objects_each_have_their_own_mask_in_3d(open_desk, torso, liver, model) -> None:
    layer = torso()
    desk = open_desk(layer, model=model)
    z, y, x = liver
    desk.show(liver)
    desk.click(layer, liver)
    desk.wait()
    desk.controller.actions.new_object()
    desk.click(layer, (z, y, x + 40))
    desk.wait()
    session = desk.controller.session
    assert [one.object_id for one in session.objects] == [1, 2]
    two = session.object_mask(2)
    assert two.any(axis=(1, 2)).sum() > 3
    np.testing.assert_array_equal(session.labels == 2, two)


def test_the_docks_say_what_a_model_in_3d_does_not_do(open_desk, torso, liver, model) -> None:
    desk = open_desk(torso(), model=model)
    prompt, attention = PromptDock(desk.viewer), AttentionDock(desk.viewer)
    desk.viewer.window.add_dock_widget(prompt, name="Prompt", area="right")
    desk.viewer.window.add_dock_widget(attention, name="Attention", area="bottom")
    desk.show(liver)
    desk.prompt(liver)
    desk.wait()
    desk.qtbot.wait(300)
    assert not prompt.prompt.tools[Tool.BOX].isEnabled()
    assert "takes no boxes" in prompt.prompt.tools[Tool.BOX].toolTip()
    assert prompt.prompt.tools[Tool.SCRIBBLE].isEnabled()
    assert not prompt.work.propagate.isEnabled()
    assert "in 3D by itself" in prompt.work.propagate.toolTip()
    assert prompt.status.text().startswith("In 3D · 1 point · expected overlap")
    assert "answers in 3D" in attention.state.obstacle
    assert attention.state.seen is None


def test_a_box_drawn_before_a_model_in_3d_is_there_is_left_out_and_clicks_are_answered(
    open_desk, torso, liver, model, notifications
) -> None:
    layer = torso()
    desk = open_desk(layer, model=None)
    z, y, x = liver
    desk.show(liver)
    desk.prompt(liver)
    desk.controller.set_tool(Tool.BOX)
    desk.drag(layer, (z, y - 8, x - 8), (z, y + 8, x + 8))
    desk.controller.models.use(model)
    desk.wait()
    (said,) = [n.message for n in notifications if "could not be kept" in n.message]
    assert said.startswith("A prompt given before the model was there could not be kept. sam-med3d")
    assert "takes no boxes" in said
    desk.controller.set_tool(Tool.POINT)
    desk.prompt((z, y, x + 9))
    desk.wait()
    session = desk.controller.session
    assert [p.position_zyx for p in session.prompts.values()] == [(z, y, x), (z, y, x + 9)]
    assert session.labels[z, y, x] == session.labels[z, y, x + 9] == 1


def test_the_model_of_slices_corrects_the_mask_in_3d_where_it_is_clicked(
    open_desk, torso, liver, model, click_model
) -> None:
    layer = torso()
    desk = open_desk(layer, model=model)
    session, (z, y, x) = desk.controller.session, liver
    desk.show(liver)
    desk.click(layer, liver)
    desk.wait()
    in_3d = session.labels
    desk.controller.models.use(click_model)
    desk.wait()
    np.testing.assert_array_equal(session.labels, in_3d)
    desk.show((z + 2, y, x))
    desk.click(layer, (z + 2, y, x))
    desk.wait()
    assert np.flatnonzero((session.labels != in_3d).any(axis=(1, 2))).tolist() == [z + 2]
    assert session.labels[z + 2, y, x] == 1
