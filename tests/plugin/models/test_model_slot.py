"""One model at a time: the newest wish wins, whatever was on its way before."""

from __future__ import annotations

import threading
from typing import Any

from napari_medtransformer.plugin.models.slot import DEFAULT_MODEL


def test_a_model_that_is_given_is_not_replaced_by_one_that_was_on_its_way(
    open_desk: Any, torso: Any, click_model: Any
) -> None:
    desk = open_desk(torso(), model=None)
    models, gate = desk.controller.models, threading.Event()
    desk.controller.queue.submit(gate.wait, label="something long")
    models.load(DEFAULT_MODEL)
    assert models.loading
    models.use(click_model)
    assert not models.loading
    gate.set()
    desk.wait()
    assert models.model is click_model
    assert desk.controller.session.model is click_model


def test_of_two_models_that_are_chosen_the_later_comes(open_desk: Any, torso: Any) -> None:
    desk = open_desk(torso(), model=None)
    models, gate, came = desk.controller.models, threading.Event(), []
    models.loaded.connect(lambda: came.append(models.model.card.name))
    desk.controller.queue.submit(gate.wait, label="something long")
    models.load("medt-hippocampus")
    models.load(DEFAULT_MODEL)
    gate.set()
    desk.wait()
    assert came == [DEFAULT_MODEL]
