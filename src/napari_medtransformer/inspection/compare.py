"""Two maps, or all of them, compared: difference, agreement, and which heads say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from napari_medtransformer.errors import InvalidOption
from napari_medtransformer.inspection.maps import on_picture
from napari_medtransformer.inspection.queries import Answer, answers_of
from napari_medtransformer.volumes.numbers import numbers

# Maps of different token grids are compared on one picture of so many pixels per side.
COMMON_SIDE = 64


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two maps on the same pixels, each as shares of its own sum. difference: first − second, sums to 0.

    correlation: Pearson's. overlap: the mass that both have in the same place, Σ min, in [0, 1].
    """

    first: np.ndarray
    second: np.ndarray
    difference: np.ndarray
    correlation: float
    overlap: float


@dataclass(frozen=True, eq=False)
class HeadSimilarity:
    """How alike heads are. names: (site, head), in the order of the clustering. correlation: (n, n), Pearson's."""

    names: tuple[tuple[str, int], ...]
    correlation: np.ndarray


def compare_maps(first: np.ndarray, second: np.ndarray) -> Comparison:
    """Two maps ≥ 0 of one shape as shares, their difference and agreement. Raises InvalidOption for unlike shapes."""
    first, second = (numbers(one, "a map", InvalidOption) for one in (first, second))
    if first.shape != second.shape:
        raise InvalidOption(f"maps of {first.shape} and {second.shape} pixels; draw both on one slice first.")
    a, b = _shares(first), _shares(second)
    return Comparison(
        a, b, a - b, float(_correlations(np.stack([a.ravel(), b.ravel()]))[0, 1]), float(np.minimum(a, b).sum())
    )


def head_similarity(answers: Sequence[Answer]) -> HeadSimilarity:
    """Correlation of every head's map with every other's, alike ones side by side (average linkage on 1 − r).

    answers: of several sites to one query, on one slice. Raises InvalidOption for fewer than two heads.
    """
    answers = answers_of(answers)
    names = [(answer.site, head) for answer in answers for head in range(answer.heatmap.heads)]
    if len(names) < 2:
        raise InvalidOption("one head alone is like itself; give two or more.")
    maps = [on_picture(answer.heatmap, (COMMON_SIDE, COMMON_SIDE)) for answer in answers]
    correlation = _correlations(np.concatenate(maps).reshape(len(names), -1))
    order = clustered_order(correlation)
    return HeadSimilarity(tuple(names[i] for i in order), correlation[np.ix_(order, order)])


def most_alike(similar: HeadSimilarity) -> tuple[tuple[str, int], tuple[str, int], float]:
    """The two heads whose maps correlate most, and their correlation."""
    apart = np.where(np.eye(len(similar.names), dtype=bool), -np.inf, similar.correlation)
    first, second = np.unravel_index(int(np.argmax(apart)), apart.shape)
    return similar.names[int(first)], similar.names[int(second)], float(apart[first, second])


def clustered_order(correlation: np.ndarray) -> list[int]:
    """The order of rows that puts alike ones side by side (Bar-Joseph et al. 2001, optimal leaf ordering)."""
    apart = np.clip(1 - correlation, 0, 2)
    np.fill_diagonal(apart, 0)
    condensed = squareform(apart, checks=False)
    tree = hierarchy.linkage(condensed, method="average")
    return [int(i) for i in hierarchy.leaves_list(hierarchy.optimal_leaf_ordering(tree, condensed))]


def _shares(values: np.ndarray) -> np.ndarray:
    total = float(values.sum(dtype=np.float64))
    return values / total if total > 0 else np.zeros_like(values)


def _correlations(rows: np.ndarray) -> np.ndarray:
    """(n, n) Pearson correlations; a row without variance is like nothing but itself."""
    centred = rows.astype(np.float64) - rows.mean(axis=1, keepdims=True, dtype=np.float64)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
    correlation: np.ndarray = np.clip(unit @ unit.T, -1, 1)
    np.fill_diagonal(correlation, 1)
    return correlation
