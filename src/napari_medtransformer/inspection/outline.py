"""Lines over a heatmap: the contour of where most attention lies, and the edges of tokens and of windows."""

from __future__ import annotations

import numpy as np
from skimage.measure import find_contours

from napari_medtransformer.attention.token_grid import TokenGrid


def top_mass_level(values: np.ndarray, share: float) -> float:
    """The level above which `share` of a map's mass lies: of those, the highest. values ≥ 0. Raises ValueError."""
    if not 0 < share < 1:
        raise ValueError(f"a share of the mass lies between 0 and 1, not at {share}")
    falling = np.sort(values, axis=None)[::-1].astype(np.float64)
    mass = np.cumsum(falling)
    return float(falling[int(np.searchsorted(mass, share * mass[-1]))])


def top_mass_contour(pixels: np.ndarray, share: float) -> np.ndarray:
    """(n, 2, 2) segments, (start, stop) × (row, column) in pixels, around the pixels that hold `share` of the mass.

    pixels: (rows, columns) ≥ 0. Contours close along the image's edge.
    """
    level = top_mass_level(pixels, share)
    closed = np.pad(pixels.astype(np.float64), 1)
    # pixels at the level itself belong inside
    paths = find_contours(closed, level * (1 - 1e-6) if level > 0 else np.finfo(np.float64).tiny)
    segments = [np.stack([path[:-1], path[1:]], axis=1) - 1 for path in paths]
    return np.concatenate(segments) if segments else np.zeros((0, 2, 2))


def token_lines(grid: TokenGrid) -> np.ndarray:
    """(n, 2, 2) segments along the edges of a slice's tokens, in pixels, within the image."""
    edges = [_edges(grid, axis, np.arange(tokens + 1)) for axis, tokens in enumerate(grid.shape)]
    return _lines(grid, edges)


def window_lines(grid: TokenGrid) -> np.ndarray:
    """(n, 2, 2) segments along the edges of a slice's attention windows, where the cyclic shift puts them."""
    if grid.window is None:
        return np.zeros((0, 2, 2))
    return _lines(grid, [_edges(grid, axis, grid.window_edges(axis)) for axis in range(len(grid.shape))])


def _edges(grid: TokenGrid, axis: int, index: np.ndarray) -> np.ndarray:
    """Places of token edges along an axis in pixels, the image's own two edges included."""
    size, native = grid.scale[axis], grid.placement.native_shape[axis] if grid.placement is not None else 0
    places = grid.translate[axis] + (index - 0.5) * size
    inside = places[(places > -0.5) & (places < native - 0.5)]
    return np.concatenate([[-0.5], inside, [native - 0.5]])


def _lines(grid: TokenGrid, edges: list[np.ndarray]) -> np.ndarray:
    rows, columns = edges
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    across = [[[y, left], [y, right]] for y in rows]
    down = [[[top, x], [bottom, x]] for x in columns]
    return np.array(across + down)
