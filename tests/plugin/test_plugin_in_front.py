"""Whose pixels are seen is whose prompts are given, in a real window with several images."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image
from qtpy.QtCore import Qt

from napari_medtransformer.plugin.layer_volume import SlicePoint
from napari_medtransformer.plugin.prompts.dock import PromptDock
from napari_medtransformer.plugin.widgets.banner import Banner
from napari_medtransformer.plugin.widgets.layer_choice import HEATMAP_KEY

SHAPE = (6, 40, 48)
CENTRE = (3, 20, 24)


def ball(name: str, **options) -> Image:
    """A bright ball on a dark ground."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    inside = (z - 3) ** 2 * 9 + (y - 20) ** 2 + (x - 24) ** 2 < 120
    return Image(np.where(inside, 100, -50).astype(np.int16), name=name, **options)


@pytest.fixture
def desk(open_desk):
    """A window on one image, with the Prompt dock."""
    desk = open_desk(ball("first"))
    desk.first = desk.viewer.layers["first"]
    desk.dock = PromptDock(desk.viewer)
    desk.viewer.window.add_dock_widget(desk.dock, area="right")
    desk.show(CENTRE)
    return desk


def worked_on(desk) -> None:
    """One prompt on the first image."""
    desk.click(desk.first, CENTRE)
    desk.wait()
    assert desk.controller.session.labels[CENTRE] == 1


def opened(desk, *layers: Image) -> Image:
    """Images that are opened one after another; the last."""
    for layer in layers:
        desk.viewer.add_layer(layer)
    desk.qtbot.wait(50)
    desk.wait()
    return layers[-1]


def test_an_image_opened_over_an_untouched_one_is_worked_on(desk) -> None:
    second = opened(desk, ball("between"), ball("second"))
    assert desk.controller.layer is second
    assert desk.dock.layer_choice.currentText() == "second"
    assert desk.dock.hidden.isHidden()
    desk.click(second, CENTRE)
    desk.wait()
    assert [len(session.prompts) for session in desk.controller.sessions()] == [0, 1]


def test_over_unsaved_work_the_dock_asks_and_no_click_goes_to_what_is_not_seen(desk, notifications) -> None:
    worked_on(desk)
    second = opened(desk, ball("second"))
    assert desk.controller.layer is desk.first
    assert "“second” hides “first”" in desk.dock.hidden.text.text()
    assert desk.dock.hidden.isVisible()
    desk.click(second, CENTRE)
    desk.wait()
    assert len(desk.controller.session.prompts) == 1
    assert "“second” hides “first”" in notifications[-1].message
    desk.qtbot.mouseClick(desk.dock.hidden.switch, Qt.MouseButton.LeftButton)
    desk.qtbot.wait(50)
    assert desk.controller.layer is second
    assert desk.dock.hidden.isHidden()
    desk.click(second, CENTRE)
    desk.wait()
    assert [len(session.prompts) for session in desk.controller.sessions()] == [1, 1]


def test_what_hides_the_image_is_put_behind_it_with_all_that_was_drawn_on_it(desk) -> None:
    worked_on(desk)
    second = opened(desk, ball("second"))
    desk.controller.in_front.turn_to_hiding()
    desk.click(second, CENTRE)
    desk.wait()
    assert desk.viewer.layers.index("second objects") > desk.viewer.layers.index(desk.first)
    desk.dock.layer_choice.setCurrentText("first")
    desk.dock.layer_choice.activated.emit(desk.dock.layer_choice.currentIndex())
    desk.qtbot.wait(50)
    names = [layer.name for layer in desk.viewer.layers]
    at = names.index("first")
    assert {"second", "second objects"} <= set(names[:at])
    assert "first objects" in names[at:]
    assert desk.viewer.layers.selection.active is desk.first
    assert desk.dock.hidden.isHidden()
    desk.click(desk.first, (3, 20, 30))
    desk.wait()
    assert len(desk.controller.session.prompts) == 2


def test_put_behind_by_the_button_the_mask_is_seen_again(desk) -> None:
    worked_on(desk)
    before = desk.viewer.screenshot(canvas_only=True, flash=False)
    opened(desk, ball("second"))
    hidden = desk.viewer.screenshot(canvas_only=True, flash=False)
    desk.qtbot.mouseClick(desk.dock.hidden.behind, Qt.MouseButton.LeftButton)
    desk.qtbot.wait(100)
    after = desk.viewer.screenshot(canvas_only=True, flash=False)
    x, y = desk.pixel_of(desk.first, (3, 20, 20))  # in the ball, beside the mark of the point
    assert not np.array_equal(before[y, x], hidden[y, x])
    np.testing.assert_array_equal(before[y, x], after[y, x])


def test_what_is_seen_through_or_lies_elsewhere_hides_nothing(desk) -> None:
    worked_on(desk)
    see_through = {"half": {"opacity": 0.5}, "added": {"blending": "additive"}, "off": {"visible": False}}
    for name, options in see_through.items():
        opened(desk, ball(name, **options))
    opened(desk, ball("beside", translate=(0, 0, 100)), ball("on other slices", translate=(20, 0, 0)))
    opened(desk, ball("heat", metadata={HEATMAP_KEY: True}))
    assert desk.controller.in_front.hiding == []
    assert desk.controller.layer is desk.first
    assert desk.dock.hidden.isHidden()
    half = desk.viewer.layers["half"]
    half.opacity = 1.0
    desk.qtbot.wait(50)
    assert desk.controller.in_front.hiding == [half]
    assert desk.dock.hidden.isVisible()
    desk.viewer.canvas.grid.enabled = True
    desk.qtbot.wait(50)
    assert desk.dock.hidden.isHidden(), "they lie side by side"
    desk.viewer.canvas.grid.enabled = False
    desk.qtbot.wait(50)
    assert desk.dock.hidden.isVisible()
    desk.viewer.dims.ndisplay = 3
    desk.qtbot.wait(50)
    assert desk.dock.hidden.isHidden()


def test_one_slice_hides_only_the_slice_that_it_lies_on(desk) -> None:
    worked_on(desk)
    one = opened(desk, Image(np.ones((1, *SHAPE[1:]), np.float32), name="one", translate=(CENTRE[0], 0, 0)))
    assert desk.controller.in_front.hiding == [one]
    desk.show((CENTRE[0] + 1, 20, 24))
    assert desk.controller.in_front.hiding == []


def test_an_image_that_is_switched_off_does_not_take_clicks_meant_for_the_one_beneath(desk) -> None:
    worked_on(desk)
    second = opened(desk, ball("second"))
    desk.controller.in_front.bring()
    desk.first.visible = False
    desk.qtbot.wait(50)
    assert desk.controller.in_front.hiding == [second]
    assert desk.dock.hidden.isVisible()
    second.visible = False  # only the mask is looked at
    desk.qtbot.wait(50)
    assert desk.dock.hidden.isHidden()
    desk.prompt(CENTRE)
    desk.wait()
    assert len(desk.controller.session.prompts) == 2


def test_of_the_images_that_are_there_already_one_that_is_seen_is_worked_on(make_napari_viewer) -> None:
    viewer = make_napari_viewer()
    for layer in (ball("seen"), ball("hidden", visible=False)):
        viewer.add_layer(layer)
    dock = PromptDock(viewer)
    viewer.window.add_dock_widget(dock, area="right")
    assert dock.layer_choice.currentText() == "seen"


def test_prompts_that_wait_for_their_model_are_work_too(open_desk) -> None:
    desk = open_desk(ball("first"), model=None)
    desk.controller.clicked(SlicePoint(tuple(map(float, CENTRE)), 0))
    desk.viewer.add_layer(ball("second"))
    desk.qtbot.wait(50)
    assert desk.controller.layer.name == "first"
    assert len(desk.controller.workspace.waiting) == 1


def test_work_on_another_frame_is_work_too(open_desk) -> None:
    frames = Image(np.stack([ball("one").data] * 2), name="frames")
    desk = open_desk(frames)
    desk.prompt(CENTRE)
    desk.wait()
    desk.viewer.dims.set_point(0, 1)  # the other frame, on which nothing was done
    desk.wait()
    assert desk.controller.session.prompts == {}
    opened(desk, Image(frames.data, name="second"))
    assert desk.controller.layer is frames


def test_a_dock_that_comes_when_the_image_is_hidden_already_asks_and_opens_no_window(open_desk, monkeypatch) -> None:
    desk = open_desk(ball("first"))
    desk.prompt(CENTRE)
    opened(desk, ball("second"))
    shown_alone = []

    def set_visible(self: Banner, on: bool) -> None:
        shown_alone.append(on and self.isWindow())
        super(Banner, self).setVisible(on)

    monkeypatch.setattr(Banner, "setVisible", set_visible)
    dock = PromptDock(desk.viewer)
    assert shown_alone
    assert not any(shown_alone), "a banner was shown as a window of its own"
    desk.viewer.window.add_dock_widget(dock, area="right")
    desk.qtbot.wait(50)
    assert dock.hidden.isVisible()
