"""Letters at the edges cost nothing when layers come and go, and their grounds follow them when they change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Labels
from vispy.visuals import MeshVisual

from napari_medtransformer.plugin.layers import image_layer
from napari_medtransformer.plugin.planes import set_plane, show_directions
from napari_medtransformer.volumes import Volume


@pytest.fixture
def lettered(make_napari_viewer: Any, qtbot: Any) -> Any:
    viewer = make_napari_viewer(show=True)
    volume = Volume.from_array(np.zeros((12, 40, 60), np.int16), (2.0, 1.0, 1.0), "CT")
    data, options, _ = image_layer(volume)
    viewer.add_layer(Image(data, **options))
    show_directions(viewer, volume)
    qtbot.wait(50)
    viewer.screenshot(flash=False)
    return viewer, volume


def drawn(viewer: Any, edge: str) -> Any:
    canvas = viewer.window._qt_viewer.canvas
    return canvas._viewer_overlay_to_visual[viewer.canvas.overlays[f"medt_{edge}"]][0]


def test_no_ground_is_built_again_when_a_layer_comes_or_is_hidden(lettered: Any, monkeypatch: Any) -> None:
    viewer, _ = lettered
    built: list[Any] = []
    build = MeshVisual._update_data
    monkeypatch.setattr(MeshVisual, "_update_data", lambda self: (built.append(self), build(self))[1])
    labels = viewer.add_layer(Labels(np.zeros((12, 40, 60), np.uint8)))
    viewer.screenshot(flash=False)
    labels.visible = False
    viewer.screenshot(flash=False)
    grounds = {id(drawn(viewer, edge).box._mesh) for edge in ("top", "bottom", "left", "right")}
    assert not [mesh for mesh in built if id(mesh) in grounds]
    # the spy sees a ground that has to be built
    viewer.canvas.overlays["medt_left"].text = "MMM"
    viewer.screenshot(flash=False)
    assert [mesh for mesh in built if id(mesh) in grounds]


def test_the_ground_follows_the_letter_and_its_place(lettered: Any) -> None:
    viewer, volume = lettered
    assert viewer.canvas.overlays["medt_top"].text == "A"
    before = drawn(viewer, "left").box.width
    viewer.canvas.overlays["medt_left"].text = "MMM"
    assert drawn(viewer, "left").box.width > 1.5 * before
    set_plane(viewer, 1)
    show_directions(viewer, volume)
    assert viewer.canvas.overlays["medt_top"].text == "S"
    assert drawn(viewer, "top").box.parent is not None
    show_directions(viewer, None)
    assert drawn(viewer, "top").box.parent is None
