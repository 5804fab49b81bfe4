"""What can be said about attention from queries and keys alone, in blocks: never tokens × tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from napari_medtransformer.attention.captured import CapturedSite
from napari_medtransformer.attention.scoring import Blocks, Part, Scores, exact


def to_keys(values: Tensor, keys: Tensor, n_tokens: int) -> tuple[Tensor, Tensor]:
    """Values (heads, keys) at key tokens → (heads, n_tokens), and what lies on padding, (heads,)."""
    keys = keys.to(values.device)
    real = keys >= 0
    full = values.new_zeros((values.shape[0], n_tokens))
    full[:, keys[real]] = values[:, real]
    return full, values[:, ~real].sum(dim=1)


def mean_row(captured: CapturedSite, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of rows under weights over query tokens: what a region attends to.

    weights: (query tokens,) ≥ 0, not all zero. Returns (heads, key tokens) and the mass on padding, (heads,).
    """
    tokens = weights.nonzero().flatten().cpu()
    scores = Scores(captured, tokens)
    shape = (captured.call.heads, captured.site.key_grid.n_tokens)

    def work(parts: Iterator[tuple[Part, Blocks]]) -> tuple[Tensor, Tensor]:
        total = torch.zeros(shape, device=scores.device)
        padding = total.new_zeros(shape[0])
        for part, blocks in parts:
            weight = weights[part.queries].to(total)
            real = (part.keys >= 0).to(total.device)
            keys = part.keys.to(total.device)[real]
            for heads, block, _ in blocks:
                with exact(scores.device):
                    sums = weight @ torch.softmax(block, dim=-1, out=block)
                total[heads, keys] += sums[:, real]
                padding[heads] += sums[:, ~real].sum(dim=1)
        return total, padding

    total, padding = (torch.stack(sums).sum(dim=0) for sums in zip(*scores.shared(work), strict=True))
    return total / weights.sum(), padding / weights.sum()


def received(captured: CapturedSite) -> tuple[Tensor, Tensor]:
    """What each key token receives from all queries: column sums, (heads, key tokens), and padding's share (heads,)."""
    queries = captured.site.query_grid.n_tokens
    mean, padding = mean_row(captured, torch.ones(queries))
    return mean * queries, padding * queries


def head_mean_product(captured: CapturedSite, vector: Tensor) -> Tensor:
    """vector (query tokens,) times the attention matrix averaged over heads: (key tokens,); padding is dropped."""
    if not bool(vector.any()):
        return vector.new_zeros(captured.site.key_grid.n_tokens)
    mean, _ = mean_row(captured, vector)
    return mean.mean(dim=0).to(vector.device) * vector.sum()


def max_entropy(captured: CapturedSite) -> float:
    """The entropy of a row spread evenly over all its keys, in nats."""
    return math.log(captured.call.k_shape[2])
