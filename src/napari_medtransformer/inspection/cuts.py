"""A slice through what is known in three axes: a heatmap's values there, and its tokens and windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from napari_medtransformer.attention.heatmap import Heatmap
from napari_medtransformer.attention.layout import TokenLayout
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.token_grid import TokenGrid
from napari_medtransformer.inspection.maps import axis_weights


def cut_heatmap(heatmap: Heatmap, axis: int, index: int, *, smooth: bool = True) -> Heatmap:
    """A heatmap (heads, z, y, x) on one slice, as a heatmap over its rows and columns; zero where no window lies.

    smooth: linear between the centres of tokens across the slice, else the token that holds the slice. What it holds
    is a part of the whole, which its prefix and padding belong to as well.
    """
    inside = _inside(heatmap.grid, axis, index)
    size, start = heatmap.scale[axis], heatmap.translate[axis]
    weights = axis_weights(heatmap.shape[axis + 1], size, start, np.array([index]), smooth=smooth)[0]
    values = np.tensordot(heatmap.values, weights * inside, axes=(axis + 1, 0))
    query = heatmap.query
    if isinstance(query, tuple):
        query = tuple(c for a, c in enumerate(query) if a != axis)
    return replace(heatmap, query=query, grid=cut_grid(heatmap.grid, axis), values=np.ascontiguousarray(values))


def cut_grid(grid: TokenGrid, axis: int) -> TokenGrid:
    """The tokens of a slice across an axis: those of the whole without it; windows and shifts along the other two."""
    layout, placement = grid.layout, grid.placement
    if layout.patch is None or placement is None:
        raise ValueError("tokens without a place lie on no slice.")
    flat = TokenLayout(
        _without(layout.patch, axis),
        _without(grid.shape, axis),
        0,
        None if grid.window is None else _without(grid.window, axis),
        None if grid.window is None else _without(grid.shift, axis),
        turn=None if layout.turn is None else layout.turn.without(axis),
    )
    native, resized, inputs = (
        _without(shape, axis) for shape in (placement.native_shape, placement.resized_shape, placement.input_shape)
    )
    origin = None if placement.origin is None else _without(placement.origin, axis)
    return TokenGrid(flat, InputPlacement(native, resized, inputs, origin))


def _inside(grid: TokenGrid, axis: int, index: int) -> bool:
    token = int(grid.pixel_tokens[axis][index])
    return 0 <= token < grid.shape[axis]


def _without(values: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return tuple(n for a, n in enumerate(values) if a != axis)
