"""The UperNet adapter against transformers' own network, loaded from the published format."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from local_attention import assert_heatmaps_peak_at, feed, first_head, place_code
from safetensors.torch import load_file
from small_models import upernet_card, upernet_config
from torch import nn
from transformers import UperNetForSemanticSegmentation

from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.models import find_card
from napari_medtransformer.models.initial import draw_weights
from napari_medtransformer.models.swin_attention import FusedSwinAttention, use_fused_attention
from napari_medtransformer.models.upernet import UperNetModel, own_names
from napari_medtransformer.models.weights import fill, guess_family

CPU = torch.device("cpu")
SLICES = torch.randn(2, 3, 100, 128, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def card():
    return upernet_card()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small UperNet with random weights in the published format, as transformers writes it."""
    folder = tmp_path_factory.mktemp("upernet")
    draw_weights(UperNetForSemanticSegmentation(upernet_config()), 0).save_pretrained(folder)
    return folder


def published(folder):
    """The names of published files: transformers' older ones, without the norm that a backbone never runs."""
    state = load_file(folder / "model.safetensors")
    older = {}
    for name, value in state.items():
        if name.startswith("backbone.swin.layernorm."):
            continue
        name = name.replace("backbone.swin.", "backbone.")
        for new, old in (("q_proj", "self.query"), ("k_proj", "self.key"), ("v_proj", "self.value")):
            name = name.replace(f"attention.{new}", f"attention.{old}")
        name = name.replace("attention.o_proj", "attention.output.dense")
        name = name.replace("attention.relative_position_bias.rel", "attention.self.rel")
        if name.startswith("backbone.encoder"):
            name = name.replace("mlp.fc1", "intermediate.dense").replace("mlp.fc2", "output.dense")
        older[name] = value
    # a constant that older releases saved with each block
    for name in [n for n in older if n.endswith("relative_position_bias_table")]:
        older[name.replace("bias_table", "index")] = torch.zeros(25, 25, dtype=torch.long)
    return older


@pytest.fixture(scope="module")
def model(card, checkpoint):
    state = published(checkpoint)
    assert "backbone.encoder.layers.0.blocks.0.attention.self.query.weight" in state
    assert guess_family(state) == "UperNet (transformers)"
    network = UperNetForSemanticSegmentation(upernet_config())
    fill(network, own_names(state, network), card.name)
    return UperNetModel(card, use_fused_attention(network), CPU, torch.float32)


def test_logits_equal_those_of_transformers_for_the_published_format(model, checkpoint):
    theirs = UperNetForSemanticSegmentation.from_pretrained(checkpoint).eval()
    theirs.backbone.config._attn_implementation = "eager"
    assert not any(isinstance(module, FusedSwinAttention) for module in theirs.modules())
    with torch.no_grad():
        expected = theirs(SLICES).logits
    found = model.logits(SLICES)
    assert found.shape == (2, 7, 100, 128)
    assert torch.allclose(found[:, 1:], expected, atol=1e-4)


def test_probed_rows_equal_the_softmax_that_transformers_computes(model, checkpoint):
    theirs = UperNetForSemanticSegmentation.from_pretrained(checkpoint).eval()
    theirs.backbone.config._attn_implementation = "eager"
    rows = {}
    for path, module in theirs.named_modules():
        if type(module).__name__ == "SwinAttention":
            module.register_forward_hook(lambda _, __, out, path=path: rows.__setitem__(path, out[1]))
    with torch.no_grad():
        theirs(SLICES[:1])
    with AttentionProbe(model) as probe:
        for listener in model.on_encode:
            listener(InputPlacement((100, 128), (100, 128), (100, 128)))
        model.logits(SLICES[:1])
    for spec in model.attention_sites():
        grid = probe.site(spec.name).query_grid
        token = int(grid.token_of((61, 70)))
        window, place = grid.window_of_token[token].tolist()
        expected = rows[spec.module][window, :, place]
        assert torch.allclose(probe.rows(spec.name, [token])[:, 0], expected, atol=1e-5), spec.name


def test_heatmaps_lie_where_attention_is(card):
    network = draw_weights(UperNetForSemanticSegmentation(upernet_config(heads=(2, 4, 8, 16))), 0)
    for stage in network.backbone.swin.encoder.layers:
        for block in stage.blocks:
            block.layernorm_before = nn.Identity()
            attention = block.attention
            for projection in (attention.q_proj, attention.k_proj):
                first_head(projection, 8)
            nn.init.zeros_(attention.relative_position_bias.relative_position_bias_table)

            def code(tokens, width=attention.q_proj.in_features):
                rows = {800: 25, 208: 13, 56: 7, 16: 4}[tokens.shape[1]]
                return place_code((rows, tokens.shape[1] // rows), 8, width).flatten(0, 1)[None]

            feed(block, code)
    model = UperNetModel(card, use_fused_attention(network), CPU, torch.float32)
    with AttentionProbe(model) as probe:
        for listener in model.on_encode:
            listener(InputPlacement((100, 128), (100, 128), (100, 128)))
        model.logits(SLICES[:1])
    assert [s.key_grid.shape for s in probe.sites] == [*[(25, 32)] * 2, *[(13, 16)] * 2, *[(7, 8)] * 2, *[(4, 4)] * 2]
    assert [s.key_grid.shift for s in probe.sites] == [(0, 0), (2, 2)] * 4
    for query in ((50, 64), (20, 100)):
        assert_heatmaps_peak_at(probe, query)


def test_a_card_of_every_swin_loads_random_weights_from_its_seed():
    from napari_medtransformer.models.upernet import _SIZES

    assert {find_card(name).architecture for name in ("upernet-swin-t-ade20k", "upernet-swin-s-ade20k")} <= set(_SIZES)
    one, other = (draw_weights(UperNetForSemanticSegmentation(upernet_config()), 3).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not any(np.isnan(value.float().numpy()).any() for value in one.values())
