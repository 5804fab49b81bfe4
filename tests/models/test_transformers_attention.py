"""SAM 2, SegFormer, DETR and their kin: probed rows against the softmax of their own projections."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import sam_config, small_detr
from torch import nn

from napari_medtransformer.attention.layout import TokenLayout
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.attention.sampled import sampled_attention
from napari_medtransformer.attention.sites import SiteSpec
from napari_medtransformer.errors import NothingCaptured, QueryOutOfGrid, UnsupportedModel
from napari_medtransformer.models.transformers_attention import attention_sites


def hiera():
    from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig
    from transformers.models.sam2.modeling_sam2 import Sam2HieraDetModel

    config = Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=1,
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        blocks_per_stage=[1, 2, 3, 1],
        window_size_per_stage=[8, 4, 14, 7],
        global_attention_blocks=[4],
        image_size=[256, 256],
        window_positional_embedding_background_size=[7, 7],
    )
    torch.manual_seed(0)
    return scaled(Sam2HieraDetModel._from_config(config, attn_implementation="sdpa").eval())


def segformer(implementation="sdpa"):
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        hidden_sizes=[16, 32, 40, 64], depths=[1, 2, 1, 1], num_attention_heads=[1, 2, 5, 8], decoder_hidden_size=16
    )
    torch.manual_seed(0)
    return scaled(SegformerForSemanticSegmentation._from_config(config, attn_implementation=implementation).eval())


def scaled(network):
    """Weights large enough that attention is far from even."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
    return network


def probe_of(network, *inputs, **named):
    with torch.no_grad(), AttentionProbe(network, attention_sites(network)) as probe:
        network(*inputs, **named)
    return probe


def test_hiera_rows_equal_the_softmax_of_its_own_projections():
    network = hiera()
    inputs = {}
    handles = [
        block.attn.register_forward_pre_hook(
            lambda _, args, kwargs, i=i: inputs.__setitem__(i, kwargs["hidden_states"]), with_kwargs=True
        )
        for i, block in enumerate(network.blocks)
    ]
    image = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    probe = probe_of(network, image)
    for handle in handles:
        handle.remove()
    assert [s.query_grid.shape for s in probe.sites] == [(64, 64), *[(32, 32)] * 2, *[(16, 16)] * 3, (8, 8)]
    assert [s.key_grid.shape for s in probe.sites] == [*[(64, 64)] * 2, *[(32, 32)] * 2, *[(16, 16)] * 3]
    for i, site in enumerate(probe.sites):
        attn, x = network.blocks[i].attn, inputs[i]
        windows, h, w, _ = x.shape
        q, k, _ = attn.qkv(x).detach().reshape(windows, h, w, 3, -1).unbind(3)
        if attn.query_stride:
            q = nn.functional.max_pool2d(q.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        q, k = (t.flatten(1, 2).unflatten(-1, (site.heads, -1)).transpose(1, 2) for t in (q, k))
        expected = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1)
        tokens = torch.arange(0, site.query_grid.n_tokens, 7)
        window, place = site.query_grid.window_of_token[tokens].unbind(1)
        assert torch.allclose(probe.rows(site, tokens).transpose(0, 1), expected[window, :, place], atol=1e-5)
    rollout = probe.rollout((100, 30))
    assert rollout.values.shape == (1, 64, 64)
    assert np.isclose(rollout.values.sum() + rollout.padding_mass, 1, atol=1e-5)


def test_segformer_rows_equal_its_eager_attention_and_roll_out_to_the_finest_tokens():
    image = torch.randn(1, 3, 128, 192, generator=torch.Generator().manual_seed(1))
    probe = probe_of(segformer(), image)
    eager = segformer("eager")
    with torch.no_grad():
        weights = eager(image, output_attentions=True).attentions
    assert len(weights) == len(probe.sites) == 5
    for site, expected in zip(probe.sites, weights):
        rows = probe.rows(site, range(site.query_grid.n_tokens))
        assert torch.allclose(rows, expected[0], atol=1e-5)
    assert probe.sites[0].query_grid.shape == (32, 48)
    assert probe.sites[0].key_grid.shape == (4, 6)
    rollout = probe.rollout((100, 30))
    assert rollout.values.shape == (1, 32, 48)
    assert np.isclose(rollout.values.sum(), 1, atol=1e-5)


def test_detr_rows_equal_its_eager_attention():
    image = torch.randn(1, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    probe = probe_of(small_detr(), image)
    with torch.no_grad():
        out = small_detr("eager")(image, output_attentions=True)
    for i in range(2):
        expected = {
            f"encoder.{i}": out.encoder_attentions[i],
            f"decoder.{i}.prompts": out.decoder_attentions[i],
            f"decoder.{i}.prompt-to-image": out.cross_attentions[i],
        }
        for name, weights in expected.items():
            rows = probe.rows(name, range(probe.site(name).query_grid.n_tokens))
            assert torch.allclose(rows, weights[0], atol=1e-5)
    assert probe.site("encoder.0").query_grid.shape == (3, 5)
    assert probe.heatmap("decoder.1.prompt-to-image", 4).values.shape == (2, 3, 5)


def test_deformable_detr_shows_the_places_it_samples():
    network = small_detr(deformable=True)
    image = torch.randn(1, 3, 96, 160)
    with torch.no_grad(), sampled_attention(network) as sampled:
        network(image)
    assert [name.split(".")[0] for name in sampled] == ["encoder"] * 2 + ["decoder"] * 2
    placement = InputPlacement((48, 80), (96, 160), (96, 160))
    encoder = sampled["encoder.layers.0.self_attn"]
    assert torch.allclose(encoder.weights.sum((-1, -2)), torch.ones(()), atol=1e-5)
    # an untrained encoder samples around the query itself: the first token of the finest level lies at its corner
    places, weights = encoder.points(0, placement)
    assert places.shape == (4, 4 * 4, 2)
    assert weights.shape == (4, 16)
    level = (places.reshape(4, 4, 4, 2)[:, 0] + 0.5) / np.array([48, 80])
    tokens = np.array([12, 20])  # the finest level's stride is 8
    assert np.abs(level * tokens - 0.5).max() <= 4 + 1e-4  # offsets of 1 to 4 tokens
    with pytest.raises(QueryOutOfGrid, match="queries"):
        encoder.points(10**6, placement)
    assert not any(m._forward_pre_hooks for m in network.modules())
    with pytest.raises(NothingCaptured), sampled_attention(network):
        pass


def test_deformable_detrs_object_queries_are_probed_as_usual():
    probe = probe_of(small_detr(deformable=True), torch.randn(1, 3, 96, 160))
    assert [site.name for site in probe.sites] == ["decoder.0.prompts", "decoder.1.prompts"]


def test_a_layout_that_does_not_fit_is_refused_in_words():
    network = segformer()
    (first, *_) = attention_sites(network)
    wrong = SiteSpec(first.name, first.module, first.kind, first.heads, TokenLayout((8, 8)), first.keys)
    with torch.no_grad(), AttentionProbe(network, [wrong]) as probe:
        network(torch.randn(1, 3, 64, 64))
    with pytest.raises(UnsupportedModel, match="declared wrongly"):
        probe.rows(first.name, [0])


def test_eager_and_unknown_networks_are_refused_in_words():
    with pytest.raises(UnsupportedModel, match="sdpa"):
        attention_sites(segformer("eager"))
    with pytest.raises(UnsupportedModel, match="Linear"):
        attention_sites(nn.Linear(2, 2))


def test_sam_hq_encodes_fused_as_it_did():
    from transformers import SamHQConfig, SamHQModel

    from napari_medtransformer.models.sam_blocks import use_fused_attention

    config = sam_config(SamHQConfig)
    torch.manual_seed(0)
    network = scaled(SamHQModel._from_config(config, attn_implementation="eager").eval())
    with torch.no_grad():
        for name, parameter in network.vision_encoder.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                parameter.normal_(std=0.2)
        image = torch.randn(1, 3, 128, 128)
        expected = network.vision_encoder(image).last_hidden_state
        given = use_fused_attention(network).vision_encoder(image).last_hidden_state
    assert torch.allclose(given, expected, atol=1e-4)
