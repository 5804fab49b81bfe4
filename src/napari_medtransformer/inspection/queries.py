"""What can ask, a voxel, a prompt, an organ, CLS or all, and what an answer is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_medtransformer.attention.heatmap import Heatmap
from napari_medtransformer.attention.sites import AttentionSite
from napari_medtransformer.attention.token_grid import TokenGrid
from napari_medtransformer.errors import InvalidOption, QueryOutOfGrid, in_words
from napari_medtransformer.given import reals, record, text, whole
from napari_medtransformer.inspection.cuts import cut_heatmap
from napari_medtransformer.inspection.head_numbers import HeadNumbers
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

    def peak(self, name: str) -> tuple[float, ...] | None:
        """The centre of the token with the highest value, along the axes of `whole`: (y, x) or (z, y, x) voxels.

        None where that token lies in the padding.
        """
        values, whole = over_heads(self.whole.values, name), self.whole
        place = np.unravel_index(int(np.argmax(values)), values.shape)
        centre = tuple(t + s * float(i) for i, s, t in zip(place, whole.scale, whole.translate, strict=True))
        inside = all(-0.5 <= c < n - 0.5 for c, n in zip(centre, whole.native_shape, strict=True))
        return centre if inside else None


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


def asked_words(query: Query) -> str:
    """Who asks, as people read it."""
    if isinstance(query, VoxelQuery):
        return "voxel z {:.0f}, y {:.0f}, x {:.0f}".format(*query.zyx)
    if isinstance(query, PromptQuery):
        return query.token.name
    if isinstance(query, RegionQuery):
        return query.name
    return "every token" if isinstance(query, EverythingQuery) else f"prefix token {query.index}"
