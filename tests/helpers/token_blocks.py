"""Which pixels a token stands for, counted one axis after the other."""

from __future__ import annotations

import numpy as np

from napari_medtransformer.attention.token_grid import TokenGrid


def native_slices(grid: TokenGrid, token: int) -> tuple[slice, ...]:
    """The block of native pixels whose centres lie in the token; empty if it lies in the padding."""
    slices = []
    for index, table in zip(grid.grid_index(token), grid.pixel_tokens, strict=True):
        start, stop = np.searchsorted(table, [index, index + 1])
        slices.append(slice(int(start), int(stop)))
    return tuple(slices)
