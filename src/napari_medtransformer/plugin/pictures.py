"""Small pictures of heatmaps on anatomy, as pixels. No Qt: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from napari.utils.colormaps import ensure_colormap
from scipy import ndimage

COLOUR_MAPS = ("inferno", "magma", "viridis", "plasma", "cividis")
"""Perceptually uniform ones only (Smith and van der Walt 2015; Nuñez et al. 2018)."""
OPACITY = 0.85


def thumbnail(
    grey: np.ndarray, heat: np.ndarray, *, colour_map: str, percentile: float = 0.0, upside_down: bool = False
) -> np.ndarray:
    """A heatmap on anatomy. grey: (rows, columns) in [0, 1]. heat: (h, w) ≥ 0 over the same field, on any grid.

    Heat is coloured from its percentile to its maximum, as the layer in the viewer is, and the anatomy shows through
    where it is low. upside_down: the first row comes out at the bottom. Returns (rows, columns, 3) uint8.
    """
    rows, columns = grey.shape
    share = resampled(share_of_maximum(heat, percentile), (rows, columns))
    table = np.asarray(ensure_colormap(colour_map).map(np.linspace(0, 1, 256, dtype=np.float32)))[:, :3]
    colours = table[(share * 255).astype(np.uint8)]
    opacity = (OPACITY * np.sqrt(share))[..., np.newaxis]  # the root keeps faint attention visible
    picture = (1 - opacity) * grey[..., np.newaxis] + opacity * colours
    picture = picture[::-1] if upside_down else picture
    return np.ascontiguousarray((picture * 255).astype(np.uint8))


def share_of_maximum(heat: np.ndarray, percentile: float = 0.0) -> np.ndarray:
    """Heat between its percentile (0: zero) and its maximum, as a share in [0, 1]; zeros where it is all the same."""
    low, high = limits(heat, percentile)
    return np.clip((heat - low) / (high - low), 0, 1)


def limits(values: np.ndarray, percentile: float) -> tuple[float, float]:
    """Contrast limits of a heatmap: from its percentile, or 0 for the 0th, to its maximum; always apart."""
    high = float(values.max())
    low = float(np.percentile(values, percentile)) if percentile > 0 else 0.0
    return (low, high) if high > low else (low, low + max(abs(low), 1e-6))


def resampled(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An (H, W) image in [0, 1] on another number of pixels over the same field, linear, in [0, 1]."""
    if image.shape == size:
        return image
    # Pixel centres on pixel centres, edges on edges; a box blur first where it shrinks, against aliasing.
    factors = [n / m for n, m in zip(image.shape, size)]
    smooth = ndimage.uniform_filter(image.astype(np.float32), [max(1, round(f)) for f in factors], mode="nearest")
    rows, columns = ((np.arange(m) + 0.5) * f - 0.5 for m, f in zip(size, factors))
    grid = np.meshgrid(rows, columns, indexing="ij")
    return np.clip(ndimage.map_coordinates(smooth, grid, order=1, mode="nearest"), 0, 1)


def fitting_size(extent_mm: Sequence[float], width: int, height: int) -> tuple[int, int]:
    """(rows, columns) of the largest picture of a field of (rows, columns) millimetres inside width × height."""
    rows_mm, columns_mm = extent_mm
    scale = min(width / columns_mm, height / rows_mm)
    return max(1, round(rows_mm * scale)), max(1, round(columns_mm * scale))
