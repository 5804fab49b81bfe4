"""Attention rollout (Abnar and Zuidema 2020) as a vector pushed through the layers, never a product of matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from napari_medtransformer.attention.captured import CapturedSite
from napari_medtransformer.attention.quantities import head_mean_product
from napari_medtransformer.attention.token_grid import TokenGrid
from napari_medtransformer.errors import UnsupportedModel


def rollout_vector(layers: Sequence[CapturedSite], query: int | Tensor) -> Tensor:
    """Where the output at `query` comes from: a row of (½A₁ + ½I) … of all layers, last to first.

    layers: self-attention over the image, in the order in which they ran. query: a token of the last layer's query
    grid, or weights of them all, (tokens,) ≥ 0 and not all zero, for the mean over a region.
    Returns (tokens of the first layer's finer grid,) float32; sums to 1 less what windows spend on padding.
    Between grids of different resolution a token's share is spread evenly over the tokens it covers.
    """
    vector = torch.zeros(layers[-1].site.query_grid.n_tokens, device=layers[-1].call.q.device)
    if isinstance(query, Tensor):
        vector += query.to(vector) / query.sum()
    else:
        vector[query] = 1.0
    grid = layers[-1].site.query_grid
    for layer in reversed(layers):
        vector = spread(vector, grid, layer.site.query_grid)
        attended = head_mean_product(layer, vector)
        grid = input_grid(layer)
        kept = spread(vector, layer.site.query_grid, grid)
        vector = 0.5 * (spread(attended, layer.site.key_grid, grid) + kept)
    return vector


def input_grid(layer: CapturedSite) -> TokenGrid:
    """The tokens that went into a layer: its keys', or its queries' where the keys are reduced (SegFormer)."""
    site = layer.site
    return site.query_grid if site.query_grid.n_tokens > site.key_grid.n_tokens else site.key_grid


def spread(vector: Tensor, source: TokenGrid, target: TokenGrid) -> Tensor:
    """Shares of a coarser grid's tokens given evenly to a finer grid's, (source tokens,) → (target tokens,).

    Raises UnsupportedModel unless every axis of the target is a whole multiple of the source's.
    """
    if source.shape == target.shape and source.prefix == target.prefix:
        return vector
    if source.prefix != target.prefix or any(t % s for s, t in zip(source.shape, target.shape, strict=True)):
        raise UnsupportedModel(f"no rollout from a grid of {source.shape} tokens to one of {target.shape}.")
    prefix, placed = vector[: source.prefix], vector[source.prefix :].reshape(source.shape)
    for axis, (s, t) in enumerate(zip(source.shape, target.shape, strict=True)):
        placed = placed.repeat_interleave(t // s, dim=axis) / (t // s)
    return torch.cat([prefix, placed.flatten()])
