"""Attention laid out over an image: what a viewer draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import DTypeLike

from napari_medtransformer.attention.layout import TokenLayout
from napari_medtransformer.attention.token_grid import TokenGrid


@dataclass(frozen=True, eq=False)
class Heatmap:
    """Attention over the tokens of an image.

    grid: the tokens and where they lie. values: (heads, *grid.shape) float32 ≥ 0; prompt tokens, which have no place,
    lie on a grid of one axis. A row sums to 1 with prefix_mass and padding_mass, both (heads,): what lies on tokens
    without a place and on padding.
    query: native coordinates or token index that asked, None for a region or the whole image.
    """

    site: str
    query: tuple[float, ...] | int | None
    grid: TokenGrid
    values: np.ndarray
    prefix_mass: np.ndarray
    padding_mass: np.ndarray

    @classmethod
    def over(
        cls,
        grid: TokenGrid,
        tokens: torch.Tensor,
        padding: torch.Tensor,
        *,
        site: str,
        query: tuple[float, ...] | int | None,
    ) -> Heatmap:
        """From values over all tokens of a grid, (heads, n_tokens), and what lies on padding, (heads,)."""
        tokens = tokens.float().cpu()
        return cls(
            site=site,
            query=query,
            grid=grid,
            values=grid.scatter(tokens).numpy(),
            prefix_mass=tokens[:, : grid.prefix].sum(dim=1).numpy(),
            padding_mass=padding.float().cpu().numpy(),
        )

    @property
    def scale(self) -> tuple[float, ...]:
        """The size of a token per axis in native pixels; empty without a place."""
        return self.grid.scale if self.grid.has_place else ()

    @property
    def translate(self) -> tuple[float, ...]:
        """The centre of the first token per axis in native pixels; empty without a place."""
        return self.grid.translate if self.grid.has_place else ()

    @property
    def native_shape(self) -> tuple[int, ...]:
        """The image's shape; empty without a place."""
        return self.grid.placement.native_shape if self.grid.placement is not None else ()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=copy)

    @property
    def shape(self) -> tuple[int, ...]:
        """(heads, *grid)."""
        return self.values.shape

    @property
    def heads(self) -> int:
        """How many heads."""
        return int(self.values.shape[0])

    def on_pixels(self, *, smooth: bool = True) -> np.ndarray:
        """(heads, *native_shape) float32: the same values at every native pixel.

        smooth: linear between token centres, else each token as the tile it is. Values are not shared out among the
        pixels of a token: a pixel shows its token's attention, or the mean of several that lie under it. Zero outside
        a sliding window. Raises ValueError without a place.
        """
        if not self.scale:
            raise ValueError(f"{self.site}: its keys have no place in the image.")
        out = self.values
        # The last axis first: where most is copied, whole rows are.
        for axis, n, size, start in reversed(
            list(zip(range(1, out.ndim), self.native_shape, self.scale, self.translate, strict=True))
        ):
            where = (np.arange(n) - start) / size
            last = out.shape[axis] - 1
            if size < 1:
                out = _means_along(out, *self.grid.shown_by[axis - 1], n, axis)
            elif smooth:
                out = linear_along(out, where, axis)
            else:
                out = out.take(np.floor(where + 0.5).astype(np.int64).clip(0, last), axis)
            if self.grid.placement is not None and self.grid.placement.origin is not None:
                table = self.grid.pixel_tokens[axis - 1]
                inside = ((table >= 0) & (table <= last)).reshape([-1 if a == axis else 1 for a in range(out.ndim)])
                out = out * inside
        return np.ascontiguousarray(out, dtype=np.float32)


def linear_along(values: np.ndarray, where: np.ndarray, axis: int) -> np.ndarray:
    """Values at places along an axis, linear between neighbours and constant beyond the ends.

    values: (…, n, …). where: (m,) places in units of the axis' index. Returns (…, m, …) float32. Two lookups and not a
    product with a table: after a product numpy's linear algebra keeps a second core busy with waiting for the next.
    """
    last = values.shape[axis] - 1
    where = where.clip(0, last)
    low = np.minimum(np.floor(where).astype(np.int64), max(last - 1, 0))
    values = np.asarray(values, dtype=np.float32)
    if last == 0:
        return values.take(low, axis)
    share = (where - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    found = np.diff(values, axis=axis).take(low, axis)
    found *= share
    found += values.take(low, axis)
    return found


def _means_along(values: np.ndarray, tokens: np.ndarray, pixels: np.ndarray, count: int, axis: int) -> np.ndarray:
    """The mean of the tokens under each of `count` pixels along an axis, 0 where there is none: (…, count, …)."""
    under = np.zeros((count, values.shape[axis]), np.float32)
    under[pixels, tokens] = 1
    under /= np.maximum(under.sum(axis=1, keepdims=True), 1)
    return np.moveaxis(np.tensordot(values, under, axes=(axis, 1)), -1, axis)


def stitch_heatmaps(
    heatmaps: Sequence[Heatmap], weights: Sequence[float] | None = None, *, overlap: Literal["share", "mean"] = "share"
) -> Heatmap:
    """Heatmaps of windows that slid over one image, as one heatmap over the part of the image that they cover.

    The result's tokens are as large as the windows' and begin where the first window does; a token that lies across
    two of them gives each its part. overlap: "share" takes the windows' weighted mean, so that what sums to 1 in each
    sums to 1 in all (rows of a query that several windows hold); "mean" takes at each place the weighted mean of the
    windows that cover it (quantities of every token, such as what it receives). weights: per heatmap, ≥ 0, None for
    equal ones. One heatmap is returned as it is.

    Raises ValueError for heatmaps of different images, tokens or numbers of heads, and for none.
    """
    if len(heatmaps) == 1:
        return heatmaps[0]
    first = _one_kind(heatmaps)
    shares = np.full(len(heatmaps), 1 / len(heatmaps)) if weights is None else np.asarray(weights, float)
    shares = shares / shares.sum()
    placement, patch = first.grid.placement, first.grid.layout.patch
    if placement is None or patch is None:
        raise ValueError(f"{first.site}: tokens without a place cannot be stitched.")
    starts = np.array([h.grid.placement.start for h in heatmaps if h.grid.placement is not None])
    start = starts.min(axis=0)
    ends = starts + np.array([h.values.shape[1:] for h in heatmaps]) * np.array(patch)
    cells = tuple(int(n) for n in -(-(ends.max(axis=0) - start) // np.array(patch)))
    total = np.zeros((first.heads, *cells), np.float32)
    covered = np.zeros((1, *cells), np.float32)
    for heatmap, share, window in zip(heatmaps, shares, starts, strict=True):
        places = [(int(o), p) for o, p in zip(window - start, patch, strict=True)]
        total += _shifted(np.asarray(share * heatmap.values, np.float32), places, cells)
        if overlap == "mean":
            covered += _shifted(np.full((1, *heatmap.values.shape[1:]), share, np.float32), places, cells)
    if overlap == "mean":
        total = np.divide(total, covered, out=np.zeros_like(total), where=covered > 0)
    size = tuple(c * p for c, p in zip(cells, patch, strict=True))
    whole = placement.window(tuple(int(s) for s in start), size)
    return Heatmap(
        site=first.site,
        query=first.query,
        grid=TokenGrid(TokenLayout(patch, cells, first.grid.prefix), whole),
        values=total,
        prefix_mass=sum(s * h.prefix_mass for s, h in zip(shares, heatmaps, strict=True)),
        padding_mass=sum(s * h.padding_mass for s, h in zip(shares, heatmaps, strict=True)),
    )


def _one_kind(heatmaps: Sequence[Heatmap]) -> Heatmap:
    if not heatmaps:
        raise ValueError("no heatmaps to stitch; give at least one.")
    first = heatmaps[0]
    for other in heatmaps[1:]:
        a, b = first.grid.placement, other.grid.placement
        alike = (
            a is not None and b is not None and (a.native_shape, a.resized_shape) == (b.native_shape, b.resized_shape)
        )
        if not alike or first.grid.layout.patch != other.grid.layout.patch or first.heads != other.heads:
            raise ValueError(f"heatmaps of {first.site} and {other.site} differ in image, tokens or heads.")
    return first


def _shifted(values: np.ndarray, places: Sequence[tuple[int, int]], cells: tuple[int, ...]) -> np.ndarray:
    """Values (heads, *tokens) laid on a larger grid; places: per axis, (pixels from its start, pixels per token)."""
    for axis, ((pixels, size), n) in enumerate(zip(places, cells, strict=True), start=1):
        whole, part = divmod(pixels, size)
        tokens = values.shape[axis]
        wider = np.zeros((*values.shape[:axis], n, *values.shape[axis + 1 :]), np.float32)
        before = (slice(None),) * axis
        wider[(*before, slice(whole, whole + tokens))] += values * np.float32(1 - part / size)
        if part:
            wider[(*before, slice(whole + 1, whole + 1 + tokens))] += values * np.float32(part / size)
        values = wider
    return values
