"""Gradient-weighted relevance of SAM's family and of automatic models, against attention written out in full."""

from __future__ import annotations

import numpy as np
import pytest
import small_models
import torch

from napari_medtransformer.attention.bias import WindowBias
from napari_medtransformer.errors import InvalidPrompt, UnsupportedModel
from napari_medtransformer.inspection import inspect_slice, mask_relevance
from napari_medtransformer.inspection.relevance import label_relevance
from napari_medtransformer.inspection.windows import inspect_windows
from napari_medtransformer.models import InputContract, LabelInfo, ModelCard
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.models.compact import CompactConfig, compact_network
from napari_medtransformer.models.sam import SamAdapter
from napari_medtransformer.models.window_model import WindowModel
from napari_medtransformer.segmentation.window_plan import plan_windows
from napari_medtransformer.volumes import Volume

BOX = Prompts(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), (10.0, 12.0, 40.0, 60.0))
NOISE = Volume.from_array(np.random.default_rng(0).normal(size=(1, 50, 77)).astype(np.float32), (3.0, 0.7, 0.7), "MR")


@pytest.fixture(scope="module")
def small_sam() -> SamAdapter:
    """8 × 8 tokens; blocks of windows of 3, which pad the grid, global, and windows again."""
    return small_models.small_sam()


def explicit(kept: list[torch.Tensor]):
    """`attend` with every weight written out and its gradient kept: (B, heads, N, K)."""

    def attend(q, k, v, *, bias=None, scale=None):
        scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
        if isinstance(bias, WindowBias):
            scores = scores + bias.table
            if bias.regions is not None:
                apart = bias.regions[:, :, None] != bias.regions[:, None, :]
                scores = scores + (apart * bias.penalty).repeat(q.shape[0] // len(apart), 1, 1)[:, None]
        elif bias is not None:
            places = torch.arange(q.shape[2])
            scores = scores + torch.stack([bias.rows(q[b], b, places) for b in range(q.shape[0])])
        weights = scores.softmax(-1)
        weights.retain_grad()
        kept.append(weights)
        return weights @ v

    return attend


def dense(weights: torch.Tensor, grid) -> torch.Tensor:
    """(tokens, tokens) of (∇A ⊙ A)⁺, the mean over heads, from the windows that the kernel saw."""
    product = (weights.grad * weights).clamp(min=0).mean(1).detach().double()
    full = torch.zeros(grid.n_tokens, grid.n_tokens, dtype=torch.float64)
    for window, tokens in enumerate(grid.window_tokens):
        real = tokens >= 0
        full[tokens[real][:, None], tokens[real][None]] = product[window][real][:, real]
    return full


def test_sams_relevance_is_gradient_times_attention_in_windows_and_globally(small_sam, monkeypatch) -> None:
    inspection = inspect_slice(small_sam, NOISE, 0, 0)
    found = mask_relevance(inspection, BOX)
    kept: list[torch.Tensor] = []
    best = int(np.argmax(small_sam.decode(inspection.embedding, BOX).scores))
    with torch.inference_mode(False), torch.enable_grad():
        mask = small_sam.differentiable_logits(inspection.image, inspection.spacing_mm, BOX)[best].detach() > 0
        monkeypatch.setattr("napari_medtransformer.models.sam_blocks.attend", explicit(kept))
        small_sam.network.requires_grad_(True)
        try:
            small_sam.differentiable_logits(inspection.image, inspection.spacing_mm, BOX)[best][mask].mean().backward()
        finally:
            small_sam.network.requires_grad_(False)
            small_sam.network.zero_grad()
    assert len(kept) == 3
    relevance = torch.eye(64, dtype=torch.float64)
    for number, weights in enumerate(kept):
        grid = inspection.site(f"encoder.{number}").query_grid
        relevance = relevance + dense(weights, grid) @ relevance
    start = inspection.site("encoder.2").query_grid.pixels_per_token(mask.numpy()).double()
    expected = start / start.sum() @ (relevance - torch.eye(64, dtype=torch.float64))
    np.testing.assert_allclose(found.values.ravel(), expected / expected.sum(), rtol=2e-3, atol=1e-6)


def automatic(kind: str) -> WindowModel:
    """A small automatic model with random weights and windows of 16³."""
    card = ModelCard(
        name=f"test-{kind}",
        title="For tests",
        family=kind,
        builder="napari_medtransformer.models.swin_unetr:build",
        task="automatic",
        dimensions=3,
        input=InputContract((16, 16, 16)),
        licence="BSD-3-Clause",
        citation="none",
        description="For tests.",
        labels=(LabelInfo(1, "front", (1.0, 0.5, 0.0)), LabelInfo(5, "back", (0.0, 0.5, 1.0))),
    )
    network = compact_network(CompactConfig(kind, 3, (16, 16, 16), width=8, hidden=24, layers=3, heads=2), 0)
    return WindowModel(card, network, torch.device("cpu"), torch.float32, multiple=8)


@pytest.fixture(scope="module")
def cube() -> Volume:
    return Volume.from_array(np.random.default_rng(1).normal(size=(16, 16, 16)).astype(np.float32), (1, 1, 1), "MR")


def test_a_unetrs_relevance_for_a_label_is_gradient_times_attention(cube, monkeypatch) -> None:
    model = automatic("unetr")
    inspection = inspect_windows(plan_windows(model, cube), (8.0, 8.0, 8.0))
    found = label_relevance(inspection, 5)
    kept: list[torch.Tensor] = []
    monkeypatch.setattr("napari_medtransformer.models.monai_attention.attend", explicit(kept))
    with torch.inference_mode(False), torch.enable_grad():
        logits = model.differentiable_logits(inspection.windows.read((0, 0, 0)))[0]
        mask = logits.detach().argmax(0) == 2
        logits[2][mask].mean().backward()
    model.network.zero_grad()
    assert len(kept) == 3
    relevance = torch.eye(8, dtype=torch.float64)
    for weights in kept:
        relevance = relevance + dense(weights, inspection.site("encoder.0").query_grid) @ relevance
    start = torch.tensor([mask[z : z + 8, y : y + 8, x : x + 8].sum() for z in (0, 8) for y in (0, 8) for x in (0, 8)])
    expected = start.double() / start.sum() @ (relevance - torch.eye(8, dtype=torch.float64))
    np.testing.assert_allclose(found.values.ravel(), expected / expected.sum(), rtol=2e-3, atol=1e-6)
    assert all(parameter.grad is None for parameter in model.network.parameters())


def test_relevance_goes_through_shifted_windows_and_merged_tokens(cube, monkeypatch) -> None:
    model = automatic("swin-unetr")
    inspection = inspect_windows(plan_windows(model, cube), (8.0, 8.0, 8.0))
    found = label_relevance(inspection, 5)
    kept: list[torch.Tensor] = []
    monkeypatch.setattr("napari_medtransformer.models.monai_attention.attend", explicit(kept))
    with torch.inference_mode(False), torch.enable_grad():
        logits = model.differentiable_logits(inspection.windows.read((0, 0, 0)))[0]
        mask = logits.detach().argmax(0) == 2
        logits[2][mask].mean().backward()
    model.network.zero_grad()
    # the oracle multiplies whole matrices, and a matrix spreads each token over the eight that were merged into it
    grids = [site.query_grid for site in inspection.sites]
    assert [grid.shape for grid in grids] == [(8,) * 3] * 2 + [(4,) * 3] * 2 + [(2,) * 3] * 2
    start = torch.zeros(2, 2, 2)
    for z, y, x in mask.nonzero().tolist():
        start[z // 8, y // 8, x // 8] += 1
    vector = (start.flatten() / start.sum()).double()
    base = vector.clone()
    for number in range(5, -1, -1):
        if len(vector) != grids[number].n_tokens:
            coarse = torch.arange(grids[number].n_tokens).reshape(grids[number].shape)
            side = round(len(vector) ** (1 / 3))
            z, y, x = torch.unravel_index(coarse.flatten(), grids[number].shape)
            parent = ((z // 2) * side + y // 2) * side + x // 2
            vector, base = vector[parent] / 8, base[parent] / 8
        vector = vector + vector @ dense(kept[number], grids[number])
    expected = vector - base
    np.testing.assert_allclose(found.values.ravel(), expected / expected.sum(), rtol=2e-3, atol=1e-7)
    assert found.grid.shape == (8, 8, 8)


def test_what_has_no_relevance_is_refused_in_one_line(cube) -> None:
    inspection = inspect_windows(plan_windows(automatic("unetr"), cube), (8.0, 8.0, 8.0))
    with pytest.raises(InvalidPrompt, match="no label 3; it has 1, 5"):
        label_relevance(inspection, 3)

    class WithoutGradients(WindowModel):
        def differentiable_logits(self, windows):
            return super(WindowModel, self).differentiable_logits(windows)

    model = automatic("unetr")
    model.__class__ = WithoutGradients
    bare = inspect_windows(plan_windows(model, cube), (8.0, 8.0, 8.0))
    with pytest.raises(UnsupportedModel, match="offers no gradients"):
        label_relevance(bare, 1)
