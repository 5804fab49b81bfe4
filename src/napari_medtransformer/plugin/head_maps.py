"""What a model's heads attend to on one slice: probed once, asked often. No Qt; runs in the worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from napari_medtransformer.inspection import AttentionProbe, AttentionSite, Heatmap
from napari_medtransformer.models.base import ImageEmbedding, PromptableModel
from napari_medtransformer.plugin.layer_volume import SlicePoint
from napari_medtransformer.plugin.pictures import fitting_size, resampled, thumbnail
from napari_medtransformer.prompting.predictor import make_prompts
from napari_medtransformer.prompting.prompts import BoxPrompt, PointPrompt, Prompt
from napari_medtransformer.volumes import Volume, apply_window

MEAN, MAXIMUM = "mean", "maximum"
"""Names of the two summaries of all heads; a single head is named by its number."""
ROLLOUT = "rollout"
"""Not a site but all of the encoder's together."""

# Tokens after the points in the prompt side of a family's mask decoder: box corners, or their stand-ins.
_TOKENS_AFTER_POINTS: dict[str, Callable[[bool], int]] = {
    "click": lambda has_box: 2,
    "sam": lambda has_box: 2 if has_box else 1,
}


@dataclass(frozen=True, eq=False)
class ProbedSlice:
    """One encoded slice with what its encoder's sites saw.

    anatomy: (H, W) in [0, 1], as the model saw it. pixel_mm: of rows and columns.
    """

    model: PromptableModel
    probe: AttentionProbe
    embedding: ImageEmbedding
    anatomy: np.ndarray
    pixel_mm: tuple[float, float]


@dataclass(frozen=True, eq=False)
class ProbedPrompts:
    """The decoder's sites for the prompts given on a probed slice."""

    probe: AttentionProbe
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True, eq=False)
class HeadMaps:
    """The answer to one query at one site.

    query: the voxel asked about. asked_at: (row, column) of what asked: that voxel, or at a decoder's site the newest
    point prompt. heatmap: what every head attends to. entropy_nats, distance_mm: (heads,), of that one row.
    names: of the maps that can be drawn, heads first.
    """

    site: str
    kind: str
    query: SlicePoint
    asked_at: tuple[float, ...]
    heatmap: Heatmap
    entropy_nats: np.ndarray
    distance_mm: np.ndarray
    pixel_mm: tuple[float, float]
    anatomy: np.ndarray
    names: tuple[str, ...]

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of single heads."""
        return tuple(name for name in self.names if name.isdigit())

    def values(self, name: str) -> np.ndarray:
        """(tokens along rows, along columns): one head's attention, or the mean or maximum over heads."""
        return _over_heads(self.heatmap.values, name)

    def on_pixels(self, name: str, *, smooth: bool) -> np.ndarray:
        """The same on the slice's own pixels, (H, W)."""
        return _over_heads(self.heatmap.on_pixels(smooth=smooth), name)

    def share_inside(self, name: str, mask: np.ndarray) -> float:
        """The share of a map's attention, in [0, 1], that lies inside a mask of the slice, (H, W) bool."""
        pixels = self.on_pixels(name, smooth=False)
        return float(pixels[mask].sum() / max(float(pixels.sum()), np.finfo(np.float32).tiny))

    def peak_voxel(self, name: str) -> tuple[int, int, int]:
        """The voxel (z, y, x) at the centre of the token with the highest value."""
        pixels = self.on_pixels(name, smooth=False)
        token = pixels == pixels.max()
        row, column = (round(float(where.mean())) for where in np.nonzero(token))
        z, y, x = np.insert([row, column], self.query.axis, self.query.voxel[self.query.axis])
        return int(z), int(y), int(x)


def probe_slice(
    model: PromptableModel, volume: Volume, window: tuple[float, float], axis: int, index: int
) -> ProbedSlice:
    """Encode a slice under a probe that keeps every site. window: (low, high) of what the model sees."""
    anatomy = apply_window(np.take(volume.data, index, axis), window)
    rows_mm, columns_mm = (mm for a, mm in enumerate(volume.spacing) if a != axis)
    with AttentionProbe(model) as probe:
        embedding = model.encode(anatomy, (rows_mm, columns_mm))
    return ProbedSlice(model, probe, embedding, anatomy, (rows_mm, columns_mm))


def probe_prompts(probed: ProbedSlice, prompts: tuple[Prompt, ...]) -> ProbedPrompts | None:
    """Decode the point prompts of one object on a probed slice; None where there is no point to ask."""
    points = [prompt for prompt in prompts if isinstance(prompt, PointPrompt)]
    boxes = [prompt for prompt in prompts if isinstance(prompt, BoxPrompt)]
    if not points or probed.model.card.family not in _TOKENS_AFTER_POINTS:
        return None
    given = make_prompts(
        probed.anatomy.shape,
        [point.on_slice() for point in points],
        [int(point.positive) for point in points],
        boxes[-1].on_slice() if boxes else None,
    )
    with AttentionProbe(probed.model) as probe:
        probed.model.decode(probed.embedding, given)
    return ProbedPrompts(probe, prompts)


def sites_of(probed: ProbedSlice, decoded: ProbedPrompts | None) -> tuple[tuple[str, str], ...]:
    """(name, label) of every site whose attention lies over the image, in the order in which they run."""
    encoder = [site for site in probed.probe.sites if site.query_grid.has_place and site.key_grid.has_place]
    found = [(site.name, label(site)) for site in encoder]
    if encoder:
        found.append((ROLLOUT, f"rollout · all {len(encoder)} encoder blocks"))
    if decoded is not None:
        found += [(site.name, label(site)) for site in decoded.probe.sites if site.kind == "prompt-to-image"]
    return tuple(found)


def ask(probed: ProbedSlice, decoded: ProbedPrompts | None, site: str, query: SlicePoint) -> HeadMaps:
    """What every head of a site attends to: from a voxel, or at a decoder's site from the newest point prompt."""
    here = tuple(p for axis, p in enumerate(query.position_zyx) if axis != query.axis)
    if site == ROLLOUT:
        heatmap, kind = probed.probe.rollout(here), ROLLOUT
    elif decoded is not None and site in {s.name for s in decoded.probe.sites}:
        found = decoded.probe.site(site)
        points = [prompt for prompt in decoded.prompts if isinstance(prompt, PointPrompt)]
        after = _TOKENS_AFTER_POINTS[probed.model.card.family](len(points) < len(decoded.prompts))
        heatmap, kind = decoded.probe.heatmap(site, found.query_grid.n_tokens - after - 1), found.kind
        here = points[-1].on_slice()
    else:
        heatmap, kind = probed.probe.heatmap(site, here), probed.probe.site(site).kind
    return HeadMaps(
        site=site,
        kind=kind,
        query=query,
        asked_at=here,
        heatmap=heatmap,
        entropy_nats=_entropy(heatmap),
        distance_mm=_mean_distance(heatmap, here, probed.pixel_mm),
        pixel_mm=probed.pixel_mm,
        anatomy=probed.anatomy,
        names=(*map(str, range(heatmap.heads)), MEAN, MAXIMUM) if heatmap.heads > 1 else ("0",),
    )


def head_looking_most_at(probed: ProbedSlice, query: SlicePoint, mask: np.ndarray) -> tuple[str, str]:
    """(site, head) of the encoder with the largest share of its attention from a voxel inside a mask, (H, W) bool."""
    sites = [site.name for site in probed.probe.sites if site.query_grid.has_place and site.key_grid.has_place]
    answers = [ask(probed, None, site, query) for site in sites]
    shares = [(maps.share_inside(head, mask), maps.site, head) for maps in answers for head in maps.heads]
    _, site, head = max(shares, key=lambda share: share[0])
    return site, head


def pictures(
    maps: HeadMaps, *, side: int, colour_map: str, percentile: float, upside_down: bool
) -> dict[str, np.ndarray]:
    """A thumbnail (rows, columns, 3) uint8 of every map, in true proportions, at most `side` pixels long."""
    extent = tuple(n * mm for n, mm in zip(maps.anatomy.shape, maps.pixel_mm))
    grey = resampled(maps.anatomy, fitting_size(extent, side, side))
    pixels = maps.heatmap.on_pixels(smooth=True)
    style = {"colour_map": colour_map, "percentile": percentile, "upside_down": upside_down}
    return {name: thumbnail(grey, _over_heads(pixels, name), **style) for name in maps.names}


def label(site: AttentionSite) -> str:
    """A site in one line."""
    kind = {"global": "global", "window": "windows", "prompt-to-image": "click → image"}.get(site.kind, site.kind)
    return f"{site.name.split('.prompt')[0]} · {kind} · {site.heads} heads"


def _over_heads(maps: np.ndarray, name: str) -> np.ndarray:
    if name == MEAN:
        return maps.mean(axis=0)
    if name == MAXIMUM:
        return maps.max(axis=0)
    return maps[int(name)]


def _entropy(heatmap: Heatmap) -> np.ndarray:
    """(heads,) entropy of the row over the tokens of the image, in nats."""
    rows = heatmap.values.reshape(heatmap.heads, -1).astype(np.float64)
    shares = rows / np.maximum(rows.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return -np.sum(np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1)), 0), axis=1)


def _mean_distance(heatmap: Heatmap, query: tuple[float, ...], pixel_mm: tuple[float, float]) -> np.ndarray:
    """(heads,) attention-weighted distance from the query's pixel to the token centres, in mm."""
    axes = [
        (start + size * np.arange(n) - q) * mm
        for n, size, start, q, mm in zip(heatmap.shape[1:], heatmap.scale, heatmap.translate, query, pixel_mm)
    ]
    distance = np.hypot(*np.meshgrid(*axes, indexing="ij"))
    weights = heatmap.values.reshape(heatmap.heads, -1)
    return (weights @ distance.ravel()) / np.maximum(weights.sum(axis=1), np.finfo(np.float32).tiny)
