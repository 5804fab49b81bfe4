"""An encoder that takes long: its progress is shown, it can be stopped, and it gives way to prompts elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from qtpy.QtCore import Qt

from napari_medtransformer.plugin import frames
from napari_medtransformer.plugin.prompts import predicting
from napari_medtransformer.plugin.prompts.dock import PromptDock


class Gate:
    """Holds the second block of an encoder back until it is opened."""

    def __init__(self, model: Any) -> None:
        self._open = threading.Event()
        self.arrived = threading.Event()
        self.impatient = False
        blocks = [site.module for site in model.attention_sites() if site.name.startswith("encoder.")]
        self._hook = model.network.get_submodule(blocks[1]).register_forward_pre_hook(self._wait)

    def _wait(self, *_: object) -> None:
        self.arrived.set()
        self.impatient = not self._open.wait(60)
        assert not self.impatient

    @property
    def shut(self) -> bool:
        return not self._open.is_set() and not self.impatient

    def open(self) -> None:
        self._open.set()

    def remove(self) -> None:
        self.open()
        self._hook.remove()


@pytest.fixture
def gate(click_model: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    monkeypatch.setattr(predicting, "SHOWN_AFTER_S", 0.0)
    gate = Gate(click_model)
    yield gate
    gate.remove()


def test_an_encoder_at_work_is_shown_and_stopped_and_s_asks_again(open_desk, torso, liver, gate, click_model) -> None:
    desk = open_desk(torso(), model=None)
    controller = desk.controller
    controller.models.use(click_model)
    dock = PromptDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, name="Prompt", area="right")
    desk.prompt(liver)
    desk.qtbot.waitUntil(gate.arrived.is_set, timeout=60_000)
    desk.qtbot.waitUntil(lambda: dock.stop.isVisible(), timeout=10_000)
    blocks = len([site for site in click_model.attention_sites() if site.name.startswith("encoder.")])
    desk.qtbot.waitUntil(lambda: dock.status.text().startswith("Encoding axial slice"), timeout=10_000)
    assert f"of {blocks} blocks" in dock.status.text()
    desk.qtbot.mouseClick(dock.stop, Qt.MouseButton.LeftButton)
    gate.open()
    desk.wait()
    desk.qtbot.waitUntil(lambda: not dock.stop.isVisible(), timeout=10_000)
    assert not controller.session.labels.any()
    assert len(controller.session.prompts) == 1
    assert controller.prediction.waiting() == 1
    controller.prediction.run()
    desk.wait()
    assert controller.session.labels[liver] == 1
    assert controller.prediction.waiting() == 0


def test_encoding_ahead_gives_way_to_a_prompt_on_another_slice(open_desk, torso, liver, gate, click_model) -> None:
    desk = open_desk(torso(), model=None)
    controller, (z, y, x) = desk.controller, liver
    desk.show((z + 2, y, x))
    controller.models.use(click_model)
    desk.qtbot.waitUntil(gate.arrived.is_set, timeout=60_000)  # the slice on screen is being encoded ahead
    session, encoded = controller.session, []

    def note(_: Any) -> None:
        if session.live_labels.any():
            encoded.append(session.is_encoded(0, z + 2))

    session.subscribe(note)
    desk.prompt(liver)
    gate.open()
    desk.wait()
    assert session.labels[liver] == 1
    assert encoded[0] is False
    desk.qtbot.waitUntil(lambda: session.is_encoded(0, z + 2), timeout=60_000)  # it goes on afterwards


def test_a_prompt_that_waits_for_its_slice_encoded_ahead_is_told_how_far_it_is(
    open_desk, torso, liver, gate, click_model
) -> None:
    desk = open_desk(torso(), model=None)
    controller = desk.controller
    desk.show(liver)
    controller.models.use(click_model)
    desk.qtbot.waitUntil(gate.arrived.is_set, timeout=60_000)
    heard: list[Any] = []
    controller.prediction.encoding.connect(heard.append)
    desk.prompt(liver)
    gate.open()
    desk.wait()
    assert controller.session.labels[liver] == 1
    assert [step for step in heard if step is not None]
    assert heard[-1] is None
    assert controller.prediction.progress is None


def test_the_window_waits_for_nothing_while_an_encoder_holds_on(open_desk, torso, liver, gate, click_model) -> None:
    layer = torso()
    desk = open_desk(layer, model=None)
    controller, viewer, (z, y, x) = desk.controller, desk.viewer, liver
    dock = PromptDock(viewer)
    viewer.window.add_dock_widget(dock, name="Prompt", area="right")
    desk.show(liver)
    controller.models.use(click_model)
    desk.click(layer, liver)
    desk.qtbot.waitUntil(gate.arrived.is_set, timeout=60_000)
    # None of this comes back before the encoder goes on, if it asks for anything that the encoder holds.
    desk.click(layer, (z, y + 5, x))
    desk.click(layer, (z, y, x + 5), shift=True)
    desk.hover(layer, (z, y + 2, x + 2))
    for act in (controller.undo, controller.redo, controller.prompting.cycle_mask, controller.actions.new_object):
        act()
    layer.contrast_limits = (-100, 200)  # the model sees another window from the next prompt on
    desk.click(layer, (z, y - 5, x))
    controller.models.use(click_model)
    desk.show((z + 1, y, x))
    desk.click(layer, (z + 1, y, x))
    controller.actions.clear_object(2)
    controller.undo()
    dock.refresh()
    viewer.dims.order = (1, 0, 2)
    desk.qtbot.wait(50)
    assert gate.shut
    gate.open()
    desk.wait()
    assert controller.session.pending() == []


def test_encoding_ahead_rests_while_an_answer_is_drawn(open_desk, torso, liver, monkeypatch) -> None:
    monkeypatch.setattr(frames, "REST_S", 3600.0)
    desk = open_desk(torso())
    controller, session = desk.controller, desk.controller.session
    desk.show(liver)
    desk.wait()
    rests, rest = threading.Event(), controller.view.frames.rest

    def told_rest() -> None:
        rests.set()
        rest()

    monkeypatch.setattr(controller.view.frames, "rest", told_rest)
    controller.preferences = replace(controller.preferences, reach=3)
    controller.view.frames.expect()  # as when an answer was just found
    controller.view._prefetch()
    assert rests.wait(60)
    time.sleep(0.2)  # no event is handled meanwhile, so nothing is drawn
    assert [session.is_encoded(0, liver[0] + step) for step in (0, 1)] == [True, False]
    desk.canvas._scene_canvas.update()
    desk.wait()
    assert session.is_encoded(0, liver[0] + 3)
