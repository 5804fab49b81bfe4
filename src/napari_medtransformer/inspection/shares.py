"""How attention is shared out among labelled structures: "what does this voxel attend to" in names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from napari_medtransformer.attention.heatmap import Heatmap
from napari_medtransformer.errors import PointOutsideVolume, QueryOutOfGrid


@dataclass(frozen=True, eq=False)
class LabelShares:
    """Attention per label. labels: the label values, 0 (background) first. shares: (heads, labels) float32, what each
    head spends on them, of all that its map holds; with `outside`, (heads,) – padding and tokens without a place –,
    they sum to 1, also where a map is no row, such as what every voxel gives to a prompt.
    extent: (labels,) each label's share of the image, to compare with.
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
    shown = np.ix_(*(table for table, _ in grid.shown_by))
    token_index = sum((t * stride for t, stride in zip(shown, _strides(grid.shape), strict=True)), np.int64(0))
    tokens = int(np.prod(grid.shape))
    pairs = token_index * len(values) + grid.under_tokens(label_index)
    counts = np.bincount(pairs.ravel(), minlength=tokens * len(values))
    counts = counts.reshape(tokens, len(values))
    pixels = counts.sum(axis=1, keepdims=True)
    fractions = np.divide(counts, pixels, out=np.zeros(counts.shape), where=pixels > 0)
    mass = heatmap.values.reshape(heatmap.heads, tokens).astype(np.float64)
    beyond = mass[:, pixels[:, 0] == 0].sum(axis=1) + heatmap.prefix_mass + heatmap.padding_mass
    shared = mass @ fractions
    whole = np.maximum(shared.sum(axis=1) + beyond, np.finfo(np.float32).tiny)
    return LabelShares(
        labels=tuple(int(v) for v in values),
        shares=(shared / whole[:, None]).astype(np.float32),
        outside=(beyond / whole).astype(np.float32),
        extent=(np.bincount(label_index.ravel(), minlength=len(values)) / labels.size).astype(np.float32),
    )


def share_inside(heatmap: Heatmap, mask: np.ndarray) -> np.ndarray:
    """(heads,) the share of each head's attention inside a mask, of all it spends, padding and prefix tokens included.

    mask: bool, the image's native shape; a token's attention is shared out among its pixels evenly. The same number as
    `shares_by_label` gives for a label, only faster. Raises QueryOutOfGrid for another shape.
    """
    grid = heatmap.grid
    if mask.shape != heatmap.native_shape:
        raise QueryOutOfGrid(f"a mask of shape {mask.shape}; expected the image's, {heatmap.native_shape}.")
    index = [table[i] for (table, _), i in zip(grid.shown_by, np.nonzero(grid.under_tokens(mask)), strict=True)]
    tokens = int(np.prod(grid.shape))
    inside = np.bincount(np.ravel_multi_index(index, grid.shape), minlength=tokens).astype(np.float32)
    pixels = np.ones(1, np.float32)
    for axis, ((table, _), n) in enumerate(zip(grid.shown_by, grid.shape, strict=True)):
        counts = np.bincount(table, minlength=n).astype(np.float32)
        pixels = pixels * counts.reshape([-1 if a == axis else 1 for a in range(len(grid.shape))])
    fraction = np.divide(inside, np.ravel(pixels), out=np.zeros_like(inside), where=np.ravel(pixels) > 0)
    mass = heatmap.values.reshape(heatmap.heads, -1)
    whole = mass.sum(axis=1) + heatmap.prefix_mass + heatmap.padding_mass
    return np.asarray(mass @ fraction / np.maximum(whole, np.finfo(np.float32).tiny), np.float32)


def shares_table(shares: LabelShares, names: Mapping[int, str], *, site: str, heads: Sequence[str]) -> list[list[str]]:
    """Rows of a table, the header first: site, head, label, name, share of attention, share of the image, ratio.

    Labels of each head by falling share; labels that get nothing are left out; "outside" is padding and tokens without
    a place. names: label → name. heads: a name per head.
    """
    table = [["site", "head", "label", "name", "share", "extent", "share / extent"]]
    for head, row, outside in zip(heads, shares.shares, shares.outside, strict=True):
        for column in np.argsort(-row, kind="stable"):
            label, share, extent = shares.labels[column], float(row[column]), float(shares.extent[column])
            if share > 0:
                name = names.get(label, "background" if label == 0 else f"label {label}")
                ratio = f"{share / extent:.3g}" if extent > 0 else ""
                table.append([site, head, str(label), name, f"{share:.6f}", f"{extent:.6f}", ratio])
        table.append([site, head, "", "outside", f"{float(outside):.6f}", "", ""])
    return table


def _strides(shape: tuple[int, ...]) -> list[int]:
    """Steps in a row-major index per axis."""
    return [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
