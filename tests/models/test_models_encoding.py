"""An encoder that is watched block by block, and stopped between two of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_medtransformer.models import find_card
from napari_medtransformer.models.click import ClickModel
from napari_medtransformer.models.click_network import ClickConfig, ClickNetwork
from napari_medtransformer.models.encoding import EncodingStopped, between_layers, watched_encoder, watched_steps
from napari_medtransformer.models.initial import draw_weights
from napari_medtransformer.models.sam_med3d import SamMed3DModel
from napari_medtransformer.models.sam_med3d_network import SamMed3D, SamMed3DConfig

IMAGE = np.random.default_rng(0).random((40, 50), np.float32)


@pytest.fixture(scope="module")
def model() -> ClickModel:
    torch.manual_seed(0)
    config = ClickConfig(input_size=64, stem_channels=(8, 16, 16), width=32, depth=3, heads=2, decoder_width=32)
    return ClickModel(find_card("medt-click-tiny"), ClickNetwork(config), torch.device("cpu"), torch.float32)


def test_every_block_is_told_before_it_runs_and_each_image_begins_anew(model: ClickModel) -> None:
    told: list[tuple[int, int]] = []
    with watched_encoder(model, lambda done, blocks: told.append((done, blocks))):
        model.encode(IMAGE)
        model.encode(IMAGE)
    assert told == 2 * [(0, 3), (1, 3), (2, 3)]
    model.encode(IMAGE)
    assert len(told) == 6  # nobody watches any more


def test_a_stopped_encoder_runs_no_further_block_and_works_as_before(model: ClickModel) -> None:
    expected = model.encode(IMAGE).features
    told: list[int] = []

    def stop(done: int, blocks: int) -> None:
        told.append(done)
        if done == 1:
            raise EncodingStopped

    with pytest.raises(EncodingStopped), watched_encoder(model, stop):
        model.encode(IMAGE)
    assert told == [0, 1]
    for before, after in zip(expected, model.encode(IMAGE).features, strict=True):
        assert torch.equal(before, after)


def test_a_network_pauses_before_each_of_its_layers_and_only_inside(model: ClickModel) -> None:
    expected = model.encode(IMAGE).features
    ran: list[str] = []
    calls: list[int] = []
    layers = {name: module for name, module in model.network.named_modules() if not list(module.children())}
    seen = [layer.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, layer in layers.items()]
    with between_layers(model, lambda: calls.append(len(ran))):
        found = model.encode(IMAGE).features
    for handle in seen:
        handle.remove()
    assert len(set(ran)) > 10
    assert calls == list(range(len(ran)))  # once before each layer that ran, after all before it
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    model.encode(IMAGE)
    assert len(calls) == len(ran)


def test_a_model_of_volumes_is_watched_as_well() -> None:
    config = SamMed3DConfig(
        size=32, width=48, depth=2, heads=4, global_blocks=(0,), decoder_width=48, decoder_heads=4, decoder_depth=1
    )
    network = draw_weights(SamMed3D(config), 0)
    model = SamMed3DModel(find_card("sam-med3d"), network, torch.device("cpu"), torch.float32)
    told: list[tuple[int, int]] = []
    with watched_encoder(model, lambda done, blocks: told.append((done, blocks))):
        model.encode(np.ones((10, 12, 14), np.float32), (2.0, 1.5, 1.5), (5, 6, 7), "MR")
    assert told == [(0, 2), (1, 2)]


def test_steps_are_watched_while_they_run_and_not_between_them(model: ClickModel) -> None:
    told: list[int] = []
    closed: list[bool] = []

    def steps():
        try:
            for number in range(3):
                model.encode(IMAGE)
                yield number
        finally:
            closed.append(True)

    watched = watched_steps(model, steps(), lambda done, blocks: told.append(done))
    assert next(watched) == 0
    assert len(told) == 3
    model.encode(IMAGE)
    assert len(told) == 3
    assert next(watched) == 1
    assert len(told) == 6
    watched.close()
    assert closed == [True]
