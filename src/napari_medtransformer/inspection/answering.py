"""Asking a slice that went through a model: the answer of a site's heads to a query, or of all sites together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from napari_medtransformer.attention.asking import name_of
from napari_medtransformer.attention.captured import CapturedSite
from napari_medtransformer.attention.heatmap import Heatmap
from napari_medtransformer.attention.quantities import mean_row, received, to_keys
from napari_medtransformer.attention.rollout import input_grid, rollout_vector
from napari_medtransformer.attention.row_numbers import distance_from, entropy_and_distance_of
from napari_medtransformer.attention.token_grid import TokenGrid
from napari_medtransformer.errors import QueryOutOfGrid, UnknownSite, in_words
from napari_medtransformer.inspection.head_numbers import EntropyAndDistance, HeadNumbers
from napari_medtransformer.inspection.inspect import SliceInspection
from napari_medtransformer.inspection.queries import (
    ROLLOUT,
    Answer,
    EverythingQuery,
    Inspection,
    PrefixQuery,
    PromptQuery,
    Query,
    RegionQuery,
    VoxelQuery,
    asked_words,
    check_inspection,
    default_prompt_query,
    encoder_sites,
)
from napari_medtransformer.inspection.volume_queries import ask_in_volume
from napari_medtransformer.inspection.windows import VolumeInspection


def ask(inspection: Inspection, site: str, query: Query) -> Answer:
    """What every head of a site answers to a query; site "rollout": all of the encoder's sites together.

    Where the image attends to itself, voxels, regions and prefix tokens ask; a prompt's token asks from its voxel. At
    a decoder's prompt-to-image site a prompt token asks, the newest one where the query is none. At an image-to-prompt
    site the map shows how much of each voxel's attention that token gets.
    Of windows of a volume, see `volume_queries.ask_in_volume`. Raises QueryOutOfGrid, PointOutsideVolume and
    UnknownSite.
    """
    check_inspection(inspection)
    site = name_of(site)
    if not isinstance(query, Query):
        raise QueryOutOfGrid(
            f"a VoxelQuery, RegionQuery, PromptQuery, PrefixQuery or EverythingQuery asks, not {in_words(query)}."
        )
    if isinstance(inspection, VolumeInspection):
        return ask_in_volume(inspection, site, query)
    if site == ROLLOUT:
        return _rollout(inspection, query)
    captured = inspection.captured(site)
    known = captured.site
    if known.query_grid.has_place and known.key_grid.has_place:
        return _in_image(inspection, captured, query)
    if not (known.query_grid.has_place or known.key_grid.has_place):
        raise UnknownSite(f"at {site} prompt tokens attend to one another; no side has a place in the image.")
    if isinstance(query, EverythingQuery) and known.key_grid.has_place:
        return _everything(inspection, captured)
    prompt = query if isinstance(query, PromptQuery) else default_prompt_query(inspection)
    return (_prompt_row if known.key_grid.has_place else _prompt_column)(inspection, captured, prompt)


def _in_image(inspection: SliceInspection, captured: CapturedSite, query: Query) -> Answer:
    if isinstance(query, EverythingQuery):
        return _everything(inspection, captured)
    grid = captured.site.query_grid
    tokens, weights, mark = _asking(inspection, grid, query)
    if len(tokens) == 1:
        rows, keys = captured.rows(tokens)[:, 0], captured.keys(tokens)[0]
        values, padding = to_keys(rows, keys, captured.site.key_grid.n_tokens)
    else:
        share = torch.zeros(grid.n_tokens)
        share[tokens] = weights
        values, padding = mean_row(captured, share)
    return _answer(inspection, captured, query, (values, padding), (tokens, weights), mark)


def _everything(inspection: SliceInspection, captured: CapturedSite) -> Answer:
    tokens = torch.arange(captured.site.query_grid.n_tokens)
    weights = torch.ones(len(tokens))
    answer = _answer(inspection, captured, EverythingQuery(), received(captured), (tokens, weights), None)
    return replace(answer, is_row=False)


def _prompt_row(inspection: SliceInspection, captured: CapturedSite, query: PromptQuery) -> Answer:
    tokens = captured.site.query_grid.check_tokens(torch.tensor([query.index]))
    rows, keys = captured.rows(tokens)[:, 0], captured.keys(tokens)[0]
    found = to_keys(rows, keys, captured.site.key_grid.n_tokens)
    answer = _answer(inspection, captured, query, found, (tokens, torch.ones(1)), query.token.yx)
    if query.token.yx is None:
        return answer
    # a prompt has no token centre; it measures from where it was given
    spacing, grid = inspection.spacing_mm, captured.site.key_grid
    place = [c * mm for c, mm in zip(query.token.yx, spacing, strict=True)]

    def measured() -> EntropyAndDistance:
        distance = distance_from(place, found[0][:, grid.prefix :].cpu(), grid.centres_mm(spacing))
        return EntropyAndDistance(answer.entropy_nats, distance.numpy())

    return replace(answer, numbers=HeadNumbers(measured))


def _prompt_column(inspection: SliceInspection, captured: CapturedSite, query: PromptQuery) -> Answer:
    captured.site.key_grid.check_tokens(torch.tensor([query.index]))
    column = torch.zeros((captured.call.heads, captured.site.query_grid.n_tokens))
    for rows, queries, _ in captured.blocks():
        column[:, queries] = rows[..., query.index].cpu()
    grid, heads = captured.site.query_grid, captured.call.heads
    heatmap = Heatmap.over(grid, column, torch.zeros(heads), site=captured.site.name, query=query.index)
    return Answer(
        site=captured.site.name,
        kind=captured.site.kind,
        query=query,
        asked=f"voxels, to {query.token.name}",
        mark_yx=query.token.yx,
        heatmap=heatmap,
        numbers=HeadNumbers(lambda: EntropyAndDistance.unknown(heads)),
        is_row=False,
    )


def _rollout(inspection: SliceInspection, query: Query) -> Answer:
    layers = [inspection.captured(site) for site in encoder_sites(inspection)]
    if not layers:
        raise UnknownSite("no site was recorded at which the image attends to itself; rollout needs the encoder's.")
    last = layers[-1].site.query_grid
    if isinstance(query, EverythingQuery):
        start, mark = torch.ones(last.n_tokens), None
    else:
        tokens, weights, mark = _asking(inspection, last, query)
        start = torch.zeros(last.n_tokens)
        start[tokens] = weights
    values = rollout_vector(layers, start)[None].cpu()
    heatmap = Heatmap.over(input_grid(layers[0]), values, 1 - values.sum(dim=1), site=ROLLOUT, query=mark)
    of_heads = HeadNumbers(lambda: EntropyAndDistance.unknown(heatmap.heads))
    return Answer(ROLLOUT, ROLLOUT, query, asked_words(query), mark, heatmap, of_heads)


def _asking(
    inspection: SliceInspection, grid: TokenGrid, query: Query
) -> tuple[Tensor, Tensor, tuple[float, float] | None]:
    """The tokens that ask, (n,), their weights, (n,), and where they are if it is one place."""
    mark: tuple[float, float] | None
    if isinstance(query, RegionQuery):
        pixels = grid.pixels_per_token(np.asarray(inspection.on_slice(query.mask), dtype=bool))
        tokens = pixels.nonzero().flatten()
        if not len(tokens):
            raise QueryOutOfGrid(f"{query.name} has no pixel on this slice; choose another slice or label.")
        return tokens, pixels[tokens], None
    if isinstance(query, PrefixQuery):
        if query.index >= grid.prefix:
            raise QueryOutOfGrid(f"this site has {grid.prefix} tokens before the image's; there is no {query.index}.")
        return torch.tensor([query.index]), torch.ones(1), None
    if isinstance(query, PromptQuery):
        mark = query.token.yx
        if mark is None:
            raise QueryOutOfGrid(f"{query.token.name} has no place in the image; ask it at a site of the decoder.")
    elif isinstance(query, VoxelQuery):
        mark = inspection.plane.in_slice(query.zyx)
    else:
        raise QueryOutOfGrid("all tokens asked where one was expected.")
    return torch.tensor([grid.token_of(mark)]), torch.ones(1), mark


def _answer(
    inspection: SliceInspection,
    captured: CapturedSite,
    query: Query,
    found: tuple[Tensor, Tensor],
    asking: tuple[Tensor, Tensor],
    mark: tuple[float, float] | None,
) -> Answer:
    site, spacing = captured.site, inspection.spacing_mm
    heatmap = Heatmap.over(site.key_grid, *found, site=site.name, query=mark)
    of_heads = HeadNumbers(
        lambda: EntropyAndDistance.of(*entropy_and_distance_of(captured, asking[0], spacing, asking[1]))
    )
    return Answer(site.name, site.kind, query, asked_words(query), mark, heatmap, of_heads)
