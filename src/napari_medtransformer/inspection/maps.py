"""Maps over tokens drawn on any number of pixels, all heads at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_medtransformer.attention.heatmap import Heatmap, linear_along


def axis_weights(tokens: int, scale: float, translate: float, places: np.ndarray, *, smooth: bool = True) -> np.ndarray:
    """(places, tokens) float32: what each place along an axis takes from each token; rows sum to 1.

    scale, translate: a token's size and the first one's centre. places: coordinates in the same unit. smooth: linear
    between token centres, else the nearest token alone.
    """
    where = np.clip((places - translate) / scale, 0, tokens - 1)
    table = np.zeros((len(places), tokens), np.float32)
    rows = np.arange(len(places))
    if not smooth:
        table[rows, np.floor(where + 0.5).astype(np.int64).clip(0, tokens - 1)] = 1
        return table
    low = np.minimum(np.floor(where).astype(np.int64), max(tokens - 2, 0))
    share = (where - low).astype(np.float32)
    table[rows, low] += 1 - share
    table[rows, np.minimum(low + 1, tokens - 1)] += share
    return table


def on_picture(heatmap: Heatmap, size: Sequence[int], *, smooth: bool = True) -> np.ndarray:
    """(heads, rows, columns) float32: a slice's heatmap on a picture of so many pixels over the whole slice.

    Raises ValueError without a place in an image of two axes.
    """
    if len(heatmap.native_shape) != 2:
        raise ValueError(f"{heatmap.site}: a heatmap over {heatmap.native_shape} pixels makes no flat picture.")
    drawn = np.asarray(heatmap.values, np.float32)
    for axis, tokens, scale, translate, native, pixels in reversed(
        list(zip((1, 2), heatmap.shape[1:], heatmap.scale, heatmap.translate, heatmap.native_shape, size, strict=True))
    ):
        where = (((np.arange(pixels) + 0.5) * native / pixels - 0.5) - translate) / scale
        if smooth:
            drawn = linear_along(drawn, where, axis)
        else:
            drawn = drawn.take(np.floor(where + 0.5).astype(np.int64).clip(0, tokens - 1), axis)
    return drawn
