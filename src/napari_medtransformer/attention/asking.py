"""Which token a query of a user's is, and which of several windows hold it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from napari_medtransformer.attention.captured import CapturedSite
from napari_medtransformer.attention.sites import AttentionSite, SiteSpec
from napari_medtransformer.attention.token_grid import TokenGrid
from napari_medtransformer.errors import QueryOutOfGrid, UnknownSite, in_words

Query = Sequence[float] | int
"""Native coordinates of the encoded image, or a token index."""


def token_of_query(grid: TokenGrid, query: Query) -> int:
    """The token of a grid that a query is. Raises QueryOutOfGrid."""
    if isinstance(query, (int, np.integer)):
        if abs(int(query)) >= 2**63:  # beyond what a tensor holds
            raise QueryOutOfGrid(f"there is no token {in_words(query)}; the grid has {grid.n_tokens}.")
        return int(grid.check_tokens(torch.tensor([int(query)]))[0])
    return grid.token_of(in_image(grid, query))


def in_image(grid: TokenGrid, query: Sequence[float]) -> list[float]:
    """The query as a coordinate of the image; a slice coordinate before that of a 2D image is left out."""
    try:
        native = [float(x) for x in query]
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise QueryOutOfGrid(
            f"a query is a token's number or coordinates (y, x) or (z, y, x), not {in_words(query)}."
        ) from error
    if grid.placement is not None and len(native) == len(grid.placement.native_shape) + 1:
        native = native[1:]
    return native


def captures_holding(passes: Sequence[CapturedSite], query: Query) -> Sequence[CapturedSite]:
    """Of several windows, those that hold the query."""
    return [layers[0] for layers in passes_holding(((one,) for one in passes), query)]


def passes_holding(passes: Iterable[tuple[CapturedSite, ...]], query: Query) -> list[tuple[CapturedSite, ...]]:
    """Of several windows, each with its layers, those whose last layer holds the query; never none."""
    every = list(passes)
    if len(every) == 1 or isinstance(query, (int, np.integer)):
        return every[-1:]
    grids = [layers[-1].site.query_grid for layers in every]
    kept = [layers for layers, grid in zip(every, grids) if grid.holds(in_image(grid, query))]
    # the last one says where the query lies instead
    return kept or every[-1:]


def as_given(query: Query) -> tuple[float, ...] | int:
    """The query as a heatmap tells it."""
    return int(query) if isinstance(query, (int, np.integer)) else tuple(float(x) for x in query)


def name_of(site: str | SiteSpec | AttentionSite) -> str:
    """The name of a site, or what was given as one. Raises UnknownSite."""
    if isinstance(site, str):
        return site
    if isinstance(site, (SiteSpec, AttentionSite)):
        return site.name
    raise UnknownSite(f"a site is its name, or one of probe.sites, not {in_words(site)}.")


def token_numbers(queries: Sequence[int] | Tensor) -> Tensor:
    """Token indices as a tensor. Raises QueryOutOfGrid for what are none."""
    try:
        return torch.as_tensor(queries)
    except (TypeError, ValueError, RuntimeError) as error:
        raise QueryOutOfGrid(f"queries are token numbers of the site's query grid, not {in_words(queries)}.") from error
