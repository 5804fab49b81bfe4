"""The SegFormer adapter against transformers' own network, loaded from the published format."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from local_attention import assert_heatmaps_peak_at, feed, first_head, place_code
from safetensors.torch import load_file
from small_models import segformer_card
from torch import nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.errors import UnreadableWeights
from napari_medtransformer.models.initial import draw_weights
from napari_medtransformer.models.segformer import SegformerModel, build, empty_segformer
from napari_medtransformer.models.weights import guess_family, load_state

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A SegFormer B0 with random weights in the published format, as transformers writes it."""
    network = draw_weights(SegformerForSemanticSegmentation(SegformerConfig(num_labels=150)), 0)
    folder = tmp_path_factory.mktemp("segformer")
    network.save_pretrained(folder)
    # transformers writes published names whatever it calls its modules
    assert "segformer.encoder.block.3.1.attention.self.query.weight" in load_file(folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def model(checkpoint):
    state = load_state(checkpoint / "model.safetensors")
    assert guess_family(state) == "SegFormer (transformers)"
    return build(segformer_card(), state, seed=0, device=CPU, dtype=torch.float32)


def test_logits_equal_those_of_transformers_for_the_published_format(model, checkpoint):
    theirs = SegformerForSemanticSegmentation.from_pretrained(checkpoint, attn_implementation="eager").eval()
    slices = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = F.interpolate(theirs(slices).logits, size=(64, 96), mode="bilinear")
    found = model.logits(slices)
    assert found.shape == (2, 151, 64, 96)
    assert torch.allclose(found[:, 1:], expected, atol=1e-4)
    # scenes have no background: it never wins
    assert (found[:, 0] < found[:, 1:].amin(dim=1)).all()


def test_a_network_with_a_background_of_its_own_keeps_it(checkpoint):
    state = load_state(checkpoint / "model.safetensors")
    model = build(segformer_card(149), state, seed=0, device=CPU, dtype=torch.float32)
    assert model.logits(torch.zeros(1, 3, 64, 64)).shape == (1, 150, 64, 64)
    with pytest.raises(UnreadableWeights, match="150 classes; segformer-test has 20 labels"):
        build(segformer_card(20), state, seed=0, device=CPU, dtype=torch.float32)


def test_slices_are_normalised_as_the_card_says(model):
    volume = np.linspace(0, 100, 2 * 4 * 5).reshape(2, 4, 5).astype(np.float32)
    scaled = model.normalisation(volume, "MR")(volume)
    assert scaled.shape == (3, 2, 4, 5)
    darkest = [(0 - m) / s for m, s in zip(model.card.input.mean, model.card.input.std, strict=True)]
    assert np.allclose(scaled[:, 0, 0, 0], darkest, atol=1e-5)


def test_heatmaps_lie_where_attention_is():
    config = SegformerConfig(hidden_sizes=[16, 32, 80, 128], num_attention_heads=[1, 2, 5, 8], num_labels=150)
    model = SegformerModel(segformer_card(), draw_weights(empty_segformer(config), 0), CPU, torch.float32)
    for stage in model.network.segformer.stages:
        for block in stage.blocks:
            block.layernorm_before = nn.Identity()
            attention = block.attention
            first_head(attention.q_proj, 16)
            first_head(attention.k_proj, 16)
            width = attention.q_proj.in_features
            reduced = getattr(attention, "sequence_reduction", None)
            if attention.sequence_reduction_ratio > 1:
                # keys are the mean of the tokens they stand for
                conv = reduced.sequence_reduction
                conv.weight.copy_(torch.eye(width)[:, :, None, None].expand_as(conv.weight) / conv.weight[0, 0].numel())
                conv.bias.zero_()
                reduced.layer_norm = nn.Identity()

            def code(tokens, width=width):
                side = round(tokens.shape[1] ** 0.5)
                return place_code((side, side), 16, width).flatten(0, 1)[None]

            feed(block, code)
    with AttentionProbe(model) as probe:
        for listener in model.on_encode:
            listener(InputPlacement((100, 128), (100, 128), (128, 128)))
        model.logits(torch.zeros(1, 3, 128, 128))
    assert [s.query_grid.shape for s in probe.sites] == [(n, n) for n in (32, 32, 16, 16, 8, 8, 4, 4)]
    assert all(s.key_grid.shape == (4, 4) for s in probe.sites)
    for query in ((50, 64), (20, 100)):
        for site in probe.sites:
            heads = probe.heatmap(site, query).values
            peaks = {np.unravel_index(int(head.argmax()), head.shape) for head in heads}
            assert peaks == {(query[0] // 32, query[1] // 32)}, site.name
    assert_heatmaps_peak_at(probe, (50, 64))
