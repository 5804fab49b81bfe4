"""Tokens and pixels: each pixel has one token, and the way back leads to it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from token_blocks import native_slices

from napari_medtransformer.attention.heatmap import Heatmap
from napari_medtransformer.attention.layout import FREE_TOKENS, TokenLayout
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.token_grid import TokenGrid
from napari_medtransformer.errors import QueryOutOfGrid
from napari_medtransformer.inspection.shares import share_inside, shares_by_label


@st.composite
def grids(draw, windows=False):
    """A grid over an image that was resized and padded, in 2D or 3D."""
    axes = draw(st.sampled_from([2, 3]))
    patch = tuple(draw(st.integers(1, 8)) for _ in range(axes))
    tokens = tuple(draw(st.integers(1, 6)) for _ in range(axes))
    inputs = tuple(p * n for p, n in zip(patch, tokens))
    resized = tuple(draw(st.integers(1, n)) for n in inputs)
    native = tuple(draw(st.integers(1, 24)) for _ in range(axes))
    window = shift = None
    if windows:
        window = tuple(draw(st.integers(1, 4)) for _ in range(axes))
        shift = tuple(draw(st.integers(0, w - 1)) for w in window)
    shrink = windows and draw(st.booleans())
    prefix = 0 if windows else draw(st.integers(0, 2))
    layout = TokenLayout(patch, tokens, prefix, window, shift, shrink)
    return TokenGrid(layout, InputPlacement(native, resized, inputs))


@given(grids())
@settings(deadline=None)
def test_every_pixel_belongs_to_exactly_one_token_and_finds_back(grid):
    count = np.zeros(grid.placement.native_shape, int)
    for token in range(grid.prefix, grid.n_tokens):
        block = native_slices(grid, token)
        count[block] += 1
        pixels = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in block], indexing="ij"), -1)
        assert (grid.tokens_of(pixels.reshape(-1, count.ndim)) == token).all() if pixels.size else True
    assert (count == 1).all()


@given(grids())
@settings(deadline=None)
def test_the_centre_of_a_token_in_the_image_lies_in_that_token(grid):
    for token in range(grid.prefix, grid.n_tokens):
        centre = grid.native_centre(token)
        if all(-0.5 <= c < n - 0.5 for c, n in zip(centre, grid.placement.native_shape)):
            assert grid.token_of(centre) == token


@given(grids())
@settings(deadline=None)
def test_scale_and_translate_place_tokens_as_native_centre_does(grid):
    for token in range(grid.prefix, grid.n_tokens):
        drawn = np.asarray(grid.translate) + np.asarray(grid.scale) * grid.grid_index(token)
        assert np.allclose(drawn, grid.native_centre(token))
        via_input = grid.placement.to_native(
            [(i + 0.5) * p - 0.5 for i, p in zip(grid.grid_index(token), grid.layout.patch)]
        )
        assert np.allclose(drawn, via_input)


@given(grids(), st.integers(0, 2**31))
@settings(deadline=None)
def test_pixels_per_token_counts_the_mask(grid, seed):
    mask = np.random.default_rng(seed).random(grid.placement.native_shape) < 0.5
    counts = grid.pixels_per_token(mask)
    for token in range(grid.prefix, grid.n_tokens):
        assert counts[token] == mask[native_slices(grid, token)].sum()
    assert (counts[: grid.prefix] == 0).all()


@given(grids(windows=True))
@settings(deadline=None)
def test_windows_hold_every_token_once_and_lead_back(grid):
    table = grid.window_tokens
    assert sorted(table[table >= 0].tolist()) == list(range(grid.n_tokens))
    for token, (window, place) in enumerate(grid.window_of_token.tolist()):
        assert table[window, place] == token


@given(grids(windows=True))
@settings(deadline=None)
def test_windows_are_what_padding_rolling_and_cutting_gives(grid):
    """The same partition by torch's own pad, roll and unfold."""
    index = torch.arange(grid.n_tokens).reshape(grid.shape) + 1
    padding = [(-n) % w for n, w in zip(grid.shape, grid.window)]
    index = torch.nn.functional.pad(index, [x for p in reversed(padding) for x in (0, p)]) - 1
    index = torch.roll(index, [-s for s in grid.shift], dims=tuple(range(index.ndim)))
    for axis, w in enumerate(grid.window):
        index = index.unfold(axis, w, w)
    assert torch.equal(grid.window_tokens, index.reshape(-1, math.prod(grid.window)))


def test_a_window_larger_than_the_grid_pads_for_sam_and_shrinks_for_swin():
    placement = InputPlacement((32, 32), (32, 32), (32, 32))
    padded = TokenGrid(TokenLayout((8, 8), window=(7, 7), shift=(3, 3)), placement)
    shrunk = TokenGrid(TokenLayout((8, 8), window=(7, 7), shift=(3, 3), shrink_windows=True), placement)
    assert (padded.window, padded.shift, padded.window_tokens.shape) == ((7, 7), (3, 3), (1, 49))
    assert (shrunk.window, shrunk.shift, shrunk.window_tokens.shape) == ((4, 4), (0, 0), (1, 16))


def test_scatter_puts_values_at_their_tokens_and_leaves_the_rest_zero():
    grid = TokenGrid(TokenLayout((4, 4), prefix=1), InputPlacement((8, 12), (8, 12), (8, 12)))
    values = torch.tensor([[5.0, 1.0, 2.0, 9.0]])
    full = grid.scatter(values, torch.tensor([0, 1, 6, -1]))
    assert full.tolist() == [[[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]]


def test_coordinates_and_tokens_outside_are_refused_in_words():
    grid = TokenGrid(TokenLayout((4, 4)), InputPlacement((8, 12), (8, 12), (8, 12)))
    assert grid.token_of((-0.5, 11.49)) == 2
    for outside in ((7.5, 0), (-0.51, 0), (0, 12), (math.nan, 0)):
        with pytest.raises(QueryOutOfGrid, match="outside the image"):
            grid.token_of(outside)
    with pytest.raises(QueryOutOfGrid, match="one per axis"):
        grid.token_of((1, 2, 3))
    with pytest.raises(QueryOutOfGrid, match="0 to 5"):
        grid.check_tokens(torch.tensor([6]))
    with pytest.raises(QueryOutOfGrid, match="no place"):
        TokenGrid(FREE_TOKENS, None, 7).token_of((1, 2))


@pytest.mark.parametrize(
    "fields",
    [
        {"patch": None, "grid": (2, 2)},
        {"patch": (4, 4), "window": (2, 2, 2)},
        {"patch": (4, 4), "shift": (1, 1)},
        {"patch": (4, 0)},
        {"patch": (4, 4), "prefix": 1, "window": (2, 2)},
    ],
)
def test_a_layout_that_contradicts_itself_is_refused(fields):
    with pytest.raises(ValueError, match="TokenLayout"):
        TokenLayout(**fields)


@given(grids())
@settings(deadline=None)
def test_every_token_in_the_image_lies_under_a_pixel_however_fine_it_is(grid):
    per_axis = [set(tokens.tolist()) for tokens, _ in grid.shown_by]
    for token in range(grid.prefix, grid.n_tokens):
        centre = grid.native_centre(token)
        if all(-0.5 + 1e-6 < c < n - 0.5 - 1e-6 for c, n in zip(centre, grid.placement.native_shape)):
            assert all(i in there for i, there in zip(grid.grid_index(token), per_axis))
    for (_, pixels), n in zip(grid.shown_by, grid.placement.native_shape):
        assert set(pixels.tolist()) == set(range(n))


def test_attention_on_tokens_finer_than_pixels_is_shared_out_and_drawn_whole():
    # thick slices: 24 rows of 10 mm become 960 of 1024 input pixels, two and a half tokens each
    grid = TokenGrid(TokenLayout((16, 16), (64, 64)), InputPlacement.longest_side((24, 256), 1024, (10.0, 1.0)))
    values = np.zeros((2, 64, 64), np.float32)
    values[0, :60] = 1 / (60 * 64)
    values[1, 0, 8] = 1  # the first token ends before the centre of the first row
    heatmap = Heatmap("site", None, grid, values, np.zeros(2, np.float32), np.zeros(2, np.float32))
    rows = np.arange(24)[:, None] // 6 + np.zeros((1, 256), int)
    shares = shares_by_label(heatmap, rows)
    np.testing.assert_allclose(shares.outside, 0, atol=1e-6)
    np.testing.assert_allclose(shares.shares[0], 0.25, atol=1e-6)
    np.testing.assert_allclose(share_inside(heatmap, rows == 0), shares.shares[:, 0], atol=1e-6)
    for smooth in (True, False):
        drawn = heatmap.on_pixels(smooth=smooth)
        assert drawn[1].max() > 0
        assert np.unravel_index(drawn[1].argmax(), drawn[1].shape)[0] == 0
        np.testing.assert_allclose(drawn[0], 1 / (60 * 64), rtol=1e-5)
