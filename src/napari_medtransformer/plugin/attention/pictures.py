"""Small pictures of heatmaps on anatomy, as pixels. No Qt: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from napari.utils.colormaps import ensure_colormap
from scipy import ndimage

COLOUR_MAPS = ("inferno", "magma", "viridis", "plasma", "cividis")
"""Perceptually uniform ones only (Smith and van der Walt 2015; Nuñez et al. 2018)."""
OPACITY = 0.85
Colour = tuple[float, float, float]
ABOVE: Colour = (1.0, 0.55, 0.1)
BELOW: Colour = (0.2, 0.6, 1.0)
"""Orange and blue: told apart with any colour vision, and neither grey nor one another's brightness."""
NOTHING: Colour = (0.23, 0.25, 0.29)


def thumbnail(
    grey: np.ndarray, heat: np.ndarray, *, colour_map: str, percentile: float = 0.0, upside_down: bool = False
) -> np.ndarray:
    """A heatmap on anatomy. grey: (rows, columns) in [0, 1]. heat: (h, w) ≥ 0 over the same field, on any grid.

    Heat is coloured from its percentile to its maximum, as the layer in the viewer is, and the anatomy shows through
    where it is low. upside_down: the first row comes out at the bottom. Returns (rows, columns, 3) uint8.
    """
    rows, columns = grey.shape
    share = resampled(share_of_maximum(heat, percentile), (rows, columns))
    return thumbnails(grey, share[np.newaxis], colour_map=colour_map, upside_down=upside_down)[0]


def thumbnails(
    grey: np.ndarray, heats: np.ndarray, *, colour_map: str, percentile: float = 0.0, upside_down: bool = False
) -> np.ndarray:
    """The same for many heatmaps on grey's own pixels, (n, rows, columns) ≥ 0. Returns (n, rows, columns, 3) uint8."""
    share = np.stack([share_of_maximum(heat, percentile) for heat in heats])
    level = (share * 255).astype(np.uint8)
    colours, opacity = _tinted(colour_map)
    through = (1 - opacity)[level] * grey[np.newaxis].astype(np.float32)
    picture = colours[level] + through[..., np.newaxis]
    picture = picture[:, ::-1] if upside_down else picture
    return np.ascontiguousarray((picture * 255).astype(np.uint8))


@lru_cache(maxsize=16)
def _tinted(colour_map: str) -> tuple[np.ndarray, np.ndarray]:
    """256 levels of heat: (256, 3) colours times their opacity, and the opacity (256,)."""
    levels = np.linspace(0, 1, 256, dtype=np.float32)
    table = np.asarray(ensure_colormap(colour_map).map(levels), np.float32)[:, :3]
    opacity = (OPACITY * np.sqrt(levels)).astype(np.float32)  # the root keeps faint attention visible
    return table * opacity[:, np.newaxis], opacity


def signed_picture(grey: np.ndarray, values: np.ndarray, *, upside_down: bool = False) -> np.ndarray:
    """Values of both signs on anatomy: blue below zero, orange above, clear at zero. Both (rows, columns).

    Returns (rows, columns, 3) uint8.
    """
    largest = max(float(np.abs(values).max()), np.finfo(np.float32).tiny)
    share = np.clip(np.abs(values) / largest, 0, 1)[..., np.newaxis]
    colour = np.where(values[..., np.newaxis] >= 0, np.array(ABOVE), np.array(BELOW))
    opacity = OPACITY * np.sqrt(share)
    picture = (1 - opacity) * grey[..., np.newaxis] + opacity * colour
    picture = picture[::-1] if upside_down else picture
    return np.ascontiguousarray((picture * 255).astype(np.uint8))


def coloured(values: np.ndarray, colour_map: str, limits: tuple[float, float], nothing: Colour = NOTHING) -> np.ndarray:
    """Numbers as colours, (..., 3) uint8; those that are none get `nothing`."""
    low, high = limits
    share = np.clip((np.nan_to_num(values) - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)
    colours = np.asarray(ensure_colormap(colour_map).map(share.ravel()))[:, :3].reshape(*values.shape, 3)
    colours[~np.isfinite(values)] = nothing
    return np.ascontiguousarray((colours * 255).astype(np.uint8))


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
