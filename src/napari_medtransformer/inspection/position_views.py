"""The pictures that can be made of a positional encoding, by name: arrays, their limits and what they mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_medtransformer.attention.positions import (
    PositionalEncoding,
    PositionTable,
    RelativeBias,
    RelativeVectors,
    sinusoidal,
)
from napari_medtransformer.errors import UnsupportedModel
from napari_medtransformer.inspection.positions import (
    bias_around,
    bias_pictures,
    channels,
    encodings_of,
    gram,
    mosaic,
    offsets_similarity,
    similarity_heatmap,
)
from napari_medtransformer.inspection.queries import Inspection, encoder_sites

HERE = "this position with all others"
MOSAIC = "every position with every other"
CHANNELS = "channels"
VECTORS = "the matrix: places × numbers"
GRAM = "P·Pᵀ"
INTERPOLATED = "before and after interpolation"
OFFSETS = "offset with offset"
HEADS = "bias of every head over offsets"
AROUND = "bias that this position gives, last site"

_SINUSOIDAL_WIDTH = 128
_GAP = 1


@dataclass(frozen=True, eq=False)
class PositionView:
    """A picture. values: (rows, columns), nan where there is nothing. limits: of the colours; around 0 if signed."""

    values: np.ndarray
    limits: tuple[float, float]
    signed: bool
    explained: str


def shown_encodings(inspection: Inspection) -> list[PositionalEncoding]:
    """The model's encodings, and sines and cosines on the same token grid to compare them with."""
    found = encodings_of(inspection)
    sites = encoder_sites(inspection)
    grid = sites[-1].query_grid.shape if sites else (16, 16)
    # a sine and a cosine for every axis
    return [*found, sinusoidal(grid, _SINUSOIDAL_WIDTH - _SINUSOIDAL_WIDTH % (2 * len(grid)))]


def views_of(encoding: PositionalEncoding) -> list[str]:
    """The names of the pictures that an encoding has."""
    if isinstance(encoding, PositionTable):
        return [HERE, MOSAIC, CHANNELS, VECTORS, GRAM, INTERPOLATED]
    return [OFFSETS, INTERPOLATED, AROUND] if isinstance(encoding, RelativeVectors) else [HEADS, AROUND]


def position_view(
    inspection: Inspection, encoding: PositionalEncoding, view: str, place: tuple[float, ...]
) -> PositionView:
    """One of `views_of`. place: the position that was clicked, in pixels of the slice or, where the model sees three
    axes, voxels of the volume, whose slice is shown. Raises UnsupportedModel and QueryOutOfGrid.
    """
    if view == AROUND:
        return _around(inspection, place)
    if isinstance(encoding, RelativeBias):
        pictures = bias_pictures(encoding)
        return _signed(
            tiled(pictures), f"{len(pictures)} heads; zero offset is in the centre of each, z from left to right."
        )
    if isinstance(encoding, RelativeVectors):
        shown = encoding if view == OFFSETS else encoding.resized(2 * encoding.size)
        values = offsets_similarity(shown)
        return PositionView(
            values, (-1, 1), True, f"Cosine similarity of {len(values)} offsets; the centre is offset 0."
        )
    return _of_table(inspection, encoding, view, place)


def _of_table(inspection: Inspection, table: PositionTable, view: str, place: tuple[float, ...]) -> PositionView:
    if view == HERE:
        grid = encoder_sites(inspection)[-1].query_grid
        values = similarity_heatmap(table, grid, place).values
        token = grid.grid_index(grid.token_of(place))
        text = f"Cosine similarity of the position {token} with all others."
        return PositionView(_flat(inspection, values, token)[0], (-1, 1), True, text)
    if view == MOSAIC:
        text = "A tile per position, lying as the positions do: its cosine similarity with all of them."
        return PositionView(mosaic(table), (-1, 1), True, text)
    if view == CHANNELS:
        found = channels(table)
        return _signed(tiled(found), f"The {len(found)} numbers that differ most over positions, each over the grid.")
    if view == VECTORS:
        return _signed(table.vectors.numpy(), "A row per position (row-major), a column per number of its vector.")
    if view == GRAM:
        return _signed(gram(table), "Inner products of all positions; blocks are rows of the grid.")
    larger = table.resized(tuple(2 * n for n in table.grid))
    before, after = channels(table, 6), channels(larger, 6)
    enlarged = np.kron(before, np.ones((1, 2, 2))) if len(table.grid) > 1 else before
    both = np.concatenate([enlarged, after]) if enlarged.shape[1:] == after.shape[1:] else after
    text = f"Six numbers of the table on {_by(table.grid)} positions, then interpolated to {_by(larger.grid)}."
    return _signed(tiled(both, 6), text)


def _around(inspection: Inspection, place: tuple[float, ...]) -> PositionView:
    sites = [site for site in encoder_sites(inspection) if inspection.captured(site).call.bias is not None]
    if not sites:
        raise UnsupportedModel(f"{inspection.model.card.name} adds no relative position to its attention scores.")
    found = bias_around(inspection, sites[-1].name, place)
    token = found.grid.grid_index(found.grid.token_of(place))
    text = f"What position alone adds to the scores of this query at {sites[-1].name}, a tile per head."
    return _signed(tiled(_flat(inspection, found.values, token)), text)


def _flat(inspection: Inspection, values: np.ndarray, token: tuple[int, ...]) -> np.ndarray:
    """(n, rows, columns): of (n, z, y, x) values the tokens on the inspected plane, those of a slice as they are."""
    return values if values.ndim == 3 else values.take(token[inspection.plane.axis], inspection.plane.axis + 1)


def tiled(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """(n, rows, columns) images side by side in one, with a gap of nan between them; about as wide as high."""
    n, rows, width = images.shape
    across = columns or max(1, min(n, round(np.sqrt(n * rows / width))))
    down = -(-n // across)
    whole = np.full((down * (rows + _GAP) - _GAP, across * (width + _GAP) - _GAP), np.nan, np.float32)
    for place, image in enumerate(images):
        y, x = divmod(place, across)
        top, left = y * (rows + _GAP), x * (width + _GAP)
        whole[top : top + rows, left : left + width] = image
    return whole


def _signed(values: np.ndarray, text: str) -> PositionView:
    largest = float(np.nanmax(np.abs(values))) or 1.0
    return PositionView(np.asarray(values, np.float32), (-largest, largest), True, text)


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
