"""Attention laid out over an image: what a viewer draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import DTypeLike

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
        pixels of a token: a pixel shows its token's attention. Raises ValueError without a place.
        """
        if not self.scale:
            raise ValueError(f"{self.site}: its keys have no place in the image.")
        out = self.values
        for axis, (n, size, start) in enumerate(zip(self.native_shape, self.scale, self.translate), start=1):
            where = (np.arange(n) - start) / size
            last = out.shape[axis] - 1
            if smooth:
                where = where.clip(0, last)
                low = np.minimum(np.floor(where).astype(np.int64), max(last - 1, 0))
                share = (where - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(out.ndim)])
                out = out.take(low, axis) * (1 - share) + out.take(np.minimum(low + 1, last), axis) * share
            else:
                out = out.take(np.floor(where + 0.5).astype(np.int64).clip(0, last), axis)
        return np.ascontiguousarray(out, dtype=np.float32)
