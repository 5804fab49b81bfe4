"""Letters at the edges are painted only when they change, and stand on their grounds where napari puts overlays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Labels
from vispy.visuals import Visual

from napari_medtransformer.plugin.layers import image_layer
from napari_medtransformer.plugin.planes import set_plane, show_directions
from napari_medtransformer.plugin.volume import edge_letters
from napari_medtransformer.volumes import Volume

GROUND = 0.75
"""How much of what lies beneath a letter its ground covers."""
WHITE = 255


@pytest.fixture
def lettered(make_napari_viewer: Any, qtbot: Any) -> Any:
    viewer = make_napari_viewer(show=True)
    volume = Volume.from_array(np.full((12, 40, 60), 100, np.int16), (2.0, 1.0, 1.0), "CT")
    data, options, _ = image_layer(volume)
    viewer.add_layer(Image(data, **options | {"contrast_limits": (0, 100)}))
    show_directions(viewer, volume)
    qtbot.wait(50)
    viewer.screenshot(flash=False)
    return viewer, volume


def drawn(viewer: Any, edge: str) -> Any:
    canvas = viewer.window._qt_viewer.canvas
    return canvas._viewer_overlay_to_visual[viewer.canvas.overlays[f"medt_{edge}"]][0]


def seen_at(viewer: Any, edge: str) -> np.ndarray:
    """What the screen shows where a letter with its ground stands, (height, width, 3)."""
    picture = viewer.screenshot(canvas_only=True, flash=False)
    letter = drawn(viewer, edge)
    ratio = picture.shape[1] / viewer.canvas.size[1]
    (x, y), (width, height) = letter.corner, letter.look.size
    left, top = round(x * ratio), round(y * ratio)
    return picture[top : top + round(height * ratio), left : left + round(width * ratio), :3]


def test_nothing_is_painted_again_when_a_layer_comes_or_is_hidden(lettered: Any, monkeypatch: Any) -> None:
    viewer, _ = lettered
    texts: list[str] = []
    paint = edge_letters.painted
    monkeypatch.setattr(edge_letters, "painted", lambda look, ratio: (texts.append(look.text), paint(look, ratio))[1])
    labels = viewer.add_layer(Labels(np.zeros((12, 40, 60), np.uint8)))
    viewer.screenshot(flash=False)
    labels.visible = False
    viewer.screenshot(flash=False)
    assert texts == []
    # the spy sees a letter that has to be painted
    viewer.canvas.overlays["medt_left"].text = "MMM"
    viewer.screenshot(flash=False)
    assert "MMM" in texts


def test_a_frame_draws_all_letters_at_once_and_sends_no_picture(lettered: Any, monkeypatch: Any) -> None:
    viewer, _ = lettered
    calls: list[str] = []
    draw = Visual.draw
    monkeypatch.setattr(Visual, "draw", lambda self: (calls.append(type(self).__name__), draw(self))[1])
    viewer.screenshot(flash=False)
    assert calls.count("LetterSheet") == 1
    assert not {"Text", "Rectangle", "MeshVisual"} & set(calls)
    show_directions(viewer, None)
    calls.clear()
    viewer.screenshot(flash=False)
    assert calls
    assert "LetterSheet" not in calls


def test_letters_stand_on_a_dark_ground_over_bright_anatomy(lettered: Any) -> None:
    viewer, _ = lettered
    bare = {}
    viewer.scene.camera.zoom *= 4  # anatomy, which is white, reaches every edge
    for edge in ("top", "bottom", "left", "right"):
        area = seen_at(viewer, edge)
        covered = np.all(np.abs(area.astype(int) - WHITE * (1 - GROUND)) <= 2, axis=2)
        yellow = (area[..., 0] > 200) & (area[..., 2] < 120)
        assert covered.mean() > 0.5
        assert 0.02 < yellow.mean() < 0.3
        assert yellow.any(axis=1).nonzero()[0].mean() == pytest.approx(len(area) / 2, abs=0.15 * len(area))
        bare[edge] = area.shape
    show_directions(viewer, None)
    picture = viewer.screenshot(canvas_only=True, flash=False)
    assert np.all(picture[: bare["top"][0], :, :3] == WHITE)


def test_letters_keep_to_the_edges_when_the_window_changes(lettered: Any, qtbot: Any) -> None:
    viewer, _ = lettered
    for size in ((900, 600), (700, 800)):
        viewer.window.resize(*size)
        qtbot.wait(100)
        viewer.screenshot(flash=False)
        height, width = viewer.canvas.size
        corners = {edge: drawn(viewer, edge) for edge in ("top", "bottom", "left", "right")}
        middle = {edge: np.add(one.corner, np.array(one.look.size) / 2) for edge, one in corners.items()}
        assert middle["top"][0] == pytest.approx(width / 2, abs=1) == middle["bottom"][0]
        assert middle["left"][1] == pytest.approx(height / 2, abs=1) == middle["right"][1]
        assert middle["top"][1] < 40 < height - 40 < middle["bottom"][1]
        assert middle["left"][0] < 40 < width - 40 < middle["right"][0]
        yellow = seen_at(viewer, "right")
        assert ((yellow[..., 0] > 200) & (yellow[..., 2] < 120)).any()


def test_the_ground_follows_the_letter_and_its_plane(lettered: Any) -> None:
    viewer, volume = lettered
    assert viewer.canvas.overlays["medt_top"].text == "A"
    before, height = drawn(viewer, "left").look.size
    viewer.canvas.overlays["medt_left"].text = "MMM"
    assert drawn(viewer, "left").look.size[0] > 1.5 * before
    assert drawn(viewer, "left").look.size[1] == height
    set_plane(viewer, 1)
    show_directions(viewer, volume)
    assert viewer.canvas.overlays["medt_top"].text == "S"
    assert drawn(viewer, "top").is_drawn
    show_directions(viewer, None)
    assert not drawn(viewer, "top").is_drawn


def test_a_letter_that_is_taken_out_leaves_the_sheet(lettered: Any) -> None:
    viewer, _ = lettered
    sheet = drawn(viewer, "top")._sheet
    assert len(sheet.letters) == 4
    for edge in ("top", "bottom", "left"):
        del viewer.canvas.overlays[f"medt_{edge}"]
    assert [letter.overlay.text for letter in sheet.letters] == ["L"]
    del viewer.canvas.overlays["medt_right"]
    assert sheet.parent is None
    viewer.screenshot(flash=False)
