"""Networks that see an image's axes in another order or backward: tokens stay where they lie in the image."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medtransformer.attention.layout import FREE_TOKENS, TokenLayout
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.token_grid import TokenGrid
from napari_medtransformer.attention.turn import Turn

RAS = Turn((2, 1, 0), (False, True, True))
PATIENT = "SPL"  # where z, y and x of a volume grow to


def every_turn(n):
    return [
        Turn(axes, backward)
        for axes in itertools.permutations(range(n))
        for backward in itertools.product([False, True], repeat=n)
    ]


@st.composite
def turned_grids(draw, windows=True):
    """A grid of a network that sees its input turned, and the same tokens as the network itself would count them."""
    n = draw(st.sampled_from([2, 3]))
    turn = draw(st.sampled_from(every_turn(n)))
    patch = tuple(draw(st.integers(1, 4)) for _ in range(n))
    tokens = tuple(draw(st.integers(1, 7)) for _ in range(n))
    window = shift = None
    if windows:
        window = tuple(draw(st.integers(1, 4)) for _ in range(n))
        shift = tuple(draw(st.integers(0, w - 1)) for w in window)
    shrink = windows and draw(st.booleans())
    prefix = 0 if windows else draw(st.integers(0, 2))
    seen = TokenLayout(patch, tokens, prefix, window, shift, shrink)
    inputs = tuple(p * t for p, t in zip(patch, tokens))
    own = TokenGrid(seen, InputPlacement(inputs, inputs, inputs))
    shape = turn.sizes_to_image(inputs)
    return TokenGrid(seen.seen_turned(turn), InputPlacement(shape, shape, shape)), own, turn


@pytest.mark.parametrize("turn", every_turn(3), ids=str)
def test_turning_there_and_back_changes_nothing_and_every_voxel_is_where_numpy_puts_it(turn):
    volume = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    seen = turn.to_network(volume)
    assert tuple(seen.shape[1:]) == turn.sizes_to_network((3, 4, 5))
    assert turn.sizes_to_image(seen.shape[1:]) == (3, 4, 5)
    assert torch.equal(turn.to_image(seen), volume)
    steps = tuple(slice(None, None, -1 if backward else 1) for backward in turn.backward)
    expected = volume.numpy()[(slice(None), *steps)].transpose(0, *(a + 1 for a in turn.axes))
    np.testing.assert_array_equal(seen.numpy(), expected)


def test_monais_turn_makes_axes_grow_to_right_anterior_superior():
    assert "".join(PATIENT[axis] for axis in RAS.axes) == "LPS"
    opposite = {"L": "R", "P": "A", "S": "I"}
    seen = [opposite[PATIENT[axis]] if RAS.backward[axis] else PATIENT[axis] for axis in RAS.axes]
    assert "".join(seen) == "RAS"


@given(turned_grids())
@settings(deadline=None)
def test_windows_hold_the_tokens_that_the_network_puts_in_them(grids):
    grid, own, turn = grids
    # the network's own numbers, laid where they belong in the image
    numbers = turn.to_image(torch.arange(own.n_tokens).reshape(own.shape)).flatten()
    table = grid.window_tokens
    assert table.shape == own.window_tokens.shape
    assert torch.equal(torch.where(table >= 0, numbers[table.clamp(min=0)], -1), own.window_tokens)
    for token, (window, place) in enumerate(grid.window_of_token.tolist()):
        assert table[window, place] == token


@given(turned_grids(windows=False))
@settings(deadline=None)
def test_without_windows_the_kernels_order_is_the_networks_behind_the_prefix(grids):
    grid, own, turn = grids
    image = turn.to_image(torch.arange(math.prod(own.shape)).reshape(own.shape)).flatten()
    placed = grid.window_tokens[0, grid.prefix :] - grid.prefix
    assert torch.equal(image[placed], torch.arange(math.prod(own.shape)))
    assert grid.window_tokens[0, : grid.prefix].tolist() == list(range(grid.prefix))


@given(turned_grids())
@settings(deadline=None)
def test_window_edges_lie_between_tokens_of_different_windows(grids):
    grid, _, _ = grids
    windows = grid.window_of_token[:, 0].reshape(grid.shape)
    for axis, n in enumerate(grid.shape):
        along = windows.movedim(axis, 0).reshape(n, -1)
        apart = {i for i in range(1, n) if not torch.equal(along[i - 1], along[i])}
        # an edge of a window that the shift wrapped around may lie between tokens that share it again
        assert apart <= set(grid.window_edges(axis).tolist())
        if grid.window[axis] < n and not any(grid.shift):
            assert apart == set(grid.window_edges(axis).tolist()) - {0, n}


def test_a_turn_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="every axis once"):
        Turn((0, 0, 1), (False,) * 3)
    with pytest.raises(ValueError, match="different numbers of axes"):
        TokenLayout((2, 2), turn=RAS)
    with pytest.raises(ValueError, match="whole tokens"):
        TokenGrid(TokenLayout((4, 4, 4), turn=RAS), InputPlacement((8, 10, 8), (8, 10, 8), (8, 10, 8)))
    assert FREE_TOKENS.seen_turned(RAS) == FREE_TOKENS
    assert RAS.without(0) == Turn((1, 0), (True, True))
    assert RAS.without(2) == Turn((1, 0), (False, True))
