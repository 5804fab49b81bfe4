"""Whoever asks – voxel, prompt, organ, everything –, the answer is the engine's, at every kind of site."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_medtransformer.errors import QueryOutOfGrid, UnknownSite, UnsupportedModel
from napari_medtransformer.inspection import inspect_slice
from napari_medtransformer.inspection.answering import ask
from napari_medtransformer.inspection.compare import clustered_order, compare_maps, head_similarity, most_alike
from napari_medtransformer.inspection.full import full_matrix, full_matrix_bytes, full_matrix_says, picture_of_matrix
from napari_medtransformer.inspection.maps import on_picture
from napari_medtransformer.inspection.matrix import head_matrix, matrix_steps
from napari_medtransformer.inspection.queries import (
    MAXIMUM,
    MEAN,
    ROLLOUT,
    EverythingQuery,
    PrefixQuery,
    PromptQuery,
    RegionQuery,
    VoxelQuery,
    default_prompt_query,
    drawable_sites,
    prompt_queries,
)
from napari_medtransformer.inspection.relevance import mask_relevance
from napari_medtransformer.inspection.shares import shares_by_label
from napari_medtransformer.models import load_model
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.progress import Partial, run_to_end
from napari_medtransformer.volumes import Volume

SPACING = (4.0, 1.5, 0.8)
VOXEL = VoxelQuery((3.0, 6.0, 8.0))
TWO_POINTS = Prompts(np.array([[5.0, 9.0], [15.0, 20.0]], np.float32), np.array([1, 0]))


@pytest.fixture(scope="module")
def inspection():
    model = load_model("medt-click-tiny", weights="random", device="cpu")
    data = np.random.default_rng(0).normal(size=(12, 20, 30)).astype(np.float32)
    return inspect_slice(model, Volume.from_array(data, SPACING, "MR"), 0, 3).with_prompts(TWO_POINTS)


@pytest.fixture(scope="module")
def region():
    mask = np.zeros((20, 30), bool)
    mask[4:11, 5:21] = True
    return RegionQuery("a region", mask)


def test_a_voxels_answer_and_its_numbers_are_the_engines(inspection):
    answer = ask(inspection, "encoder.2", VOXEL)
    np.testing.assert_array_equal(answer.heatmap.values, inspection.probe.heatmap("encoder.2", (6.0, 8.0)).values)
    token = inspection.site("encoder.2").query_grid.token_of((6.0, 8.0))
    entropy, distance = inspection.probe.entropy_and_distance("encoder.2", inspection.spacing_mm)
    np.testing.assert_allclose(answer.entropy_nats, entropy[:, token], rtol=1e-4)
    np.testing.assert_allclose(answer.distance_mm, distance[:, token], rtol=1e-4)


def test_an_organs_answer_is_the_mean_over_its_pixels(inspection, region):
    answer = ask(inspection, "encoder.2", region)
    np.testing.assert_allclose(
        answer.heatmap.values, inspection.probe.mean_row("encoder.2", region.mask).values, atol=1e-7
    )
    weights = inspection.site("encoder.2").query_grid.pixels_per_token(region.mask)
    entropy, distance = inspection.probe.entropy_and_distance("encoder.2", inspection.spacing_mm)
    share = (weights / weights.sum()).double()
    np.testing.assert_allclose(answer.entropy_nats, entropy.double() @ share, rtol=1e-4)
    np.testing.assert_allclose(answer.distance_mm, distance.double() @ share, rtol=1e-4)


def test_when_all_ask_the_answer_is_what_every_token_receives(inspection):
    answer = ask(inspection, "encoder.4", EverythingQuery())
    np.testing.assert_allclose(answer.heatmap.values, inspection.probe.received("encoder.4").values, rtol=1e-5)
    assert not answer.is_row


def test_rollout_from_a_voxel_is_the_engines_and_from_a_region_the_mean_of_its_pixels(inspection, region):
    voxel = ask(inspection, ROLLOUT, VOXEL)
    np.testing.assert_allclose(voxel.heatmap.values, inspection.probe.rollout((6.0, 8.0)).values, atol=1e-7)
    places = np.argwhere(region.mask)
    every = np.mean([inspection.probe.rollout(tuple(map(float, p))).values for p in places[::7]], axis=0)
    sparse = np.zeros_like(region.mask)
    sparse[tuple(places[::7].T)] = True
    found = ask(inspection, ROLLOUT, RegionQuery("some", sparse)).heatmap.values
    np.testing.assert_allclose(found, every, atol=1e-6)


def test_a_prompts_token_asks_at_the_decoder(inspection):
    tokens = {query.token.name: query for query in prompt_queries(inspection)}
    assert list(tokens) == ["mask 1", "mask 2", "mask 3", "score", "point 1 (+)", "point 2 (−)"]
    assert default_prompt_query(inspection) == tokens["point 2 (−)"]
    site = "decoder.1.prompt-to-image"
    answer = ask(inspection, site, tokens["point 1 (+)"])
    rows = inspection.decoded.rows(site, [4])[:, 0].reshape(answer.heatmap.values.shape)
    np.testing.assert_allclose(answer.heatmap.values, rows, atol=1e-7)
    assert answer.mark_yx == (5.0, 9.0)
    # a voxel is no query there: the newest point asks in its place
    np.testing.assert_array_equal(
        ask(inspection, site, VOXEL).heatmap.values, ask(inspection, site, tokens["point 2 (−)"]).heatmap.values
    )


def test_from_voxels_to_a_prompt_every_place_shows_the_share_that_the_token_gets(inspection):
    site = "decoder.0.image-to-prompt"
    prompt = prompt_queries(inspection)[4]
    answer = ask(inspection, site, prompt)
    every = inspection.decoded.rows(site, range(inspection.site(site).query_grid.n_tokens))
    np.testing.assert_allclose(answer.heatmap.values.reshape(every.shape[0], -1), every[:, :, 4], atol=1e-7)
    # over all tokens the shares of one voxel sum to one
    total = sum(
        ask(inspection, site, PromptQuery(i, t)).heatmap.values.astype(float) for i, t in enumerate(inspection.tokens)
    )
    np.testing.assert_allclose(total, 1, atol=1e-5)


def test_who_cannot_ask_is_told_so(inspection):
    with pytest.raises(QueryOutOfGrid, match="0 tokens before the image"):
        ask(inspection, "encoder.0", PrefixQuery())
    with pytest.raises(QueryOutOfGrid, match="no pixel"):
        ask(inspection, "encoder.0", RegionQuery("nothing", np.zeros((20, 30), bool)))
    with pytest.raises(QueryOutOfGrid, match="no place"):
        ask(inspection, "encoder.0", prompt_queries(inspection)[0])
    with pytest.raises(UnknownSite, match="no side has a place"):
        ask(inspection, "decoder.0.prompts", VOXEL)
    with pytest.raises(UnknownSite):
        ask(inspection, "encoder.99", VOXEL)
    bare = inspect_slice(inspection.model, inspection.volume, 0, 3)
    with pytest.raises(QueryOutOfGrid, match="give a point or a box"):
        default_prompt_query(bare)


def test_mean_and_maximum_are_over_heads_and_the_peak_is_where_the_largest_value_is(inspection):
    answer = ask(inspection, "encoder.1", VOXEL)
    np.testing.assert_array_equal(answer.values(MEAN), answer.heatmap.values.mean(axis=0))
    np.testing.assert_array_equal(answer.values(MAXIMUM), answer.heatmap.values.max(axis=0))
    pixels = answer.on_pixels("3", smooth=False)
    y, x = (min(round(c), n - 1) for c, n in zip(answer.peak("3"), pixels.shape, strict=True))
    inside = answer.heatmap.grid.placement.native_shape
    if max(y / inside[0], x / inside[1]) < 1:
        assert pixels[y, x] == pytest.approx(answer.values("3").max())


def test_the_matrix_holds_every_sites_answer_and_can_stop_between_them(inspection, region):
    steps = list(matrix_steps(inspection, VOXEL))
    answers = run_to_end(iter(steps))
    assert [answer.site for answer in answers] == [site.name for site in drawable_sites(inspection)]
    assert sum(isinstance(step, Partial) for step in steps) == len(answers)
    entropy = head_matrix(answers, "entropy")
    assert entropy.values.shape == (len(answers), 6)
    np.testing.assert_array_equal(entropy.values[1], answers[1].entropy_nats)
    share = head_matrix(answers, "share", region.mask)
    expected = shares_by_label(answers[2].heatmap, region.mask.astype(int)).shares[:, 1]
    np.testing.assert_allclose(share.values[2], 100 * expected, rtol=1e-5)
    assert np.isnan(share.values[-1, 4:]).all()  # the decoder has four heads
    assert share.limits == (np.nanmin(share.values), np.nanmax(share.values))
    with pytest.raises(ValueError, match="mask"):
        head_matrix(answers, "share")


def test_pictures_of_any_size_interpolate_as_the_layer_does(inspection):
    heatmap = ask(inspection, "encoder.2", VOXEL).heatmap
    for smooth in (True, False):
        np.testing.assert_allclose(
            on_picture(heatmap, (20, 30), smooth=smooth), heatmap.on_pixels(smooth=smooth), atol=1e-6
        )
    assert on_picture(heatmap, (7, 11)).shape == (6, 7, 11)


def test_the_whole_matrix_is_the_rows_and_what_it_takes_is_said_before(inspection, monkeypatch):
    captured = inspection.captured("encoder.3")
    matrix = full_matrix(captured, 2)
    rows = inspection.probe.rows("encoder.3", [0, 77, 255])[2]
    np.testing.assert_allclose(matrix[[0, 77, 255]], rows, rtol=1e-5)  # products of another shape round otherwise
    assert full_matrix_bytes(captured) == matrix.nbytes
    assert "256 × 256 tokens: 262 kB for one head, 1.57 MB for all 6" in full_matrix_says(captured)
    assert picture_of_matrix(matrix, 64).shape == (64, 64)
    np.testing.assert_allclose(picture_of_matrix(matrix, 64).sum(), matrix.sum() / 16, rtol=1e-4)
    with pytest.raises(QueryOutOfGrid):
        full_matrix(captured, 6)
    monkeypatch.setattr("napari_medtransformer.inspection.full.physical_memory", lambda: 500_000)
    with pytest.raises(UnsupportedModel, match="262 kB a head, the machine has 500 kB"):
        full_matrix(captured, 2)


def test_maps_are_compared_as_shares():
    a, b = np.zeros((4, 5)), np.zeros((4, 5))
    a[0, 0], a[1, 1], b[1, 1], b[2, 2] = 3, 1, 2, 2
    found = compare_maps(a, b)
    assert found.overlap == pytest.approx(0.25)
    assert found.difference.sum() == pytest.approx(0)
    assert found.correlation == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    with pytest.raises(ValueError, match="pixels"):
        compare_maps(a, b[1:])


def test_alike_heads_come_side_by_side(inspection):
    groups = np.array([0, 1, 0, 1, 0, 1])
    correlation = np.where(groups[:, None] == groups[None, :], 0.9, -0.1) + 0.1 * np.eye(6)
    ordered = groups[clustered_order(correlation)]
    assert np.abs(np.diff(ordered)).sum() == 1
    answers = [ask(inspection, f"encoder.{i}", VOXEL) for i in range(3)]
    similar = head_similarity(answers)
    assert sorted(similar.names) == [(f"encoder.{i}", h) for i in range(3) for h in range(6)]
    np.testing.assert_allclose(np.diag(similar.correlation), 1)
    first, second, r = most_alike(similar)
    assert first != second
    assert r == pytest.approx(np.max(similar.correlation - 2 * np.eye(18)))


def test_relevance_is_gradient_times_attention_without_the_matrices(inspection, monkeypatch):
    """Oracle: attention written out, its gradient from autograd, the matrices multiplied (Chefer et al. 2021)."""
    found = mask_relevance(inspection, TWO_POINTS)
    kept: list[torch.Tensor] = []

    def explicit(q, k, v, attn_mask=None, **_):
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        weights = (scores if attn_mask is None else scores.masked_fill(~attn_mask, float("-inf"))).softmax(-1)
        if q.shape[2] == k.shape[2] == 256:
            weights.retain_grad()
            kept.append(weights)
        return weights @ v

    model = inspection.model
    best = int(np.argmax(model.decode(inspection.embedding, TWO_POINTS).scores))
    with torch.inference_mode(False), torch.enable_grad():
        # random weights leave many logits at zero: the mask must be the same one
        mask = model.differentiable_logits(inspection.image, inspection.spacing_mm, TWO_POINTS)[best].detach() > 0
        monkeypatch.setattr(F, "scaled_dot_product_attention", explicit)
        logits = model.differentiable_logits(inspection.image, inspection.spacing_mm, TWO_POINTS)
        logits[best][mask].mean().backward()
    model.network.zero_grad()
    assert len(kept) == 6
    relevance = torch.eye(256, dtype=torch.float64)
    for weights in kept:
        relevance = relevance + (weights.grad * weights)[0].double().clamp(min=0).mean(0).detach() @ relevance
    start = inspection.site("encoder.5").query_grid.pixels_per_token(mask.numpy())
    expected = (start / start.sum()).double() @ (relevance - torch.eye(256, dtype=torch.float64))
    np.testing.assert_allclose(found.values.ravel(), expected / expected.sum(), rtol=2e-3, atol=1e-7)
    assert all(p.grad is None for p in model.network.parameters())


def test_a_peak_in_the_padding_has_no_place(inspection):
    answer = ask(inspection, "encoder.2", VOXEL)
    for place, expected in (((0, 0), True), ((0, 15), False)):  # 24 of 30 mm: the right fifth is padding
        values = np.zeros_like(answer.heatmap.values)
        values[0][place] = 1
        moved = replace(answer, heatmap=replace(answer.heatmap, values=values))
        assert (moved.peak("0") is not None) == expected
