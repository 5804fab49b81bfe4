"""What asks and what is answered: a voxel, a prompt, an organ, CLS or all, at one site or through all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from napari_medtransformer.attention.asking import name_of
from napari_medtransformer.attention.heatmap import Heatmap
from napari_medtransformer.attention.quantities import CapturedSite, mean_row, received, to_keys
from napari_medtransformer.attention.rollout import input_grid, rollout_vector
from napari_medtransformer.attention.row_numbers import distance_from, entropy_and_distance_of
from napari_medtransformer.attention.sites import AttentionSite
from napari_medtransformer.attention.token_grid import TokenGrid
from napari_medtransformer.errors import InvalidOption, QueryOutOfGrid, UnknownSite, in_words
from napari_medtransformer.given import reals, record, text, whole
from napari_medtransformer.inspection.cuts import cut_heatmap
from napari_medtransformer.inspection.head_numbers import EntropyAndDistance, HeadNumbers
from napari_medtransformer.inspection.inspect import SliceInspection
from napari_medtransformer.inspection.place import SlicePlane
from napari_medtransformer.inspection.windows import VolumeInspection
from napari_medtransformer.models.base import PromptToken
from napari_medtransformer.volumes.numbers import numbers

MEAN, MAXIMUM = "mean", "maximum"
"""Names of the two summaries of all heads; a single head is named by its number."""
ROLLOUT = "rollout"
"""Not a site but all of the encoder's together."""


@dataclass(frozen=True)
class VoxelQuery:
    """A voxel asks. zyx: volume coordinates on the inspected slice. Raises QueryOutOfGrid for what are none."""

    zyx: tuple[float, float, float]

    def __post_init__(self) -> None:
        zyx = reals(self.zyx, 3, "a voxel's coordinates (z, y, x)", QueryOutOfGrid)
        object.__setattr__(self, "zyx", zyx)


@dataclass(frozen=True)
class PromptQuery:
    """A token of the decoder asks. index: its number there. token: its name and place."""

    index: int
    token: PromptToken

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", whole(self.index, "a token's number", QueryOutOfGrid, least=0))
        record(self.token, PromptToken, "a PromptToken, one of an inspection's tokens", QueryOutOfGrid)


@dataclass(frozen=True)
class PrefixQuery:
    """A token without a place that comes before the image's, such as CLS or a register, asks."""

    index: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", whole(self.index, "a token's number", QueryOutOfGrid, least=0))


@dataclass(frozen=True, eq=False)
class RegionQuery:
    """Everything inside a mask asks; the answer is the mean over its pixels. mask: (rows, columns) bool."""

    name: str
    mask: np.ndarray

    def __post_init__(self) -> None:
        text(self.name, "a region's name", QueryOutOfGrid)
        object.__setattr__(self, "mask", numbers(self.mask, "a region's mask", QueryOutOfGrid))


@dataclass(frozen=True)
class EverythingQuery:
    """All tokens ask; the answer is what every token receives, the column sums of the attention matrix."""


Query = VoxelQuery | PromptQuery | PrefixQuery | RegionQuery | EverythingQuery
Inspection = SliceInspection | VolumeInspection
"""What went through a model under the probe: a slice, or windows of a volume."""


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to a query at a site, from every head.

    asked: who asked, in words. mark_yx: where that is on the slice, None for a region or a token without a place.
    heatmap: (heads, *grid) over the image. numbers: entropy and distance of the heads. is_row: whether the values are
    shares of a row, which sum to 1 with padding and prefix tokens.

    Where the model sees three axes, heatmap is the slice `plane` of `solid`, (heads, z, y, x). lines: tokens on the
    slice with the attention windows of one sliding window, None where `heatmap.grid` has them.
    """

    site: str
    kind: str
    query: Query
    asked: str
    mark_yx: tuple[float, float] | None
    heatmap: Heatmap
    numbers: HeadNumbers
    is_row: bool = True
    solid: Heatmap | None = None
    plane: SlicePlane | None = None
    lines: TokenGrid | None = None

    @property
    def entropy_nats(self) -> np.ndarray:
        """(heads,) float32, the mean over what asked; nan where there is no such number. Found when first asked for."""
        return self.numbers.found().entropy_nats

    @property
    def distance_mm(self) -> np.ndarray:
        """(heads,) float32, mean distance of what is attended to, the mean over what asked; else as `entropy_nats`."""
        return self.numbers.found().distance_mm

    @property
    def whole(self) -> Heatmap:
        """The map over all axes that the model sees; shares are counted on it."""
        return self.heatmap if self.solid is None else self.solid

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of single heads, "0" first."""
        return tuple(map(str, range(self.heatmap.heads)))

    @property
    def names(self) -> tuple[str, ...]:
        """What can be drawn: the heads and, of several, their mean and maximum."""
        return (*self.heads, MEAN, MAXIMUM) if self.heatmap.heads > 1 else self.heads

    def values(self, name: str) -> np.ndarray:
        """(*grid) float32: one head's attention, or the mean or maximum over heads."""
        return over_heads(self.heatmap.values, name)

    def on_pixels(self, name: str, *, smooth: bool) -> np.ndarray:
        """The same on the slice's own pixels, (rows, columns)."""
        if self.solid is not None and self.plane is not None and not smooth:
            cut = cut_heatmap(one_map(self.solid, name), self.plane.axis, self.plane.index, smooth=False)
            return cut.on_pixels(smooth=False)[0]
        return one_map(self.heatmap, name).on_pixels(smooth=smooth)[0]

    def peak(self, name: str) -> tuple[float, ...]:
        """The centre of the token with the highest value, along the axes of `whole`: (y, x) or (z, y, x) voxels."""
        values, whole = over_heads(self.whole.values, name), self.whole
        place = np.unravel_index(int(np.argmax(values)), values.shape)
        return tuple(t + s * float(i) for i, s, t in zip(place, whole.scale, whole.translate, strict=True))


def over_heads(values: np.ndarray, name: str) -> np.ndarray:
    """One head of (heads, …), or the mean or maximum of all. Raises InvalidOption for another name."""
    known = isinstance(name, str)
    if known and name == MEAN:
        return np.asarray(values.mean(axis=0))
    if known and name == MAXIMUM:
        return np.asarray(values.max(axis=0))
    if not known or not name.isdecimal() or int(name) >= len(values):
        raise InvalidOption(
            f"a map is that of a head, 0 to {len(values) - 1}, {MEAN} or {MAXIMUM}, not {in_words(name)}."
        )
    return np.asarray(values[int(name)])


def one_map(heatmap: Heatmap, name: str) -> Heatmap:
    """The heatmap of one head, or of the mean or maximum of all, as a heatmap of one head."""
    return replace(
        heatmap,
        values=over_heads(heatmap.values, name)[None],
        prefix_mass=over_heads(heatmap.prefix_mass, name)[None],
        padding_mass=over_heads(heatmap.padding_mass, name)[None],
    )


def drawable_sites(inspection: Inspection) -> list[AttentionSite]:
    """The sites with a side that has a place in the image, in the order in which they run."""
    return [s for s in inspection.sites if s.query_grid.has_place or s.key_grid.has_place]


def encoder_sites(inspection: Inspection) -> list[AttentionSite]:
    """The sites at which the image attends to itself."""
    return [s for s in inspection.sites if s.query_grid.has_place and s.key_grid.has_place]


def prompt_queries(inspection: SliceInspection) -> list[PromptQuery]:
    """The decoder's tokens of the inspected prompts, in its order; empty places are left out. Raises InvalidOption."""
    record(inspection, SliceInspection, "a SliceInspection, as inspect_slice gives one")
    return [PromptQuery(i, t) for i, t in enumerate(inspection.tokens) if not t.name.startswith("no ")]


def default_prompt_query(inspection: SliceInspection) -> PromptQuery:
    """The newest token with a place: the last point, or a box's corner. Raises QueryOutOfGrid without prompts."""
    queries = prompt_queries(inspection)
    points = [q for q in queries if q.token.name.startswith("point")]
    if not queries:
        raise QueryOutOfGrid("no prompt was decoded on this slice; give a point or a box first.")
    return (points or queries)[-1]


def check_inspection(inspection: Inspection) -> None:
    """Raises InvalidOption for what was not made by inspect_slice or inspect_windows."""
    if not isinstance(inspection, Inspection):
        raise InvalidOption(
            f"an inspection, as inspect_slice and inspect_windows give one, was expected, not {in_words(inspection)}."
        )


def check_answer(answer: Answer) -> Answer:
    """`answer`, if it is one. Raises InvalidOption."""
    return record(answer, Answer, "an Answer, as ask gives one")


def answers_of(answers: Sequence[Answer]) -> list[Answer]:
    """Several answers as a list. Raises InvalidOption."""
    if not isinstance(answers, Iterable):
        raise InvalidOption(f"a list of answers was expected, not {in_words(answers)}.")
    return [check_answer(answer) for answer in answers]


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
        from napari_medtransformer.inspection.volume_queries import ask_in_volume

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


def asked_words(query: Query) -> str:
    """Who asks, as people read it."""
    if isinstance(query, VoxelQuery):
        return "voxel z {:.0f}, y {:.0f}, x {:.0f}".format(*query.zyx)
    if isinstance(query, PromptQuery):
        return query.token.name
    if isinstance(query, RegionQuery):
        return query.name
    return "every token" if isinstance(query, EverythingQuery) else f"prefix token {query.index}"
