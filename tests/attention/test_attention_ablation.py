"""Heads switched off, against networks that lack them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_medtransformer.attention.ablation import ablated_heads
from napari_medtransformer.errors import NothingCaptured, QueryOutOfGrid, UnknownSite

IMAGE = np.random.default_rng(0).random((64, 64), dtype=np.float32)


def features(model):
    return model.encode(IMAGE).features[0]


@pytest.mark.parametrize("site", ["encoder.0", "encoder.1"])
def test_ablating_all_heads_equals_removing_the_branch(small_sam, site):
    with ablated_heads(small_sam, {site: "all"}):
        ablated = features(small_sam)
    layer = small_sam.network.vision_encoder.layers[int(site[-1])]
    layer.attn.forward = torch.zeros_like
    assert torch.equal(ablated, features(small_sam))


def test_ablating_none_changes_no_bit(small_sam):
    before = features(small_sam)
    for nothing in ({}, {"encoder.1": []}):
        with ablated_heads(small_sam, nothing):
            assert torch.equal(features(small_sam), before)
    assert torch.equal(features(small_sam), before)


def test_ablating_heads_equals_zeroing_their_columns_of_the_projection(small_sam):
    before = features(small_sam)
    with ablated_heads(small_sam, {"encoder.1": [0, 2], "encoder.2": [3]}):
        ablated = features(small_sam)
    layers = small_sam.network.vision_encoder.layers
    for block, heads in ((1, (0, 2)), (2, (3,))):
        for head in heads:
            layers[block].attn.proj.weight[:, 8 * head : 8 * head + 8] = 0
    assert torch.allclose(ablated, features(small_sam), atol=1e-5)
    assert not torch.allclose(ablated, before, atol=1e-3)


def test_everything_is_restored_after_an_error(small_sam):
    before = features(small_sam)
    with pytest.raises(RuntimeError, match="broken"), ablated_heads(small_sam, {"encoder.1": "all"}):
        raise RuntimeError("broken")
    assert torch.equal(features(small_sam), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in small_sam.network.modules())


def test_impossible_ablations_are_refused_in_words(small_sam):
    with pytest.raises(UnknownSite, match=r"encoder\.0"), ablated_heads(small_sam, {"encoder.9": [0]}):
        pass
    with pytest.raises(QueryOutOfGrid, match="heads 0 to 3"), ablated_heads(small_sam, {"encoder.0": [4]}):
        pass
    with pytest.raises(NothingCaptured, match=r"decoder\.0"), ablated_heads(small_sam, {"decoder.0.prompts": [0]}):
        features(small_sam)
