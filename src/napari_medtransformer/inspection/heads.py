"""One voxel's attention in numbers: what every head of every site does with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from napari_medtransformer.attention.heatmap import Heatmap
from napari_medtransformer.attention.quantities import to_keys
from napari_medtransformer.attention.sites import AttentionSite
from napari_medtransformer.errors import UnknownSite
from napari_medtransformer.inspection.inspect import SliceInspection
from napari_medtransformer.inspection.place import PlacedHeatmap, place_in_volume


@dataclass(frozen=True, eq=False)
class SiteRows:
    """The attention rows of one query at one site.

    rows: (heads, keys) float32, each sums to 1. keys: (keys,) tokens of the site's key grid, -1 for padding.
    """

    site: AttentionSite
    rows: np.ndarray
    keys: np.ndarray


@dataclass(frozen=True)
class HeadReport:
    """What one head does with the query.

    row_sum: of the row of attention, 1 within rounding. entropy: of the row, nats. distance_mm: mean distance of what
    it attends to, weighted by attention, between token centres; None if a side has no place in the image. top_zyx: the
    volume coordinate of the centre of the token it attends to most, None for a token without a place or of the
    padding. top_share: the attention that this token gets.
    """

    site: str
    kind: str
    head: int
    row_sum: float
    entropy: float
    distance_mm: float | None
    top_zyx: tuple[float, float, float] | None
    top_share: float


def site_rows(
    inspection: SliceInspection,
    site: AttentionSite,
    query_zyx: tuple[float, float, float],
    token: int | None = None,
) -> SiteRows:
    """The rows of a voxel at a site; where the queries are prompt tokens, those of `token`, or the mean of all.

    Raises PointOutsideVolume for a voxel off the slice and QueryOutOfGrid for a token that is not there.
    """
    grid = site.query_grid
    if grid.has_place:
        tokens = [grid.token_of(inspection.plane.in_slice(query_zyx))]
    else:
        tokens = list(range(grid.n_tokens)) if token is None else [token]
    rows = inspection.probe.rows(site, tokens).mean(dim=1)
    return SiteRows(site, rows.numpy(), inspection.probe.keys(site, tokens)[0].numpy())


def site_heatmap(
    inspection: SliceInspection,
    site: AttentionSite,
    query_zyx: tuple[float, float, float],
    token: int | None = None,
) -> PlacedHeatmap:
    """The same as a heatmap in the volume. Raises UnknownSite if the site's keys have no place in the image."""
    if not site.key_grid.has_place:
        drawable = [other.name for other in inspection.sites if other.key_grid.has_place]
        raise UnknownSite(
            f"site {site.name!r} attends to prompt tokens, which have no place in the image; "
            f"draw one of {', '.join(drawable) or 'another model'}."
        )
    found = site_rows(inspection, site, query_zyx, token)
    values, padding = to_keys(torch.from_numpy(found.rows), torch.from_numpy(found.keys), site.key_grid.n_tokens)
    query = inspection.plane.in_slice(query_zyx) if site.query_grid.has_place else token
    heatmap = Heatmap.over(site.key_grid, values, padding, site=site.name, query=query)
    return place_in_volume(heatmap, inspection.plane, inspection.volume)


def report_heads(
    inspection: SliceInspection,
    query_zyx: tuple[float, float, float],
    *,
    sites: Iterable[AttentionSite] | None = None,
    token: int | None = None,
) -> list[HeadReport]:
    """Every head of the given sites, or of all that ran, for one voxel. token: as for `site_rows`."""
    reports: list[HeadReport] = []
    for site in inspection.sites if sites is None else sites:
        found = site_rows(inspection, site, query_zyx, token)
        distances = _distances_mm(inspection, found, query_zyx)
        for head, row in enumerate(found.rows.astype(np.float64)):
            best = int(row.argmax())
            positive = row[row > 0]
            reports.append(
                HeadReport(
                    site=site.name,
                    kind=site.kind,
                    head=head,
                    row_sum=float(row.sum()),
                    entropy=float(-(positive * np.log(positive)).sum()),
                    distance_mm=None if distances is None else _weighted_mean(distances, row),
                    top_zyx=_centre_zyx(inspection, site, int(found.keys[best])),
                    top_share=float(row[best]),
                )
            )
    return reports


def _distances_mm(
    inspection: SliceInspection, found: SiteRows, query_zyx: tuple[float, float, float]
) -> np.ndarray | None:
    """(keys,) from the query's token to each key's, between centres; nan for keys without a place."""
    grid, key_grid = found.site.query_grid, found.site.key_grid
    if not (grid.has_place and key_grid.has_place):
        return None
    start = np.array(grid.native_centre(grid.token_of(inspection.plane.in_slice(query_zyx))))
    placed = found.keys >= key_grid.prefix
    index = np.stack(np.unravel_index(np.where(placed, found.keys - key_grid.prefix, 0), key_grid.shape), axis=-1)
    centres = np.array(key_grid.translate) + np.array(key_grid.scale) * index
    distances = np.linalg.norm((centres - start) * np.array(inspection.spacing_mm), axis=-1)
    return np.where(placed, distances, np.nan)


def _weighted_mean(distances: np.ndarray, row: np.ndarray) -> float | None:
    known = ~np.isnan(distances)
    mass = row[known].sum()
    return float((distances[known] * row[known]).sum() / mass) if mass > 0 else None


def _centre_zyx(inspection: SliceInspection, site: AttentionSite, token: int) -> tuple[float, float, float] | None:
    grid = site.key_grid
    if not grid.has_place or token < grid.prefix:
        return None
    y, x = grid.native_centre(token)
    rows, columns = inspection.plane.axes
    shape = inspection.volume.shape
    inside = -0.5 <= y < shape[rows] - 0.5 and -0.5 <= x < shape[columns] - 0.5
    return inspection.plane.in_volume((y, x)) if inside else None
