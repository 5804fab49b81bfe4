"""Images as people really open them: odd types, shapes and spacings are clicked on and looked into like any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_medtransformer.plugin.attention.dock import AttentionDock
from napari_medtransformer.plugin.layer_volume import SlicePoint
from napari_medtransformer.plugin.planes import set_plane
from napari_medtransformer.plugin.prompts.dock import PromptDock

SHAPE = (6, 40, 48)


def ball(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A bright ball in the middle of a dim noise, float32."""
    places = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape), indexing="ij")
    inside = sum(place**2 for place in places) < 0.25
    noise = np.random.default_rng(0).normal(0, 0.05, shape)
    return (100 * (0.2 + 0.6 * inside + noise)).astype(np.float32)


def with_holes(data: np.ndarray) -> np.ndarray:
    """NaN, infinities and a slice of nothing but NaN."""
    data = data.copy()
    data[0] = np.nan
    data[1, 0, :3] = np.inf, -np.inf, np.nan
    return data


IMAGES: dict[str, Callable[[], tuple[np.ndarray, dict[str, Any]]]] = {
    "int64": lambda: (ball().astype(np.int64), {}),
    "uint64": lambda: (ball().clip(0).astype(np.uint64), {}),
    "bool": lambda: (ball() > 50, {}),
    "float16": lambda: (ball().astype(np.float16), {}),
    "big-endian": lambda: (ball().astype(">i2"), {}),
    "NaN and infinities": lambda: (with_holes(ball()), {}),
    "nothing but zeros": lambda: (np.zeros(SHAPE, np.int16), {}),
    "negative strides": lambda: (ball()[::-1, :, ::-1], {}),
    "Fortran order": lambda: (np.asfortranarray(ball()), {}),
    "voxels of a kilometre": lambda: (ball(), {"scale": (1e6, 1e6, 1e6), "units": ("mm",) * 3}),
    "voxels of a nanometre": lambda: (ball(), {"scale": (1e-6, 1e-6, 1e-6), "units": ("mm",) * 3}),
    "thick slices": lambda: (ball(), {"scale": (50.0, 0.3, 0.3), "units": ("mm",) * 3}),
    "one slice": lambda: (ball((1, 40, 48)), {}),
    "one row": lambda: (ball((6, 1, 48)), {}),
    "a picture": lambda: (ball((40, 48)), {}),
    "a few voxels": lambda: (ball((3, 3, 3)), {}),
    "frames": lambda: (np.stack([ball(), ball() + 5, ball() - 5]), {"scale": (1, 2, 2, 2)}),
}


def test_odd_images_are_clicked_and_looked_into_like_any_other(open_desk, notifications) -> None:
    desk = open_desk()
    for dock, area in ((PromptDock, "right"), (AttentionDock, "bottom")):
        desk.viewer.window.add_dock_widget(dock(desk.viewer), area=area)
    controller, state = desk.controller, desk.controller.attention
    for name, make in IMAGES.items():
        data, options = make()
        layer = Image(data, name=name, **options)
        desk.viewer.add_layer(layer)
        assert controller.layer is layer, name
        assert not controller.obstacle, f"{name}: {controller.obstacle}"
        centre = tuple(n // 2 for n in controller.workspace.volume.shape)
        if layer.ndim > 2:
            desk.show((1,) * (layer.ndim - 3) + centre)
        controller.clicked(SlicePoint(tuple(float(p) for p in centre), 0))
        desk.wait()
        assert controller.session.live_labels[centre] == 1, f"{name}: what was clicked is not in the mask"
        assert state.answer is not None, name
        assert state.layers.heat is not None, name
        assert state.layers.heat.ndim == min(layer.ndim, 3), name
        assert sum(x.name.startswith("attention query") for x in desk.viewer.layers) == 1, name
        assert [heard.message for heard in notifications if str(heard.severity) == "error"] == [], name
        desk.viewer.layers.clear()
        desk.qtbot.wait(10)


def test_the_second_click_on_frames_moves_the_mark_and_adds_no_layer(open_desk) -> None:
    layer = Image(np.stack([ball(), ball()]), scale=(1, 3, 2, 2), translate=(0, 10, 20, 30))
    desk = open_desk(layer)
    desk.viewer.window.add_dock_widget(AttentionDock(desk.viewer), area="bottom")
    state = desk.controller.attention
    for place in ((3.0, 20.0, 24.0), (4.0, 10.0, 24.0)):
        desk.controller.clicked(SlicePoint(place, 0))
        desk.wait()
        assert sum(x.name.startswith("attention query") for x in desk.viewer.layers) == 1
        # The oracle: the image's own transform of its last three axes.
        expected = layer.data_to_world((0, *place))[1:]
        np.testing.assert_allclose(state.layers.query.data_to_world(state.layers.query.data[0]), expected)
        at = np.asarray(state.layers.heat.data_to_world((0.0, *place[1:])))
        np.testing.assert_allclose(at, expected)


def test_a_colour_image_is_refused_once_and_a_grey_one_taken(open_desk, notifications) -> None:
    def refusals() -> list[str]:
        return [heard.message for heard in notifications if "colour image" in heard.message]

    desk = open_desk()
    dock = PromptDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, area="right")
    picture = Image(np.zeros((40, 48, 3), np.uint8), rgb=True, name="photo")
    desk.viewer.add_layer(picture)
    assert len(refusals()) == 1
    desk.viewer.add_labels(np.zeros((40, 48), np.uint8))
    desk.viewer.add_points(np.zeros((1, 2)))
    assert len(refusals()) == 1, "it is not told again for every layer that comes"
    assert "Split its channels" in desk.controller.obstacle
    grey = Image(ball((40, 48)), name="grey")
    desk.viewer.add_layer(grey)
    assert desk.controller.layer is grey
    desk.viewer.add_layer(Image(np.zeros((40, 48, 3), np.uint8), rgb=True))
    assert desk.controller.layer is grey
    dock.layer_choice.setCurrentIndex(0)
    dock.layer_choice.activated.emit(0)
    assert len(refusals()) == 2, "whoever chooses it is told why not"


def test_organs_on_frames_are_those_of_the_frame_on_screen(open_desk) -> None:
    image = Image(np.stack([ball(), ball()]))
    labels = np.zeros((2, *SHAPE), np.uint8)
    labels[0, 3, :10], labels[1, 3, 10:20] = 1, 2
    atlas = np.zeros(SHAPE, np.uint8)
    atlas[3, 30:] = 7
    desk = open_desk(image, Labels(labels, name="per frame"), Labels(atlas, name="atlas"))
    desk.viewer.window.add_dock_widget(AttentionDock(desk.viewer), area="bottom")
    desk.viewer.dims.set_point(0, 1)
    desk.qtbot.wait(20)
    desk.controller.clicked(SlicePoint((3.0, 20.0, 24.0), 0))
    desk.wait()
    found = {(organ.layer_name, organ.value): organ for organ in desk.controller.attention.organs()}
    assert {("per frame", 2), ("atlas", 7)} <= set(found)
    assert ("per frame", 1) not in found
    assert any(key[0] == "marked here" for key in found), "what was clicked is an organ too"
    np.testing.assert_array_equal(found["per frame", 2].mask(0, 3), labels[1, 3] == 2)
    np.testing.assert_array_equal(found["atlas", 7].mask(0, 3), atlas[3] == 7)


def test_values_put_in_place_of_those_that_were_read_are_what_the_model_sees(open_desk, torso, liver) -> None:
    layer = torso()
    layer.data = np.zeros_like(np.asarray(layer.data))
    desk = open_desk(layer)
    volume = desk.controller.workspace.volume
    assert volume.modality == "CT", "what the file says of the patient stays"
    assert not np.asarray(volume.data).any()


def test_a_label_of_another_shape_is_no_label_to_refine(open_desk, torso, liver, notifications) -> None:
    from napari_medtransformer.plugin.prompts.tools import Tool

    desk = open_desk(torso(), Labels(np.ones((4, 4, 4), np.uint8), name="elsewhere"))
    desk.controller.set_tool(Tool.REFINE)
    desk.prompt(liver)
    assert any("no label under the cursor" in heard.message for heard in notifications)
    assert desk.controller.session.objects == ()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_plane_of_a_few_slices_takes_a_click(axis: int, open_desk) -> None:
    desk = open_desk(Image(ball((2, 40, 48)), scale=(9.0, 1.0, 1.0)))
    set_plane(desk.viewer, axis)
    desk.controller.clicked(SlicePoint((1.0, 20.0, 24.0), axis))
    desk.wait()
    assert desk.controller.session.live_labels[1, 20, 24] == 1
