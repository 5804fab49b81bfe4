"""MONAI's relative positions along three axes, as its own code adds them to scores."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from monai.networks.blocks.attention_utils import add_decomposed_rel_pos
from monai.networks.blocks.selfattention import SABlock
from small_models import Volumetric, randomised

from napari_medtransformer.attention.policy import AttentionPolicy, use_policy
from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.attention.relative import relative_table
from napari_medtransformer.errors import UnsupportedModel
from napari_medtransformer.models.monai_attention import monai_bias_3d, use_fused_attention

POLICIES = [AttentionPolicy(None, "low-rank"), AttentionPolicy(None, "blockwise")]
PATCH = 8


@pytest.mark.parametrize("side", [2, 3, 5])
def test_the_bias_is_the_one_that_monai_adds(side):
    torch.manual_seed(0)
    tokens, width = side**3, 8
    q = torch.randn(2, 3, tokens, width)
    positions = [torch.randn(2 * side - 1, width) for _ in range(3)]
    expected = add_decomposed_rel_pos(
        torch.zeros(6, tokens, tokens), q.flatten(0, 1), positions, (side,) * 3, (side,) * 3
    ).reshape(2, 3, tokens, tokens)
    bias = monai_bias_3d(q, tuple(relative_table(p, side) for p in positions))
    queries = torch.randperm(tokens)
    for batch in range(2):
        rows = bias.rows(q[batch, :, queries], batch, queries)
        assert torch.allclose(rows, expected[batch, :, queries], atol=1e-5)
    # the low-rank form: terms of the queries times codes of the keys
    terms, codes = torch.cat(bias.query_terms(tokens), dim=-1), torch.cat(bias.key_codes(), dim=-1).float()
    assert terms.shape[-1] == bias.width == side + 2 * side**2
    assert torch.allclose(terms @ codes.T, expected, atol=1e-5)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p.bias_kernel)
@pytest.mark.parametrize("side", [3, 6])
def test_a_block_equals_monais(policy, side):
    torch.manual_seed(0)
    block = randomised(SABlock(24, 3, rel_pos_embedding="decomposed", input_size=(side,) * 3))
    x = torch.randn(2, side**3, 24)
    with torch.no_grad(), use_policy(policy):
        expected = block(x)
        fused = use_fused_attention(copy.deepcopy(block))
        assert torch.allclose(fused(x), expected, atol=1e-5)
    assert fused.state_dict().keys() == block.state_dict().keys()


def test_gradients_equal_monais():
    torch.manual_seed(0)
    block = randomised(SABlock(24, 3, rel_pos_embedding="decomposed", input_size=(3, 3, 3))).double()
    fused = use_fused_attention(copy.deepcopy(block))
    x = torch.randn(2, 27, 24, dtype=torch.float64)
    for module in (block, fused):
        module(x).sin().sum().backward()
    given = dict(fused.named_parameters())
    for name, parameter in block.named_parameters():
        assert torch.allclose(given[name].grad, parameter.grad, atol=1e-10), name


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p.bias_kernel)
def test_probed_rows_and_heatmaps_equal_monais_own_weights(policy):
    torch.manual_seed(0)
    network = randomised(Volumetric(4, save_attn=True))
    volume = torch.randn(1, 1, *(4 * PATCH,) * 3)
    with torch.no_grad():
        expected = network(volume)
        weights = [block.att_mat[0] for block in network.blocks]
        for block in network.blocks:
            block.save_attn = False
        use_fused_attention(network)
        with use_policy(policy), AttentionProbe(network, network.sites()) as probe:
            given = network(volume)
    assert torch.allclose(given, expected, atol=1e-5)
    for site, matrix in zip(probe.sites, weights, strict=True):
        assert torch.allclose(probe.rows(site, range(64)), matrix, atol=1e-5)
    # voxel (9, 17, 30) lies in token (1, 2, 3) of the 4 × 4 × 4 grid
    heatmap = probe.heatmap("encoder.1", (9, 17, 30))
    assert np.allclose(heatmap.values, weights[1][:, 16 + 8 + 3].reshape(3, 4, 4, 4).numpy(), atol=1e-5)
    half = torch.eye(64) / 2
    rollout = (half + weights[1].mean(0) / 2) @ (half + weights[0].mean(0) / 2)
    assert np.allclose(probe.rollout((9, 17, 30)).values.ravel(), rollout[16 + 8 + 3].numpy(), atol=1e-5)
    entropy = -torch.special.xlogy(weights[0], weights[0]).sum(-1).mean(-1)
    assert np.allclose(probe.summary()[0].entropy, entropy.numpy(), atol=1e-5)


def test_the_low_rank_kernel_runs_where_the_policy_says_so():
    network = randomised(Volumetric(4))
    with torch.no_grad(), use_policy(POLICIES[0]), AttentionProbe(network, network.sites()) as probe:
        use_fused_attention(network)(torch.randn(1, 1, *(4 * PATCH,) * 3))
    assert "low-rank" in probe.kernel("encoder.0")


def test_a_grid_that_is_no_cube_is_refused_in_words():
    block = use_fused_attention(SABlock(24, 3, rel_pos_embedding="decomposed", input_size=(2, 3, 4))).eval()
    with torch.no_grad(), pytest.raises(UnsupportedModel, match="only fit cubes"):
        block(torch.randn(1, 24, 24))
