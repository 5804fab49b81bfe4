"""A look at a training while it runs tells of what is being trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from napari_medtransformer.models.click_network import ClickNetwork
from napari_medtransformer.models.registry import find_card
from napari_medtransformer.models.weights import fill, find_weights, load_state
from napari_medtransformer.training.validation import FixedTarget, validate


def test_the_first_look_is_told_of_without_a_second_that_knows_nothing(tmp_path: Path) -> None:
    y, x = np.ogrid[:96, :96]
    disc = (y - 40) ** 2 + (x - 50) ** 2 < 20**2
    noise = np.random.default_rng(0).normal(0, 0.02, disc.shape)
    target = FixedTarget("disc", np.clip(0.3 + 0.4 * disc + noise, 0, 1).astype(np.float32), disc)
    card = find_card("medt-click-tiny")
    network = ClickNetwork()
    fill(network, load_state(find_weights(card)), card.name)

    def told(**only: bool) -> dict[str, float]:
        return validate(network, [target], tmp_path / "sheet.png", "cpu", **only)

    whole, first = told(), told(first_look=True)
    assert min(first.values()) > 0.7
    torch.manual_seed(0)
    network.focus = type(network.focus)()
    assert told(first_look=True) == first
    assert min(told().values()) < min(whole.values()) - 0.2
