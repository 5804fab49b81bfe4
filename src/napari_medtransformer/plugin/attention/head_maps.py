"""What the worker finds for the Attention dock: an inspected slice, an answer, and pictures of it. No Qt."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_medtransformer.inspection import SliceInspection, inspect_slice
from napari_medtransformer.inspection.answering import ask
from napari_medtransformer.inspection.maps import on_picture
from napari_medtransformer.inspection.matrix import head_matrix, matrix_steps
from napari_medtransformer.inspection.queries import (
    ROLLOUT,
    Answer,
    EverythingQuery,
    Inspection,
    Query,
    RegionQuery,
    drawable_sites,
    encoder_sites,
    one_map,
)
from napari_medtransformer.inspection.volume_queries import ask_everywhere_steps
from napari_medtransformer.inspection.windows import VolumeInspection, inspect_windows_steps
from napari_medtransformer.models.base import AutomaticModel, PromptableModel, Prompts
from napari_medtransformer.plugin.attention.pictures import fitting_size, resampled, thumbnails
from napari_medtransformer.progress import Progress, Result, Steps
from napari_medtransformer.segmentation.window_plan import plan_windows
from napari_medtransformer.volumes import Volume

PICTURE = 208
"""Pixels of the longer side of a thumbnail."""
CELL = 88
"""Pixels of the longer side of a cell of the matrix."""

KINDS = {
    "global": "global",
    "window": "windows",
    "prompt-to-image": "prompt → voxels",
    "image-to-prompt": "voxels → prompt",
    "prompt": "prompts",
}


@dataclass(frozen=True, eq=False)
class SiteEntry:
    """A site as people choose it."""

    name: str
    kind: str
    heads: str
    grid: str
    window: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Wish:
    """What is to be found. make_query: from what was inspected, whose prompts name the decoder's tokens.

    about: (what is looked at, axis, index, prompts) that the answer will be about. site: "" for the last one of the
    encoder. colour_map, percentile: of the thumbnails. known: what was inspected for the last answer, None if that
    was about another slice or volume.
    """

    about: tuple[Any, ...]
    volume: Volume
    axis: int
    make_query: Callable[[Any], Query]
    site: str
    colour_map: str
    percentile: float
    known: Inspection | None


@dataclass(frozen=True, eq=False, kw_only=True)
class SliceWish(Wish):
    """In the model that answers clicks. window: of the intensities it sees. index: of the slice.

    asked: gives the prompts of one object there, None without any. same_prompts: whether `known` has them already.
    pictured: whether there are to be thumbnails.
    """

    model: PromptableModel
    window: tuple[float, float]
    index: int
    asked: Callable[[], Prompts] | None
    same_prompts: bool
    pictured: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class WindowWish(Wish):
    """In the windows of an automatic model. zyx: the voxel that was asked. axis: of the plane that is shown."""

    model: AutomaticModel
    zyx: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Seen:
    """What was found. about: as in the wish. pictures: a thumbnail (rows, columns, 3) uint8 of every map, by name.

    is_pictured: whether the pictures are this answer's; while the cursor is followed they may be an earlier one's.
    seconds: how long the question took, thumbnails left out.
    """

    about: tuple[Any, ...]
    inspection: Inspection
    sites: tuple[SiteEntry, ...]
    answer: Answer
    pictures: Mapping[str, np.ndarray]
    is_pictured: bool = True
    seconds: float = math.inf


def look(wish: SliceWish) -> Seen:
    """Encode the slice under the probe unless it is known, decode its prompts unless they are the same, and ask."""
    begun = time.perf_counter()
    inspection = wish.known if isinstance(wish.known, SliceInspection) else None
    if inspection is None:
        inspection = inspect_slice(wish.model, wish.volume, wish.axis, wish.index, window=wish.window)
    if inspection is not wish.known or not wish.same_prompts:
        bare = replace(inspection, prompts=None, prediction=None, decoded=None)
        inspection = bare if wish.asked is None else bare.with_prompts(wish.asked())
    sites = sites_of(inspection)
    names = [site.name for site in sites]
    # The last encoder block answers until the user chooses: it is what the decoder works with.
    encoder = [site.name for site in encoder_sites(inspection)]
    chosen = wish.site if wish.site in names else (encoder or names)[-1]
    answer = ask(inspection, chosen, wish.make_query(inspection))
    seconds = time.perf_counter() - begun
    if not wish.pictured:
        return Seen(wish.about, inspection, sites, answer, {}, is_pictured=False, seconds=seconds)
    return Seen(wish.about, inspection, sites, answer, _pictures(wish, inspection, answer), seconds=seconds)


def look_steps(wish: WindowWish) -> Steps[Seen]:
    """Run the windows that hold the voxel under the probe unless they did, and ask; can be stopped between windows.

    An organ, or everything, asks in all windows of the volume that hold it.
    """
    inspection = _windows_known(wish)
    if inspection is None:
        windows = plan_windows(wish.model, wish.volume, plane=wish.axis)
        for step in inspect_windows_steps(windows, wish.zyx, wish.axis):
            if isinstance(step, Result):
                inspection = step.value
            else:
                yield step
    sites = sites_of(inspection)
    names = [site.name for site in sites]
    chosen = wish.site if wish.site in names else encoder_sites(inspection)[-1].name
    query = wish.make_query(inspection)
    answer = None
    if asks_everywhere(query) and chosen != ROLLOUT:
        for asked in ask_everywhere_steps(inspection, [chosen], query):
            if isinstance(asked, Result):
                answer = asked.value[0]
            else:
                yield asked
    answer = answer or ask(inspection, chosen, query)
    yield Result(Seen(wish.about, inspection, sites, answer, _pictures(wish, inspection, answer)))


def _pictures(wish: Wish, inspection: Inspection, answer: Answer) -> dict[str, np.ndarray]:
    return pictures_of(inspection, answer, PICTURE, wish.colour_map, wish.percentile)


def asks_everywhere(query: Query) -> bool:
    """Whether what asks may lie in other windows than the voxel's."""
    return isinstance(query, RegionQuery | EverythingQuery)


def _windows_known(wish: WindowWish) -> VolumeInspection | None:
    """The windows that ran, seen on the voxel's slice, if they are those that hold it."""
    known = wish.known
    if not isinstance(known, VolumeInspection) or known.model is not wish.model or known.volume is not wish.volume:
        return None
    if not known.holds(wish.zyx) or not (known.is_solid or known.windows.plane == wish.axis):
        return None
    return known.at(wish.zyx, wish.axis)


def matrix_of(
    inspection: Inspection, query: Query, colour_map: str, percentile: float
) -> Steps[tuple[list[Answer], list[list[np.ndarray]]]]:
    """Every site's answer and a small picture of every head; can be stopped between sites or windows."""
    if isinstance(inspection, VolumeInspection) and asks_everywhere(query):
        steps = ask_everywhere_steps(inspection, [site.name for site in encoder_sites(inspection)], query)
    else:
        steps = matrix_steps(inspection, query)
    for step in steps:
        if isinstance(step, Result):
            yield Result((step.value, cells_of(inspection, step.value, colour_map, percentile)))
        elif isinstance(step, Progress):
            yield step


def sites_of(inspection: Inspection) -> tuple[SiteEntry, ...]:
    """Every site with a place in the image, in the order in which they run, and the encoder's rollout."""
    entries = []
    encoder = encoder_sites(inspection)
    for site in drawable_sites(inspection):
        if site.kind in ("prompt-to-image", "image-to-prompt") and not inspection.tokens:
            continue
        grid = site.key_grid if site.key_grid.has_place else site.query_grid
        window = " × ".join(map(str, grid.window)) if grid.window is not None else "–"
        shifted = f", shifted {' × '.join(map(str, grid.shift))}" if any(grid.shift) else ""
        entries.append(
            SiteEntry(site.name, KINDS[site.kind], str(site.heads), " × ".join(map(str, grid.shape)), window + shifted)
        )
        if encoder and site.name == encoder[-1].name:
            last = " × ".join(map(str, encoder[0].key_grid.shape))
            entries.append(SiteEntry(ROLLOUT, f"all {len(encoder)} blocks", "mean", last, "–"))
    return tuple(entries)


def pictures_of(
    inspection: Inspection, answer: Answer, side: int, colour_map: str, percentile: float
) -> dict[str, np.ndarray]:
    """A thumbnail of every map of an answer, in true proportions, at most `side` pixels long.

    Entropy and distance of its heads, which stand beside them, are found as well, so that the window need not.
    """
    answer.numbers.found()
    grey = grey_picture(inspection, side)
    maps = np.concatenate([on_picture(one_map(answer.heatmap, name), grey.shape) for name in answer.names])
    turned = inspection.plane.upside_down
    drawn = thumbnails(grey, maps, colour_map=colour_map, percentile=percentile, upside_down=turned)
    return dict(zip(answer.names, drawn, strict=True))


def grey_picture(inspection: Inspection, side: int) -> np.ndarray:
    """The slice as the model saw it, in true proportions, at most `side` pixels long: (rows, columns) in [0, 1]."""
    kept = inspection.small_images
    if side not in kept:
        extent = [n * mm for n, mm in zip(inspection.image.shape, inspection.spacing_mm, strict=True)]
        kept[side] = resampled(inspection.image, fitting_size(extent, side, side))
    return kept[side]


def cells_of(
    inspection: Inspection, answers: Sequence[Answer], colour_map: str, percentile: float
) -> list[list[np.ndarray]]:
    """A small picture of every head of every answer: the matrix's cells."""
    rows = []
    for answer in answers:
        drawn = pictures_of(inspection, answer, CELL, colour_map, percentile)
        rows.append([drawn[name] for name in answer.heads])
    return rows


def head_looking_most_at(inspection: Inspection, query: Query, mask: np.ndarray) -> tuple[str, str]:
    """(site, head) of the encoder with the largest share of its attention inside a mask, (rows, columns) bool."""
    answers = [ask(inspection, site.name, query) for site in encoder_sites(inspection)]
    shares = head_matrix(answers, "share", mask)
    row, column = np.unravel_index(int(np.nanargmax(shares.values)), shares.values.shape)
    return shares.sites[int(row)], str(int(column))


def other_answer(
    model: PromptableModel, inspection: SliceInspection, query: Query, site: str
) -> tuple[SliceInspection, Answer]:
    """The same slice and query in another model: at the site of that name or, if it has none, the encoder's last."""
    plane = inspection.plane
    other = inspect_slice(
        model, inspection.volume, plane.axis, plane.index, window=inspection.window, prompts=inspection.prompts
    )
    names = [entry.name for entry in sites_of(other)]
    chosen = site if site in names else encoder_sites(other)[-1].name
    return other, ask(other, chosen, query)
