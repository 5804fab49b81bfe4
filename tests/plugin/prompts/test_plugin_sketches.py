"""What follows the mouse is drawn where it is, on its own slice alone, and leaves the layers as they are."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.layers import Image

from napari_medtransformer.plugin.prompts.sketches import ribbon
from napari_medtransformer.plugin.prompts.tools import Sketch, Tool

RED = "#ff0000"


def area(triangles: np.ndarray) -> float:
    """Oracle: the sum of the triangles' own areas."""
    a, b, c = np.moveaxis(triangles.reshape(-1, 3, 2).astype(float), 1, 0)
    u, v = b - a, c - a
    return float(np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).sum() / 2)


@pytest.mark.parametrize(
    ("line", "closed", "expected"),
    [
        ([(0, 0), (10, 0)], False, 20.0),
        ([(0, 0), (0, 0), (10, 0)], False, 20.0),  # a place given twice
        ([(3, 3)], False, 4.0),
        ([(3, 3), (3, 3)], True, 4.0),
        ([(0, 0), (10, 0), (10, 10), (0, 10)], True, 12.0**2 - 8.0**2),  # mitred: no corner is covered twice
        ([(0, 0), (10, 0), (10, 10), (0, 10), (0, 0)], True, 12.0**2 - 8.0**2),
        ([(0, 0), (10, 0), (10, 10)], False, 20.0 + 20.0),
    ],
)
def test_a_ribbon_covers_what_a_line_of_its_width_covers(line: Any, closed: bool, expected: float) -> None:
    assert area(ribbon(np.array(line), 2.0, closed=closed)) == pytest.approx(expected, rel=1e-5)


def test_no_line_is_no_ribbon() -> None:
    assert ribbon(np.zeros((0, 2)), 1.0).shape == (0, 2)


@given(
    st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=1, max_size=12),
    st.booleans(),
    st.floats(0.1, 5),
)
@settings(max_examples=200, deadline=None)
def test_no_corner_reaches_far(places: list[tuple[int, int]], closed: bool, width: float) -> None:
    line = np.array(places, dtype=float)
    triangles = ribbon(line, width, closed=closed)
    assert len(triangles) % 3 == 0
    assert np.isfinite(triangles).all()
    away = np.linalg.norm(triangles[:, None] - line[None], axis=-1).min(axis=1)
    assert away.max() <= width + 1e-4


@pytest.fixture
def dark(open_desk: Callable[..., Any]) -> Any:
    """A black volume, its slices further apart than its pixels."""
    volume = Image(np.zeros((9, 40, 60), np.int16), scale=(3, 1, 1), contrast_limits=(0, 1), name="dark")
    desk = open_desk(volume)
    desk.show((4, 20, 30))
    return desk


def red_at(desk: Any, *places: tuple[float, ...]) -> list[bool]:
    """Whether the canvas is red over these voxels of the volume."""
    desk.qtbot.wait(50)
    picture = desk.viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    ratio = picture.shape[1] / desk.canvas.native.width()
    found = []
    for place in places:
        x, y = desk.pixel_of(desk.controller.layer, place)
        r, g, b = picture[round(y * ratio), round(x * ratio)]
        found.append(bool(r > 90 and g < 60 and b < 60))
    return found


BOX = np.array([(4, 10, 15), (4, 10, 45), (4, 30, 45), (4, 30, 15)], float)


def test_a_sketch_is_seen_on_its_slice_alone(dark: Any) -> None:
    prompts, names = dark.controller.workspace.prompts, [layer.name for layer in dark.viewer.layers]
    assert red_at(dark, (4, 10, 30)) == [False]
    prompts.sketch((Sketch(BOX, RED, closed=True),))
    on, inside = [(4, 10, 30), (4, 20, 45), (4, 30, 20), (4, 20, 15)], (4, 20, 30)
    assert red_at(dark, *on, inside) == [True, True, True, True, False]
    dark.show((5, 20, 30))
    assert red_at(dark, (5, 10, 30)) == [False]
    dark.show((4, 20, 30))
    assert red_at(dark, (4, 10, 30)) == [True]
    assert prompts.shapes is None
    assert {layer.name for layer in dark.viewer.layers} <= {*names, "dark points"}
    prompts.sketch(())
    assert red_at(dark, *on) == [False] * 4


def test_a_sketch_lies_in_any_plane_and_vanishes_in_3d(dark: Any) -> None:
    dark.controller.show_plane(1)
    dark.show((4, 20, 30))
    line = np.array([(2, 20, 10), (6, 20, 50)], float)
    dark.controller.workspace.prompts.sketch((Sketch(line, RED, width=4),))
    assert red_at(dark, (4, 20, 30), (2, 20, 50)) == [True, False]
    dark.controller.show_plane(0)
    assert red_at(dark, (4, 20, 30)) == [False]
    dark.viewer.dims.ndisplay = 3
    dark.qtbot.wait(50)  # nothing of it, and no error


def test_two_sketches_do_not_take_each_other_away(dark: Any) -> None:
    prompts = dark.controller.workspace.prompts
    prompts.sketch((Sketch(BOX, RED, closed=True),))
    prompts.sketch((Sketch(BOX[:, [0, 1, 2]] * (1, 0.5, 1), RED, closed=True),), "hover")
    assert red_at(dark, (4, 30, 30), (4, 5, 30)) == [True, True]
    prompts.sketch((), "hover")
    assert red_at(dark, (4, 30, 30), (4, 5, 30)) == [True, False]


def test_a_box_that_is_drawn_is_seen_and_then_gone(dark: Any) -> None:
    from qtpy.QtCore import QPoint, Qt

    dark.controller.set_tool(Tool.BOX)
    layer, stop = dark.controller.layer, (4, 30, 45)
    dark.stroke(layer, [(4, 10, 15), stop], release=False)
    assert len(dark.controller.workspace.prompts.sketched) == 1
    assert not dark.controller.session.prompts
    at = QPoint(*dark.pixel_of(layer, stop))
    dark.qtbot.mouseRelease(dark.canvas.native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, at)
    dark.wait()
    assert not dark.controller.workspace.prompts.sketched
    assert len(dark.controller.session.prompts) == 1


def test_sketches_go_with_their_layer(dark: Any) -> None:
    prompts = dark.controller.workspace.prompts
    prompts.sketch((Sketch(BOX, RED, closed=True),))
    gone = weakref.ref(prompts.points)
    dark.viewer.layers.remove(prompts.points)
    assert prompts.points is None
    assert not prompts.sketched
    assert red_at(dark, (4, 10, 30)) == [False]
    dark.qtbot.wait(50)
    gc.collect()
    assert gone() is None
    prompts.sketch((Sketch(BOX, RED, closed=True),))
    assert red_at(dark, (4, 10, 30)) == [True]
