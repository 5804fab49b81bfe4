"""Entropy, distance and sums over rows, made in blocks, against the whole matrix in float64."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from napari_medtransformer.attention import scoring
from napari_medtransformer.attention.bias import DecomposedBias, DenseBias, KeyTermsBias, WindowBias
from napari_medtransformer.attention.calls import AttentionCall
from napari_medtransformer.attention.captured import CapturedSite
from napari_medtransformer.attention.layout import TokenLayout
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.quantities import mean_row, received
from napari_medtransformer.attention.sites import AttentionSite
from napari_medtransformer.attention.summaries import entropy_and_distance
from napari_medtransformer.attention.token_grid import TokenGrid

HEADS, GRID, WIDTH = 6, (4, 6), 8
TOKENS = 24
KEPT = torch.rand(2, 1, TOKENS, TOKENS, generator=torch.Generator().manual_seed(1)) > 0.3
KEPT |= torch.eye(TOKENS, dtype=torch.bool)

BIASES = {
    "none": lambda: None,
    "decomposed": lambda: DecomposedBias(tuple(torch.randn(n, n, WIDTH) for n in GRID)),
    "window": lambda: WindowBias(torch.randn(HEADS, TOKENS, TOKENS)),
    "pairs kept": lambda: DenseBias(KEPT),
    "added": lambda: DenseBias(torch.randn(HEADS, TOKENS, TOKENS)),
    "key terms": lambda: KeyTermsBias(
        GRID, ((torch.randn(2, HEADS, TOKENS, 6), (1,)), (torch.randn(2, HEADS, 4, *GRID), (0, 1))), (1, 6)
    ),
}


def captured(bias=None, *, key_heads=HEADS, causal=False, image=1, sharpness=1.0, size=24):
    """The second image of a batch of two at a global site of 4 × 6 tokens."""
    placement = InputPlacement((size, 36), (size, 36), (size, 36))
    grid = TokenGrid(TokenLayout((size // 4, 6)), placement)
    q, k = torch.randn(2, HEADS, TOKENS, WIDTH) * sharpness, torch.randn(2, key_heads, TOKENS, WIDTH)
    call = AttentionCall(q, k, bias, 0.3, "any", causal)
    return CapturedSite(AttentionSite("site", "global", HEADS, grid, grid), call, image)


def whole_matrix(site):
    """(heads, queries, keys) float64."""
    call, image = site.call, site.image
    q = call.q[image].double()
    k = call.k[image].double().repeat_interleave(HEADS // call.k.shape[1], dim=0)
    scores = call.scale * q @ k.transpose(1, 2)
    if call.bias is not None:
        scores = scores + call.bias.rows(q, image, torch.arange(TOKENS))
    if call.causal:
        scores = scores.masked_fill(torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1), -torch.inf)
    return scores.softmax(dim=-1)


def check(site):
    matrix = whole_matrix(site)
    entropy, distance = entropy_and_distance(site, (0.7, 2.5))
    assert torch.allclose(entropy.double(), torch.special.entr(matrix).sum(-1), atol=1e-5)
    grid = site.site.query_grid
    places = torch.tensor([grid.native_centre(t) for t in range(TOKENS)], dtype=torch.float64)
    apart = torch.cdist(places * torch.tensor([0.7, 2.5]), places * torch.tensor([0.7, 2.5]))
    assert torch.allclose(distance.double(), (matrix * apart).sum(-1), atol=1e-5, rtol=1e-5)
    weights = torch.linspace(0, 1, TOKENS)
    mean, padding = mean_row(site, weights)
    assert torch.allclose(mean.double(), (weights.double() @ matrix) / weights.sum(), atol=1e-5)
    assert not padding.any()
    assert torch.allclose(received(site)[0].double(), matrix.sum(1), atol=1e-5)


# as many at once as there are, seven rows of one head, one row of two heads, less than a row
@pytest.mark.parametrize("elements", [1 << 19, 7 * TOKENS, 2 * TOKENS, 5])
@pytest.mark.parametrize("bias", BIASES)
def test_numbers_in_blocks_of_any_size_are_those_of_the_whole_matrix(bias, elements, monkeypatch):
    monkeypatch.setattr(scoring, "PROCESSOR_ELEMENTS", elements)
    torch.manual_seed(0)
    check(captured(BIASES[bias]()))


@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_threads_that_share_the_blocks_change_no_number(most, monkeypatch, team_of):
    team_of(4)
    monkeypatch.setattr(scoring, "MOST_THREADS", most)
    monkeypatch.setattr(scoring, "PROCESSOR_ELEMENTS", 7 * TOKENS)
    seen, keep_to = [], scoring.keep_to
    monkeypatch.setattr(scoring, "keep_to", lambda count: (seen.append(count), keep_to(count)))
    torch.manual_seed(0)
    site = captured(BIASES["decomposed"]())
    check(site)
    # four rows of blocks for four threads at most, which keep to their share of torch's
    assert seen == {1: [], 2: [2] * 6, 3: [1] * 9, 8: [1] * 12}[most]
    with torch.inference_mode():
        check(site)
    assert threads_elsewhere() == torch.get_num_threads() == 4


def threads_elsewhere():
    """How many threads torch may use in a thread that has not used it yet."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


@pytest.mark.parametrize("chosen", [[5], [3, 4, 5], [9, 2, 20, 11], [0, 2, 1, 3], [23, 22, 21]])
def test_any_queries_may_be_asked_in_any_order(chosen):
    torch.manual_seed(0)
    site, tokens = captured(BIASES["decomposed"]()), torch.tensor(chosen)
    rows = []
    scoring.Scores(site, tokens).shared(
        lambda parts: rows.extend((part.queries, block.softmax(-1)) for part, blocks in parts for _, block, _ in blocks)
    )
    (asked, given), *others = rows
    assert not others
    assert asked.equal(tokens)
    assert torch.allclose(given.double(), whole_matrix(site)[:, tokens], atol=1e-5)


def test_an_error_in_a_thread_reaches_who_asked(monkeypatch):
    monkeypatch.setattr(scoring, "PROCESSOR_ELEMENTS", 7 * TOKENS)
    scores = scoring.Scores(captured())

    def work(parts):
        raise ValueError(len(list(parts)))

    with pytest.raises(ValueError, match="[1-4]"):
        scores.shared(work)


def test_causal_attention_and_shared_keys_are_understood():
    torch.manual_seed(0)
    check(captured(causal=True))
    check(captured(key_heads=2, image=0))


def test_very_sharp_attention_has_an_entropy_of_zero_and_not_below():
    torch.manual_seed(0)
    site = captured(sharpness=1e4)
    entropy, _ = entropy_and_distance(site, None)
    assert (entropy >= 0).all()
    assert torch.allclose(entropy.double(), torch.special.entr(whole_matrix(site)).sum(-1), atol=1e-5)


@pytest.mark.parametrize("offsets", [(0, 200), (200, 0), (0, -200), (15, 0)])
def test_what_is_added_to_all_scores_of_a_row_changes_nothing_however_large(offsets, monkeypatch):
    monkeypatch.setattr(scoring, "PROCESSOR_ELEMENTS", 7 * TOKENS)  # some blocks of the small, some of the large
    torch.manual_seed(0)
    rows = torch.tensor(offsets, dtype=torch.float32).repeat_interleave(TOKENS // 2)
    plain = captured()
    raised = replace(plain.call, bias=DenseBias(rows[:, None].expand(TOKENS, TOKENS)))
    found = entropy_and_distance(CapturedSite(plain.site, raised, plain.image), (0.7, 2.5))
    for number, expected in zip(found, entropy_and_distance(plain, (0.7, 2.5)), strict=True):
        assert torch.allclose(number, expected, atol=1e-4)


def test_autocast_around_a_question_rounds_nothing():
    torch.manual_seed(0)
    site = captured(BIASES["decomposed"]())
    before = [*entropy_and_distance(site, None), *received(site)]
    with torch.autocast("cpu", torch.bfloat16):
        after = [*entropy_and_distance(site, None), *received(site)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_short_distances_keep_their_digits_beside_long_ones():
    """A token that attends to itself alone is at no distance, wherever it lies."""
    site = captured(DenseBias(torch.eye(TOKENS, dtype=torch.bool)), size=2400)
    _, distance = entropy_and_distance(site, (0.1, 100.0))
    assert torch.equal(distance, torch.zeros_like(distance))
