"""How attention is shared out among labelled structures: "what does this voxel attend to" in names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_medtransformer.attention.heatmap import Heatmap
from napari_medtransformer.errors import PointOutsideVolume


@dataclass(frozen=True, eq=False)
class LabelShares:
    """Attention per label. labels: the label values, 0 (background) first. shares: (heads, labels) float32, what each
    head spends on them; with `outside`, (heads,) – padding and tokens without a place –, they sum to the heatmap's
    whole mass, 1 for a row. extent: (labels,) each label's share of the image, to compare with.
    """

    labels: tuple[int, ...]
    shares: np.ndarray
    outside: np.ndarray
    extent: np.ndarray


def shares_by_label(heatmap: Heatmap, labels: np.ndarray) -> LabelShares:
    """Share a heatmap's mass out among labels: a token's among the labels of its pixels, by their number.

    labels: integers of the image's native shape, 0 is background. Raises PointOutsideVolume for another shape.
    """
    if labels.shape != heatmap.native_shape:
        raise PointOutsideVolume(f"labels of shape {labels.shape}; expected the image's, {heatmap.native_shape}.")
    grid = heatmap.grid
    values = np.union1d([0], labels)
    label_index = np.searchsorted(values, labels)
    token_index = np.zeros(labels.shape, np.int64)
    for table, stride in zip(np.ix_(*grid.pixel_tokens), _strides(grid.shape), strict=True):
        token_index = token_index + table * stride
    tokens = int(np.prod(grid.shape))
    counts = np.bincount((token_index * len(values) + label_index).ravel(), minlength=tokens * len(values)).reshape(
        tokens, len(values)
    )
    pixels = counts.sum(axis=1, keepdims=True)
    fractions = np.divide(counts, pixels, out=np.zeros(counts.shape), where=pixels > 0)
    mass = heatmap.values.reshape(heatmap.heads, tokens).astype(np.float64)
    beyond = mass[:, pixels[:, 0] == 0].sum(axis=1)
    return LabelShares(
        labels=tuple(int(v) for v in values),
        shares=(mass @ fractions).astype(np.float32),
        outside=(heatmap.prefix_mass + heatmap.padding_mass + beyond).astype(np.float32),
        extent=(counts.sum(axis=0) / labels.size).astype(np.float32),
    )


def _strides(shape: tuple[int, ...]) -> list[int]:
    """Steps in a row-major index per axis."""
    return [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
