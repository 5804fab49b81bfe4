"""MONAI's networks with fused attention against MONAI's own, and their windows stitched back."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from monai.networks.blocks.selfattention import SABlock
from monai.networks.nets import UNETR, SwinUNETR, ViT
from monai.networks.nets.swin_unetr import compute_mask, window_partition

from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.errors import UnsupportedModel
from napari_medtransformer.models.monai_attention import (
    attention_sites,
    dense_mask,
    shift_regions,
    use_fused_attention,
)


def randomised(network, seed=0):
    """Every position table away from its zero start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "bias_table" in name or "rel_pos" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network.eval()


def swin(spatial_dims=3, **options):
    torch.manual_seed(0)
    options = {"feature_size": 12, "window_size": 3, "num_heads": (2, 4, 8, 16), **options}
    return randomised(SwinUNETR(in_channels=1, out_channels=2, spatial_dims=spatial_dims, **options))


NAMES = ["unetr 3d", "unetr 2d", "swin 3d", "swin 3d, window 7", "swin 2d, v2"]


def make(name):
    """A network and the shape of its input."""
    torch.manual_seed(0)
    size = {"hidden_size": 24, "mlp_dim": 32, "num_heads": 4}
    return {
        "unetr 3d": lambda: (UNETR(1, 2, (32, 48, 32), feature_size=4, dropout_rate=0.5, **size), (1, 1, 32, 48, 32)),
        "unetr 2d": lambda: (UNETR(1, 2, (64, 48), feature_size=4, spatial_dims=2, **size), (2, 1, 64, 48)),
        "swin 3d": lambda: (swin(), (1, 1, 64, 32, 32)),
        "swin 3d, window 7": lambda: (swin(window_size=7), (1, 1, 32, 64, 32)),
        "swin 2d, v2": lambda: (swin(2, use_v2=True), (2, 1, 96, 160)),
    }[name]()


@pytest.mark.parametrize("name", NAMES)
def test_fused_networks_equal_monais(name):
    network, shape = make(name)
    fused = use_fused_attention(copy.deepcopy(network)).eval()
    image = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, given = network.eval()(image), fused(image)
    # rounding of float32 through a dozen layers, relative to the output's size
    assert (given - expected).abs().max() < 1e-5 * expected.abs().max().clamp(min=1)
    assert fused.state_dict().keys() == network.state_dict().keys()


@pytest.mark.parametrize(
    "grid, window, shift",
    [
        ((8, 9), (3, 3), (1, 1)),
        ((6, 6, 12), (6, 3, 4), (0, 1, 2)),
        ((7, 7, 7), (7, 7, 7), (0, 0, 0)),
        ((5, 4), (2, 4), (1, 0)),
    ],
)
def test_regions_say_what_monais_mask_says(grid, window, shift):
    padded = [-(-n // w) * w for n, w in zip(grid, window)]
    expected = compute_mask(padded, window, shift, "cpu")
    assert torch.equal(dense_mask(shift_regions(grid, window, shift)), expected)


def test_decomposed_positions_of_a_block_equal_monais():
    block = randomised(SABlock(24, 3, rel_pos_embedding="decomposed", input_size=(4, 5)))
    x = torch.randn(2, 20, 24)
    with torch.no_grad():
        expected = block(x)
        assert torch.allclose(use_fused_attention(block)(x), expected, atol=1e-5)


@pytest.mark.parametrize("options", [{"causal": True, "sequence_length": 9}, {"use_combined_linear": False}, {}])
def test_masks_of_a_block_equal_monais(options):
    block = SABlock(24, 3, **options).eval()
    x, mask = torch.randn(2, 9, 24), torch.rand(2, 9) > 0.3
    mask[:, 0] = True
    masks = [None] if "causal" in options else [None, mask]
    with torch.no_grad():
        expected = [block(x, m) for m in masks]
        use_fused_attention(block)
        for m, value in zip(masks, expected):
            assert torch.allclose(block(x, m), value, atol=1e-5)


def test_dropout_still_works_in_training():
    block = use_fused_attention(SABlock(24, 3, dropout_rate=0.5)).train()
    x = torch.randn(2, 9, 24)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def eager_swin_weights(network, image):
    """The weights of every window attention by MONAI's eager code: site name → (B·windows, heads, n, n)."""
    weights, handles = {}, []
    for spec in attention_sites(network):
        module = network.get_submodule(spec.module)
        hook = module.attn_drop.register_forward_pre_hook(
            lambda _, args, name=spec.name: weights.__setitem__(name, args[0].detach())
        )
        handles.append(hook)
    with torch.inference_mode():
        network(image)
    for handle in handles:
        handle.remove()
    return weights


@pytest.mark.parametrize("spatial_dims, shape", [(3, (1, 1, 32, 64, 32)), (2, (1, 1, 96, 160))])
def test_probed_windows_equal_an_unshifted_stitched_reference(spatial_dims, shape):
    network = swin(spatial_dims)
    image = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weights = eager_swin_weights(network, image)
    use_fused_attention(network)
    with torch.inference_mode(), AttentionProbe(network, attention_sites(network)) as probe:
        network(image)
    assert len(probe.sites) == 8
    rng = np.random.default_rng(0)
    for site in probe.sites:
        grid, window, shift = site.query_grid, site.query_grid.window, site.query_grid.shift
        voxel = tuple(int(rng.integers(n)) for n in shape[2:])
        heatmap = probe.heatmap(site, voxel)
        assert np.allclose(heatmap.values.sum(tuple(range(1, spatial_dims + 1))) + heatmap.padding_mass, 1, atol=1e-5)
        # the other route: the whole map of this query as an image, cut by MONAI's own code
        index = [int(v // s) for v, s in zip(voxel, grid.scale)]
        padded = [-(-n // w) * w for n, w in zip(grid.shape, window)]
        place = [(i - s) % p for i, s, p in zip(index, shift, padded)]
        mark = torch.zeros(1, *padded, 1)
        mark[(0, *place, 0)] = 1
        entry, token = window_partition(mark, window)[..., 0].nonzero()[0].tolist()
        row = weights[site.name][entry, :, token]
        corner = [p // w * w for p, w in zip(place, window)]
        canvas = torch.zeros(site.heads, *padded)
        canvas[(slice(None), *(slice(c, c + w) for c, w in zip(corner, window)))] = row.reshape(-1, *window)
        canvas = torch.roll(canvas, shift, dims=tuple(range(1, spatial_dims + 1)))
        expected = canvas[(slice(None), *(slice(n) for n in grid.shape))]
        assert np.allclose(heatmap.values, expected.numpy(), atol=1e-5)


def test_rollout_and_summary_run_through_all_of_swins_stages():
    network = use_fused_attention(swin())
    with torch.inference_mode(), AttentionProbe(network, attention_sites(network)) as probe:
        network(torch.randn(1, 1, 32, 32, 64))
    rollout = probe.rollout((20, 10, 60))
    assert rollout.values.shape == (1, 16, 16, 32)
    assert np.isclose(rollout.values.sum() + rollout.padding_mass, 1, atol=1e-5)
    for summary in probe.summary((2.0, 1.0, 1.0)):
        assert ((summary.entropy_fraction > 0) & (summary.entropy_fraction < 1)).all()
        assert np.isfinite(summary.distance).all()


def test_unetr_is_probed_in_3d():
    network, shape = make("unetr 3d")
    use_fused_attention(network.eval())
    with torch.inference_mode(), AttentionProbe(network, attention_sites(network)) as probe:
        network(torch.randn(shape))
    site = probe.sites[-1]
    assert (len(probe.sites), site.query_grid.shape, site.query_grid.scale) == (12, (2, 3, 2), (16.0, 16.0, 16.0))
    assert np.allclose(probe.heatmap(site, (31, 0, 17)).values.sum((1, 2, 3)), 1, atol=1e-5)


def test_a_class_token_comes_before_the_grid():
    vit = use_fused_attention(ViT(1, (32, 32), 16, 24, 32, 2, 4, spatial_dims=2, classification=True)).eval()
    with torch.inference_mode(), AttentionProbe(vit, attention_sites(vit)) as probe:
        vit(torch.randn(1, 1, 32, 32))
    heatmap = probe.heatmap("encoder.1", (20, 5))
    assert (heatmap.values.shape, probe.sites[0].query_grid.prefix) == ((4, 2, 2), 1)
    assert np.allclose(heatmap.values.sum((1, 2)) + heatmap.prefix_mass, 1, atol=1e-5)


def test_a_network_without_transformer_is_refused():
    with pytest.raises(UnsupportedModel, match="Conv3d"):
        attention_sites(torch.nn.Conv3d(1, 1, 1))
