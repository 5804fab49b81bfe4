"""Layers of ours come without taking the selection, and with the drawing tools of any other labels layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_medtransformer.plugin.adding import insert_quietly


def visuals(viewer: Any, layer: Labels) -> int:
    return len(viewer.window._qt_viewer.canvas._layer_overlay_to_visual[layer])


def test_a_layer_comes_where_it_belongs_and_the_selection_stays(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer()
    image, above = (viewer.add_layer(Image(np.zeros((4, 8, 8)), name=name)) for name in ("image", "above"))
    viewer.layers.selection = {image}
    ours = Labels(np.zeros((4, 8, 8), np.uint8))
    insert_quietly(viewer, 1, ours)
    assert list(viewer.layers) == [image, ours, above]
    assert viewer.layers.selection == {image}
    assert viewer.layers.selection.active is image
    # layers of others are selected as ever
    another = viewer.add_layer(Labels(np.zeros((4, 8, 8), np.uint8)))
    assert viewer.layers.selection.active is another


@pytest.mark.parametrize("mode", ["polygon", "paint"])
def test_drawing_aids_come_with_their_tool(make_napari_viewer: Any, mode: str) -> None:
    viewer = make_napari_viewer()
    plain = viewer.add_layer(Labels(np.zeros((4, 8, 8), np.uint8)))
    ours = Labels(np.zeros((4, 8, 8), np.uint8))
    insert_quietly(viewer, 1, ours)
    assert (visuals(viewer, plain), visuals(viewer, ours)) == (2, 0)
    listeners = len(ours.mouse_move_callbacks)
    ours.mode = mode
    assert visuals(viewer, ours) == 1
    assert len(ours.mouse_move_callbacks) > listeners  # the aid follows the mouse
    ours.mode = "pan_zoom"
    ours.mode = mode
    assert visuals(viewer, ours) == 1


def test_controls_come_when_a_layer_is_selected(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer()
    image = viewer.add_layer(Image(np.zeros((4, 8, 8))))
    ours, heat = Labels(np.zeros((4, 8, 8), np.uint8)), Image(np.zeros((4, 8, 8)))
    insert_quietly(viewer, 1, ours)
    insert_quietly(viewer, 2, heat)
    container = viewer.window._qt_viewer.controls
    assert image in container.widgets
    assert ours not in container.widgets
    viewer.layers.selection.active = ours
    assert container.currentWidget() is container.widgets[ours]
    assert container.widgets[ours].layer is ours
    # an image of the user's has its controls at once, as ever
    another = viewer.add_layer(Image(np.zeros((4, 8, 8))))
    assert another in container.widgets
    # what nobody selected goes without a trace
    viewer.layers.remove(heat)
    assert heat not in container.widgets
    viewer.layers.remove(ours)
    assert ours not in container.widgets
    with pytest.raises(KeyError):
        container.widgets["no layer"]
