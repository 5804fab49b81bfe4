"""Entropy and distance of a few rows: the numbers of one query or one region, where `summary` is about them all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from napari_medtransformer.attention.captured import CapturedSite


def entropy_and_distance_of(
    captured: CapturedSite, tokens: Tensor, spacing: Sequence[float], weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean over some query tokens of their rows' entropy (nats) and of their mean attention distance (mm).

    tokens: (n,) of the site's query grid. weights: (n,) ≥ 0, None for equal ones. spacing: mm per native pixel and
    axis. Distances are between token centres, weighted by attention, padding and prefix tokens left out; nan where a
    side has no place. Returns (heads,) twice, float32 on the CPU; for one token the same as
    `summaries.entropy_and_distance` says of it. Cost and memory as for the rows themselves.
    """
    grid, key_grid = captured.site.query_grid, captured.site.key_grid
    given = torch.ones(len(tokens)) if weights is None else weights.float().cpu()
    share = torch.zeros(grid.n_tokens)
    share[tokens] = given / given.sum()
    entropy = torch.zeros(captured.call.heads)
    distance = torch.full((captured.call.heads,), float("nan"))
    placed = grid.has_place and key_grid.has_place
    if placed:
        distance.zero_()
        query_mm, key_mm = centres_mm(grid.centres_mm(spacing)), centres_mm(key_grid.centres_mm(spacing))
    for rows, queries, keys in captured.blocks(tokens):
        weight = share[queries].to(rows.device)
        entropy += (torch.special.entr(rows).sum(dim=-1) @ weight).cpu()
        if not placed:
            continue
        if bool((queries < grid.prefix).any()):
            return entropy, torch.full_like(entropy, float("nan"))  # a token without a place measures from nowhere
        known = keys >= key_grid.prefix
        here, there = query_mm[queries - grid.prefix], key_mm[keys[known] - key_grid.prefix]
        apart = torch.cdist(here, there).to(rows.device)
        mass = rows[..., known.to(rows.device)]
        means = (mass * apart).sum(dim=-1) / mass.sum(dim=-1)
        distance += (means @ weight).cpu()
    return entropy, distance


def distance_from(place_mm: Sequence[float], values: Tensor, axes_mm: tuple[Tensor, ...]) -> Tensor:
    """Mean distance (mm) from a place to a grid's token centres under values (heads, tokens) ≥ 0: (heads,) float32."""
    apart = (centres_mm(axes_mm) - torch.tensor([list(place_mm)], dtype=torch.float32)).norm(dim=1)
    return (values @ apart) / values.sum(dim=1)


def centres_mm(axes: tuple[Tensor, ...]) -> Tensor:
    """(tokens, axes) centres of a grid's tokens, from the centres along each axis."""
    return torch.cartesian_prod(*axes).reshape(-1, len(axes))
