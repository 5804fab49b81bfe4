"""Every head of every site for one query: depth × heads, in maps and in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from napari_medtransformer.attention.sites import AttentionSite
from napari_medtransformer.errors import InvalidOption
from napari_medtransformer.given import one_of
from napari_medtransformer.inspection.answering import ask
from napari_medtransformer.inspection.queries import (
    Answer,
    Inspection,
    PrefixQuery,
    PromptQuery,
    Query,
    answers_of,
    check_inspection,
    drawable_sites,
)
from napari_medtransformer.inspection.shares import share_inside
from napari_medtransformer.progress import Partial, Progress, Result, Steps
from napari_medtransformer.volumes.numbers import numbers

Quantity = Literal["entropy", "distance", "share", "peak"]
UNITS: dict[Quantity, str] = {"entropy": "nats", "distance": "mm", "share": "% on the organ", "peak": "% on one token"}


@dataclass(frozen=True, eq=False)
class HeadMatrix:
    """A number per site and head. sites: names, in the order in which they run. values: (sites, most heads) float32 in
    `unit`, nan where a site has no such head or number.
    """

    sites: tuple[str, ...]
    values: np.ndarray
    unit: str

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the largest number; (0, 1) if there is none."""
        known = self.values[np.isfinite(self.values)]
        return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)


def matrix_steps(inspection: Inspection, query: Query) -> Steps[list[Answer]]:
    """The answer of every site that can answer a query, each as a Partial, then all; can be stopped between sites."""
    check_inspection(inspection)
    sites = [site for site in drawable_sites(inspection) if _can_answer(inspection, site, query)]
    answers: list[Answer] = []
    for done, site in enumerate(sites):
        yield Progress(done, len(sites), site.name)
        answers.append(ask(inspection, site.name, query))
        answers[-1].numbers.found()  # here, where it can be stopped between sites, and not where a table is drawn
        yield Partial(answers[-1])
    yield Result(answers)


def _can_answer(inspection: Inspection, site: AttentionSite, query: Query) -> bool:
    """Whether a site has who asks: prompts at the decoder, a place or a prefix token in the image."""
    if not (site.query_grid.has_place and site.key_grid.has_place):
        return bool(inspection.tokens)
    if isinstance(query, PrefixQuery):
        return query.index < site.query_grid.prefix
    return not (isinstance(query, PromptQuery) and query.token.yx is None)


def head_matrix(answers: Sequence[Answer], quantity: Quantity, mask: np.ndarray | None = None) -> HeadMatrix:
    """One number of every head. quantity: entropy (nats) and mean distance (mm) of what asked; share of the attention
    that lies inside `mask`, bool along the axes of the answers' `whole`, and the largest share on one token, both in %.

    Raises InvalidOption, also for a share without a mask.
    """
    answers = answers_of(answers)
    one_of(quantity, get_args(Quantity), "a quantity")
    if mask is not None:
        mask = numbers(mask, "the mask of an organ", InvalidOption)
    if quantity == "share" and mask is None:
        raise InvalidOption("a share needs the mask of an organ; give mask.")
    most = max((answer.heatmap.heads for answer in answers), default=0)
    values = np.full((len(answers), most), np.nan, np.float32)
    for row, answer in enumerate(answers):
        values[row, : answer.heatmap.heads] = _numbers(answer, quantity, mask)
    return HeadMatrix(tuple(answer.site for answer in answers), values, UNITS[quantity])


def _numbers(answer: Answer, quantity: Quantity, mask: np.ndarray | None) -> np.ndarray:
    if quantity == "entropy":
        return answer.entropy_nats
    if quantity == "distance":
        return answer.distance_mm
    if quantity == "share" and mask is not None:
        return 100 * share_inside(answer.whole, mask)
    flat = answer.whole.values.reshape(answer.whole.heads, -1)
    whole = flat.sum(axis=1) + answer.whole.prefix_mass + answer.whole.padding_mass
    return np.asarray(100 * flat.max(axis=1) / np.maximum(whole, np.finfo(np.float32).tiny))
