"""Positional encodings as pictures: what tells a model's tokens where they are, and what happens without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from napari_medtransformer.attention.altered_positions import Alteration, altered_positions
from napari_medtransformer.attention.bias import WindowBias
from napari_medtransformer.attention.heatmap import Heatmap
from napari_medtransformer.attention.positions import (
    PositionalEncoding,
    PositionTable,
    RelativeBias,
    RelativeVectors,
    find_positional_encodings,
)
from napari_medtransformer.attention.token_grid import TokenGrid
from napari_medtransformer.attention.turn import Turn
from napari_medtransformer.errors import QueryOutOfGrid, UnsupportedModel
from napari_medtransformer.inspection.ablation import ObjectEffect, masks_under
from napari_medtransformer.inspection.inspect import SliceInspection
from napari_medtransformer.inspection.queries import Inspection, encoder_sites
from napari_medtransformer.models.base import Prompts

# A mosaic shows at most so many places per axis as tiles, and so many inside each.
MOST_TILES, MOST_PLACES = 16, 32


def encodings_of(inspection: Inspection) -> list[PositionalEncoding]:
    """The positional encodings of the inspected model as they lie in the image, Fourier features on its token grid."""
    sites = encoder_sites(inspection)
    network, turn = inspection.model.network, sites[-1].query_grid.layout.turn if sites else None
    grid = sites[-1].query_grid.shape if sites else None
    if grid is None or turn is None:
        return find_positional_encodings(network, grid)
    return [in_image(encoding, turn) for encoding in find_positional_encodings(network, turn.sizes_to_network(grid))]


def in_image(encoding: PositionalEncoding, turn: Turn) -> PositionalEncoding:
    """An encoding of a network that sees images turned, its places and offsets along the image's axes.

    Vectors along a single axis stay as they are: nothing says which axis they are of.
    """
    if isinstance(encoding, RelativeBias):
        return replace(encoding, values=turn.to_image(encoding.values).contiguous())
    if isinstance(encoding, PositionTable) and len(encoding.grid) == len(turn.axes):
        laid_out = turn.to_image(encoding.vectors.T.unflatten(1, encoding.grid))
        return replace(encoding, grid=tuple(laid_out.shape[1:]), vectors=laid_out.flatten(1).T.contiguous())
    return encoding


def describe_encoding(encoding: PositionalEncoding) -> str:
    """One line: what kind it is, and its size."""
    if isinstance(encoding, PositionTable):
        kind = {"learned": "learned table", "fourier": "random Fourier features", "sinusoidal": "sines and cosines"}
        return f"{kind[encoding.kind]}, {_by(encoding.grid)} places of {encoding.vectors.shape[1]} numbers"
    if isinstance(encoding, RelativeVectors):
        return f"relative vectors along one axis, {encoding.vectors.shape[0]} offsets of {encoding.vectors.shape[1]}"
    return f"relative bias, {encoding.values.shape[0]} heads, window {_by(encoding.window)}"


def similarity_heatmap(table: PositionTable, grid: TokenGrid, place: tuple[float, ...]) -> Heatmap:
    """Cosine similarity of the place under a pixel or voxel with all places, on the image. (1, *grid) in [-1, 1].

    grid: where the table's places lie. Raises QueryOutOfGrid for a table of another number of places or axes.
    """
    if len(table.grid) != len(grid.shape):
        raise QueryOutOfGrid(f"{table.name} has {len(table.grid)} axes, the image's tokens {len(grid.shape)}.")
    if table.kind == "fourier" and table.grid != grid.shape:
        raise QueryOutOfGrid(f"{table.name} was taken at {_by(table.grid)} places, not at these {_by(grid.shape)}.")
    fitting = table if table.grid == grid.shape else table.resized(grid.shape)
    values = fitting.similarity(grid.grid_index(grid.token_of(place))).numpy()[None]
    nothing = np.zeros(1, np.float32)
    return Heatmap(f"similarity of {table.name}", place, grid, values, nothing, nothing)


def mosaic(table: PositionTable) -> np.ndarray:
    """(rows · r, columns · c) cosine similarities: a tile per place, and in it its similarity with all places.

    Tiles lie as their places do. Large tables show every so-manieth place. A table of one axis gives the plain places ×
    places matrix, one of three axes its middle slice. Dosovitskiy et al. 2021, figure 7, centre.
    """
    unit = torch.nn.functional.normalize(table.vectors, dim=1).reshape(*table.grid, -1)
    if len(table.grid) == 3:
        unit = unit[table.grid[0] // 2]
    if len(table.grid) == 1:
        return np.asarray((unit @ unit.T).numpy())
    rows, columns = unit.shape[:2]
    tiles = unit[_every(rows, MOST_TILES)][:, _every(columns, MOST_TILES)]
    inside = unit[_every(rows, MOST_PLACES)][:, _every(columns, MOST_PLACES)]
    similar = torch.einsum("abd,ijd->aibj", tiles, inside)
    return np.asarray(similar.reshape(tiles.shape[0] * inside.shape[0], -1).numpy())


def channels(table: PositionTable, most: int = 24) -> np.ndarray:
    """(n, rows, columns): the channels of the table with the largest variance over places, falling, as images.

    A table of one axis gives images of one row, one of three axes its middle slice.
    """
    order = table.vectors.var(dim=0).argsort(descending=True)[:most]
    images = table.vectors[:, order].T.reshape(-1, *table.grid)
    if len(table.grid) == 3:
        images = images[:, table.grid[0] // 2]
    return np.asarray((images[:, None] if len(table.grid) == 1 else images).numpy())


def gram(table: PositionTable, most: int = 1024) -> np.ndarray:
    """P·Pᵀ over the places, row-major; of more than `most` places every so-manieth."""
    every = _every(table.vectors.shape[0], most)
    return np.asarray((table.vectors[every] @ table.vectors[every].T).numpy())


def offsets_similarity(encoding: RelativeVectors) -> np.ndarray:
    """(offsets, offsets) cosine similarity of the vectors of all offsets along the axis."""
    unit = torch.nn.functional.normalize(encoding.vectors, dim=1)
    return np.asarray((unit @ unit.T).numpy())


def bias_pictures(encoding: RelativeBias) -> np.ndarray:
    """(heads, rows, columns) of the bias over offsets, zero offset in the centre; of a 3D window its slices along z
    side by side, a column without a number (nan) between them.
    """
    values = encoding.values.numpy()
    if values.ndim == 3:
        return values
    heads, depth, rows, columns = values.shape
    wide = np.full((heads, rows, depth * (columns + 1) - 1), np.nan, np.float32)
    for z in range(depth):
        wide[:, :, z * (columns + 1) : z * (columns + 1) + columns] = values[:, z]
    return wide


def bias_around(inspection: Inspection, site: str, place: tuple[float, ...]) -> Heatmap:
    """What position alone adds to the scores of the query at a pixel or voxel: per head, over the keys; no attention.

    For decomposed relative positions (SAM) and window biases (Swin). Keys outside the query's window get 0; that a
    shifted window parts what does not belong together is no position, and left out.
    Raises UnsupportedModel where a site has no relative position.
    """
    captured = inspection.captured(site)
    bias, grid = captured.call.bias, captured.site.query_grid
    if bias is None or not captured.site.key_grid.has_place or not grid.has_place:
        raise UnsupportedModel(f"{site} adds no relative position to its scores; its positions are in the tokens.")
    token = torch.tensor([grid.token_of(place)])
    window, inside = grid.window_of_token[token].unbind(1)
    entry = int(window[0])
    q = captured.call.q[entry][:, inside].float()
    if isinstance(bias, WindowBias):
        bias = WindowBias(bias.table, None, bias.penalty)
    rows = bias.rows(q, entry, inside)[:, 0].float().cpu().expand(captured.call.heads, -1)
    keys = captured.keys(token)[0]
    full = torch.zeros(captured.call.heads, captured.site.key_grid.n_tokens)
    full[:, keys[keys >= 0]] = rows[:, keys >= 0]
    nothing = torch.zeros(captured.call.heads)
    return Heatmap.over(captured.site.key_grid, full, nothing, site=f"{site}, relative position", query=place)


def masks_with_altered_positions(
    inspection: SliceInspection,
    encoding: PositionalEncoding,
    alteration: Alteration,
    prompts: Mapping[int, Prompts],
    seed: int = 0,
) -> dict[int, ObjectEffect]:
    """Every object's mask on the inspected slice with an encoding set to zero, or its places shuffled."""
    change = altered_positions(inspection.model.network, encoding, alteration, seed)
    return masks_under(inspection, change, prompts, encode=True)


def _every(n: int, most: int) -> torch.Tensor:
    """At most so many of n indices, evenly spaced, the first and last among them."""
    return torch.linspace(0, n - 1, min(n, most)).round().long()


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
