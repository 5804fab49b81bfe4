"""How widely and how far every query of a site looks: the entropy of its row and its mean attention distance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_medtransformer.attention.scoring import Blocks, Part, Scores, exact
from napari_medtransformer.errors import InvalidOption, in_words

if TYPE_CHECKING:
    from napari_medtransformer.attention.captured import CapturedSite

_LEAST_SUM = 1e-6  # of a row's exponentials, and its inverse the largest, before scores are taken relative


def _checked(spacing: Sequence[float], axes: int) -> tuple[float, ...]:
    """Millimetres above 0, one per axis. Raises InvalidOption."""
    try:
        millimetres = tuple(float(mm) for mm in spacing)
    except (TypeError, ValueError) as error:
        raise InvalidOption(f"a spacing is {axes} millimetres, one per axis, not {in_words(spacing)}.") from error
    if len(millimetres) != axes or not all(0 < mm < math.inf for mm in millimetres):
        raise InvalidOption(f"a spacing is {axes} millimetres above 0, one per axis, not {in_words(spacing)}.")
    return millimetres


@torch.no_grad()
def entropy_and_distance(captured: CapturedSite, spacing: Sequence[float] | None) -> tuple[Tensor, Tensor]:
    """Per head and query: the entropy of its row (nats) and its mean distance to what it attends to.

    spacing: mm per native pixel and axis; None measures in native pixels. Distances are between token centres,
    weighted by attention, padding and prefix tokens left out; nan where a side has no place. Both (heads, queries)
    float32 on the CPU. Raises InvalidOption for another spacing. Dosovitskiy et al. 2021, figure 7, right.
    """
    grid, key_grid, heads = captured.site.query_grid, captured.site.key_grid, captured.call.heads
    scores = Scores(captured)
    entropy = torch.empty((heads, grid.n_tokens))
    distance = torch.full((heads, grid.n_tokens), float("nan"))
    placed = grid.has_place and key_grid.has_place
    if placed:
        spacing = (1.0,) * len(grid.shape) if spacing is None else _checked(spacing, len(grid.shape))
        query_mm, key_mm = (_centres(g.centres_mm(spacing), g.prefix).to(scores.device) for g in (grid, key_grid))

    def work(parts: Iterator[tuple[Part, Blocks]]) -> None:
        relative = False  # scores that are large once are large again
        for part, blocks in parts:
            # per head and query: the sum of weights, of theirs with scores, with distances, and of those with a place
            total, scored, far, known_total = torch.empty((4, heads, len(part.queries)), device=scores.device)
            apart, known = _distances(part, query_mm, key_mm) if placed else (None, None)
            for which, block, weights in blocks:
                relative = _weigh(block, weights, total[which], relative)
                if scores.may_be_infinite:
                    block.clamp_(min=-1e30)  # 0 · -inf has no value, its limit is 0
                torch.sum(block.mul_(weights), dim=-1, out=scored[which])
                if apart is not None:
                    if known is not None:
                        with exact(scores.device):
                            known_total[which] = weights @ known
                    torch.sum(weights.mul_(apart), dim=-1, out=far[which])
            entropy[:, part.queries] = (total.log() - scored / total).clamp_(min=0).cpu()
            if placed:
                distance[:, part.queries] = (far / (total if known is None else known_total)).cpu()

    scores.shared(work)
    return entropy, distance


def _weigh(block: Tensor, weights: Tensor, total: Tensor, relative: bool) -> bool:
    """Write the exponentials of scores into `weights` and their rows' sums into `total`; divided later, when fewer.

    Scores that lie near 0 are taken as they are, which saves two passes over them; where that would lose digits, or if
    `relative`, they become relative to their row's largest, in place. Whether they did is returned.
    """
    if not relative:
        torch.sum(torch.exp(block, out=weights), dim=-1, out=total)
        least, most = total.aminmax()
        if _LEAST_SUM < least <= most < 1 / _LEAST_SUM:
            return False
    block.sub_(block.amax(dim=-1, keepdim=True))
    torch.sum(torch.exp(block, out=weights), dim=-1, out=total)
    return True


def _distances(part: Part, query_mm: Tensor, key_mm: Tensor) -> tuple[Tensor, Tensor | None]:
    """(n, K) mm between queries and keys, 0 for keys without a place, and (K,) 1 for those with one, None if all have.

    Made axis by axis: as a product of matrices it would lose the digits of short distances.
    """
    here, there = query_mm[part.queries], key_mm[part.keys.clamp(min=0)]
    known = (part.keys >= 0).to(there.device) & ~there.isnan().any(dim=1)
    there = there.nan_to_num(0.0)
    squares = (here[:, 0, None] - there[None, :, 0]).square_()
    for axis in range(1, here.shape[1]):
        along = here[:, axis, None] - there[None, :, axis]
        squares.addcmul_(along, along)
    apart = squares.sqrt_()
    if bool(known.all()):
        return apart, None
    return apart.mul_(known), known.float()


def _centres(axes: tuple[Tensor, ...], prefix: int) -> Tensor:
    """(tokens, axes) centres in mm; nan for prefix tokens."""
    places = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    return torch.cat([places.new_full((prefix, len(axes)), float("nan")), places])
