"""Whatever is asked of a probe, no tensor of tokens × tokens is ever made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from no_matrix import NoMatrix

from napari_medtransformer.attention import scoring
from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.models.base import Prompts

CLICK = Prompts(np.array([[20.0, 30.0]], np.float32), np.array([1]))


@pytest.fixture(autouse=True)
def in_one_thread(monkeypatch):
    """The guard sees what its own thread makes; others make blocks of the same size."""
    monkeypatch.setattr(scoring, "MOST_THREADS", 1)


def use_every_answer(model, image, query, region, tokens):
    """Encode under the probe and ask everything; returns the largest tensor that was made."""
    with NoMatrix(tokens) as guard:
        with AttentionProbe(model) as probe:
            embedding = model.encode(image)
            model.decode(embedding, CLICK)
        for site in probe.sites:
            queries = torch.arange(0, site.query_grid.n_tokens, 97)
            probe.rows(site, queries)
        placed = [site for site in probe.sites if site.query_grid.has_place]
        for site in placed:
            probe.heatmap(site, query)
            probe.mean_row(site, region)
            probe.received(site)
        probe.rollout(query)
        probe.summary((1.0, 1.0))
    return guard.largest


def test_no_tensor_of_tokens_by_tokens_is_ever_made(monkeypatch):
    from small_models import small_sam

    from napari_medtransformer.attention import captured, fused

    # 32 × 32 tokens of 4 pixels; the blocks are made as small in proportion
    tokens = 32 * 32
    monkeypatch.setattr(fused, "BLOCK_ELEMENTS", tokens * 128)
    monkeypatch.setattr(captured, "BLOCK_ELEMENTS", tokens * 128)
    monkeypatch.setattr(scoring, "PROCESSOR_ELEMENTS", tokens * 128)
    model = small_sam(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, patch_size=4, window_size=6)
    image = np.random.default_rng(0).random((100, 128), dtype=np.float32)
    region = np.zeros(image.shape, bool)
    region[20:60, 30:90] = True
    largest = use_every_answer(model, image, (40, 50), region, tokens)
    assert largest > tokens * 64  # the guard did see the work


def test_the_guard_would_notice_a_matrix():
    q, k = torch.randn(1, 2, 64, 8), torch.randn(1, 2, 64, 8)
    with pytest.raises(AssertionError, match="made"), NoMatrix(64):
        (q @ k.transpose(-1, -2)).softmax(-1)


@pytest.mark.slow
def test_no_tensor_of_tokens_by_tokens_is_ever_made_at_full_size():
    from napari_medtransformer.models import load_model

    model = load_model("sam-vit-b", weights="random", device="cpu")
    image = np.random.default_rng(0).random((320, 512), dtype=np.float32)
    region = np.zeros(image.shape, bool)
    region[100:200, 150:300] = True
    largest = use_every_answer(model, image, (150, 200), region, 64 * 64)
    assert largest > 64 * 64 * 64  # the guard did see the work
