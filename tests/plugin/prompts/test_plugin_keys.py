"""Keys on the canvas, whichever layer is selected; and nothing on the canvas where no prompt is."""

from __future__ import annotations

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import Qt

from napari_medtransformer.plugin.prompts.tools import Tool


def test_c_commits_and_leaves_the_contrast_of_the_selected_image_alone(docked, torso, liver) -> None:
    layer = torso()
    desk, _ = docked(layer)
    desk.show(liver)
    desk.click(layer, liver)
    desk.wait()
    contrast = list(layer.contrast_limits)
    desk.viewer.layers.selection.active = layer
    desk.key(Qt.Key.Key_C)
    desk.wait()
    own = [
        each for each in desk.viewer.layers if isinstance(each, Labels) and each is not desk.controller.workspace.masks
    ]
    assert len(own) == 1
    np.testing.assert_array_equal(own[0].data, desk.controller.session.labels)
    assert list(layer.contrast_limits) == contrast


def test_keys_mean_tools_with_the_masks_selected_and_painting_on_a_layer_of_ones_own(docked, torso, liver) -> None:
    layer = torso()
    desk, _ = docked(layer)
    desk.show(liver)
    desk.click(layer, liver)
    desk.wait()
    desk.viewer.layers.selection.active = desk.controller.workspace.masks
    desk.key(Qt.Key.Key_B)
    assert desk.controller.tool is Tool.BOX
    desk.key(Qt.Key.Key_P)
    assert desk.controller.tool is Tool.POINT
    assert str(desk.controller.workspace.masks.mode) == "pan_zoom"
    own = desk.viewer.add_labels(np.zeros(layer.data.shape, np.uint8), scale=layer.scale)
    desk.key(Qt.Key.Key_P)
    assert str(own.mode) == "paint"


def test_a_slice_without_prompts_shows_nothing_of_them(docked, torso, liver) -> None:
    layer = torso()
    desk, _ = docked(layer)
    desk.show(liver)
    desk.click(layer, liver)
    desk.wait()
    z, y, x = liver
    desk.show((z - 6, y, x))
    desk.wait()
    points = desk.controller.workspace.prompts.points
    with_points = desk.viewer.screenshot(flash=False)
    points.visible = False
    np.testing.assert_array_equal(with_points, desk.viewer.screenshot(flash=False))
    points.visible = True
    desk.show(liver)
    shown = desk.viewer.screenshot(flash=False)
    points.visible = False
    assert (shown != desk.viewer.screenshot(flash=False)).any()
