"""What is asked of an automatic model in a volume: a voxel, a region or everything, stitched over its windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from napari_medtransformer.attention.captured import CapturedSite
from napari_medtransformer.attention.heatmap import Heatmap, stitch_heatmaps
from napari_medtransformer.attention.quantities import mean_row, received, to_keys
from napari_medtransformer.attention.rollout import input_grid, rollout_vector
from napari_medtransformer.attention.row_numbers import entropy_and_distance_of
from napari_medtransformer.attention.sites import AttentionSite
from napari_medtransformer.attention.token_grid import TokenGrid
from napari_medtransformer.errors import QueryOutOfGrid, UnknownSite
from napari_medtransformer.inspection.cuts import cut_grid, cut_heatmap
from napari_medtransformer.inspection.head_numbers import EntropyAndDistance, HeadNumbers
from napari_medtransformer.inspection.place import SlicePlane
from napari_medtransformer.inspection.queries import (
    ROLLOUT,
    Answer,
    EverythingQuery,
    PrefixQuery,
    Query,
    RegionQuery,
    VoxelQuery,
    asked_words,
    encoder_sites,
)
from napari_medtransformer.inspection.windows import Start, VolumeInspection, Windows, run_window
from napari_medtransformer.progress import Progress, Result, Steps


def ask_in_volume(inspection: VolumeInspection, site: str, query: Query) -> Answer:
    """What every head of a site answers to a query, from the windows that ran; "rollout": all sites together.

    A voxel asks in every window that holds it; a region in every window that touches it; both are means over windows.
    Everything: what each token receives, a mean where windows overlap. Raises QueryOutOfGrid, PointOutsideVolume and
    UnknownSite.
    """
    if site == ROLLOUT:
        names = [known.name for known in encoder_sites(inspection)]
        if not names:
            raise UnknownSite("no site was recorded at which the image attends to itself; rollout needs the encoder's.")
        passes = list(zip(*(inspection.passes[name] for name in names), strict=True))
        return _rollout(inspection, passes, Asking(query, inspection), query)
    inspection.captured(site)  # says what is wrong with a name
    asking = Asking(query, inspection)
    parts = [part for captured in inspection.passes[site] if (part := asking.of(captured)) is not None]
    return asking.answer(site, parts)


def ask_everywhere_steps(inspection: VolumeInspection, sites: Sequence[str], query: Query) -> Steps[list[Answer]]:
    """The same at some sites, from all windows of the volume that hold who asks, one after another: none is kept.

    Of a 2D model: all windows of its slice. Can be stopped between two windows.
    """
    if ROLLOUT in sites:
        raise UnknownSite("rollout is told for the windows of one voxel; choose a site for the whole volume.")
    windows, asking = inspection.windows, Asking(query, inspection)
    starts = asking.starts(windows)
    parts: dict[str, list[Part]] = {site: [] for site in sites}
    for done, start in enumerate(starts):
        yield Progress(done, len(starts), f"window {done + 1} of {len(starts)}")
        probe, _ = run_window(windows, start, sites)
        for site in sites:
            part = asking.of(probe.captured(site))
            parts[site] += [] if part is None else [part]
    yield Result([asking.answer(site, parts[site]) for site in sites])


class Asking:
    """One query, put to one window after another."""

    def __init__(self, query: Query, inspection: VolumeInspection) -> None:
        if not isinstance(query, VoxelQuery | RegionQuery | EverythingQuery | PrefixQuery):
            raise QueryOutOfGrid("an automatic model has no prompts; let a voxel, an organ or every token ask.")
        self._query, self._inspection = query, inspection
        # along the axes that the model sees
        self._place = inspection.seen(query.zyx) if isinstance(query, VoxelQuery) else None
        self._mask: np.ndarray | None = None
        if isinstance(query, RegionQuery):
            mask = np.asarray(query.mask, bool)
            if inspection.is_solid and mask.shape != inspection.volume.shape:
                # a mask of the slice alone
                whole = np.zeros(inspection.volume.shape, bool)
                inspection.plane.of(whole)[...] = inspection.on_slice(mask)
                mask = whole
            self._mask = inspection.as_seen(mask)

    def starts(self, windows: Windows) -> list[Start]:
        """The windows that hold who asks."""
        plane = windows.plane
        here = [s for s in windows.starts if plane is None or s[plane] == self._inspection.plane.index]
        if self._place is None and self._mask is None:
            return here
        found = []
        for start in here:
            placement = windows.placement(start)
            if self._place is not None:
                inside = zip(placement.to_input(self._place), placement.input_shape, strict=True)
                touched = all(-0.5 <= c < n - 0.5 for c, n in inside)
            else:
                low = placement.to_native([-0.5] * len(placement.start))
                high = placement.to_native([n - 0.5 for n in placement.input_shape])
                ends = ((max(0, round(a + 0.5)), max(0, round(b + 0.5))) for a, b in zip(low, high, strict=True))
                part = tuple(slice(start, stop) for start, stop in ends)
                touched = self._mask is not None and bool(self._mask[part].any())
            found += [start] if touched else []
        return found

    def of(self, captured: CapturedSite) -> Part | None:
        """What a window answers; None if it does not hold who asks."""
        site = captured.site
        if not (site.query_grid.has_place and site.key_grid.has_place):
            raise UnknownSite(f"at {site.name} a side has no place in the image.")
        tokens, weights = self.tokens(captured)
        if tokens is None:
            return None
        if isinstance(self._query, EverythingQuery):
            found, size = received(captured), 1.0
        elif len(tokens) == 1:
            rows, keys = captured.rows(tokens)[:, 0], captured.keys(tokens)[0]
            found, size = to_keys(rows, keys, site.key_grid.n_tokens), float(weights.sum())
        else:
            share = torch.zeros(site.query_grid.n_tokens)
            share[tokens] = weights
            found, size = mean_row(captured, share), float(weights.sum())
        place = self._place
        heatmap = Heatmap.over(site.key_grid, *found, site=site.name, query=place)
        numbers = entropy_and_distance_of(captured, tokens, self._inspection.spacing_seen, weights)
        return Part(heatmap, numbers, size, site)

    def answer(self, site: str, parts: Sequence[Part]) -> Answer:
        """The windows' answers as one. Raises QueryOutOfGrid without any."""
        if not parts:
            name = self._query.name if isinstance(self._query, RegionQuery) else "what asks"
            raise QueryOutOfGrid(f"{name} has no voxel in the windows that were run; choose another voxel or label.")
        everything = isinstance(self._query, EverythingQuery)
        sizes = np.array([part.size for part in parts])
        whole = stitch_heatmaps(
            [part.heatmap for part in parts], list(sizes), overlap="mean" if everything else "share"
        )
        shared = torch.from_numpy(sizes / sizes.sum()).float()
        entropy, distance = (shared @ torch.stack([part.numbers[n] for part in parts]) for n in (0, 1))
        nearest = self._nearest(parts).site
        numbers = EntropyAndDistance.of(entropy, distance)
        return in_volume(
            self._inspection, site, nearest.kind, self._query, whole, numbers, lines=nearest.query_grid,
            is_row=not everything,
        )  # fmt: skip

    def tokens(self, captured: CapturedSite) -> tuple[Tensor | None, Tensor]:
        """The tokens of a window that ask, and their weights."""
        grid = captured.site.query_grid
        if isinstance(self._query, EverythingQuery):
            return torch.arange(grid.n_tokens), torch.ones(grid.n_tokens)
        if isinstance(self._query, PrefixQuery):
            if self._query.index >= grid.prefix:
                raise QueryOutOfGrid(f"this site has {grid.prefix} tokens before the image's.")
            return torch.tensor([self._query.index]), torch.ones(1)
        if self._mask is not None:
            voxels = grid.pixels_per_token(self._mask)
            tokens = voxels.nonzero().flatten()
            return (tokens if len(tokens) else None), voxels[tokens]
        if self._place is None or not grid.holds(self._place):
            return None, torch.ones(0)
        return torch.tensor([grid.token_of(self._place)]), torch.ones(1)

    def _nearest(self, parts: Sequence[Part]) -> Part:
        """The window whose middle is nearest to the voxel that asks, or the first."""
        if self._place is None:
            return parts[0]
        place = self._place

        def away(part: Part) -> float:
            placement = part.site.query_grid.placement
            if placement is None:
                return 0.0
            middle = zip(placement.to_input(place), placement.input_shape, strict=True)
            return max(abs(c - (n - 1) / 2) / n for c, n in middle)

        return min(parts, key=away)


@dataclass(frozen=True, eq=False)
class Part:
    """What one window answers. numbers: entropy (nats) and distance (mm) per head, (heads,) each. size: how much of who
    asks the window holds.
    """

    heatmap: Heatmap
    numbers: tuple[Tensor, Tensor]
    size: float
    site: AttentionSite


def in_volume(
    inspection: VolumeInspection,
    site: str,
    kind: str,
    query: Query,
    whole: Heatmap,
    numbers: EntropyAndDistance,
    *,
    lines: TokenGrid,
    is_row: bool = True,
) -> Answer:
    """An answer over all that a model sees: on the inspected slice and, where it sees three axes, the whole beside it.

    lines: the tokens of one window, for its attention windows.
    """
    plane: SlicePlane = inspection.plane
    mark = None
    if isinstance(query, VoxelQuery) and plane.index - 0.5 <= query.zyx[plane.axis] < plane.index + 0.5:
        mark = plane.in_slice(query.zyx)
    solid = inspection.is_solid
    return Answer(
        site=site,
        kind=kind,
        query=query,
        asked=asked_words(query),
        mark_yx=mark,
        heatmap=cut_heatmap(whole, plane.axis, plane.index) if solid else whole,
        numbers=HeadNumbers(lambda: numbers),
        is_row=is_row,
        solid=whole if solid else None,
        plane=plane,
        lines=cut_grid(lines, plane.axis) if solid else lines,
    )


def _rollout(
    inspection: VolumeInspection, passes: Sequence[tuple[CapturedSite, ...]], asking: Asking, query: Query
) -> Answer:
    maps, sizes = [], []
    for layers in passes:
        tokens, weights = asking.tokens(layers[-1])
        if tokens is not None:
            start = torch.zeros(layers[-1].site.query_grid.n_tokens)
            start[tokens] = weights
            values = rollout_vector(layers, start)[None].cpu()
            maps.append(Heatmap.over(input_grid(layers[0]), values, 1 - values.sum(dim=1), site=ROLLOUT, query=None))
            sizes.append(float(weights.sum()))
    if not maps:
        raise QueryOutOfGrid("what asks has no voxel in the windows that were run; choose another voxel or label.")
    whole = stitch_heatmaps(maps, sizes)
    unknown, lines = EntropyAndDistance.unknown(whole.heads), input_grid(passes[0][0])
    return in_volume(inspection, ROLLOUT, ROLLOUT, query, whole, unknown, lines=lines)
