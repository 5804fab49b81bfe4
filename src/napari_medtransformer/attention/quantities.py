"""What can be said about attention from queries and keys alone, in blocks: never tokens × tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_medtransformer.attention.bias import Bias, DenseBias
from napari_medtransformer.attention.scoring import Scores, exact
from napari_medtransformer.attention.sites import AttentionSite
from napari_medtransformer.errors import QueryOutOfGrid

if TYPE_CHECKING:
    from napari_medtransformer.attention.kept_calls import KeptCall

# attention weights held at a time, 16 MB in float32
BLOCK_ELEMENTS = 1 << 22


def attention_rows(
    q: Tensor,
    k: Tensor,
    queries: Tensor,
    *,
    scale: float,
    bias: Bias | None = None,
    batch: int = 0,
    causal: bool = False,
) -> Tensor:
    """Exact attention of a few queries over all keys, without the N×N matrix.

    q: (heads, N, head_dim). k: (heads or a divisor of them, K, head_dim). queries: (n,) indices along q's token axis.
    batch: which entry of the call's batch axis q and k are, for the bias. Returns (heads, n, K) float32 on q's
    device; rows sum to 1. Cost O(n · K · head_dim); memory O(heads · n · K).
    Raises QueryOutOfGrid if an index is outside 0 … N - 1. Vaswani et al. 2017, eq. 1.
    """
    if queries.numel() and not 0 <= int(queries.min()) <= int(queries.max()) < q.shape[1]:
        raise QueryOutOfGrid(f"queries {queries.tolist()[:8]} of a site with {q.shape[1]} queries; count from 0.")
    # autocast would round the scores to half precision
    with torch.autocast(q.device.type, enabled=False):
        chosen = q[:, queries.to(q.device)].float()
        keys = k.float()
        if keys.shape[0] != chosen.shape[0]:
            keys = keys.repeat_interleave(chosen.shape[0] // keys.shape[0], dim=0)
        if bias is None:
            scores = torch.bmm(chosen * scale, keys.transpose(1, 2))
        else:
            rows = bias.rows(chosen, batch, queries).expand(*chosen.shape[:2], keys.shape[1])
            # a dense bias may be the mask itself; the others make their rows for this call
            scores = rows.clone() if isinstance(bias, DenseBias) else rows
            scores.baddbmm_(chosen * scale, keys.transpose(1, 2))
        if causal:
            later = torch.arange(keys.shape[1], device=q.device)[None, :] > queries.to(q.device)[:, None]
            scores.masked_fill_(later, float("-inf"))
    return torch.softmax(scores, dim=-1, out=scores)


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One attention call as the kernel saw it. q: (B, heads, N, head_dim). k: (B, key heads, K, head_dim).

    kernel: which one ran. The bias is kept in its cheapest form.
    """

    q: Tensor
    k: Tensor
    bias: Bias | None
    scale: float
    kernel: str
    causal: bool = False

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.q.shape[1]

    @property
    def q_shape(self) -> tuple[int, ...]:
        """(B, heads, N, head_dim)."""
        return tuple(self.q.shape)

    @property
    def k_shape(self) -> tuple[int, ...]:
        """(B, key heads, K, head_dim)."""
        return tuple(self.k.shape)

    @property
    def dtype(self) -> torch.dtype:
        """The number format that the kernel ran in."""
        return self.q.dtype


@dataclass(frozen=True, eq=False)
class CapturedSite:
    """A site, the call it made for one image, and which image of the batch that is."""

    site: AttentionSite
    call: AttentionCall | KeptCall
    image: int = 0

    def rows(self, tokens: Tensor) -> Tensor:
        """(heads, n, keys) float32: each query token's attention to the keys of its window, or to all keys."""
        tokens = self.site.query_grid.check_tokens(tokens)
        windows, places = self.site.query_grid.window_of_token[tokens].unbind(1)
        out = self.call.q.new_empty((self.call.heads, len(tokens), self.call.k_shape[2]), dtype=torch.float32)
        for window in windows.unique().tolist():
            here = windows == window
            out[:, here.to(out.device)] = self._window_rows(window, places[here])
        return out

    def keys(self, tokens: Tensor) -> Tensor:
        """(n, keys) the key tokens that `rows` is about, -1 where the kernel saw padding."""
        tokens = self.site.query_grid.check_tokens(tokens)
        return self.site.key_grid.window_tokens[self.site.query_grid.window_of_token[tokens, 0]]

    def blocks(self, tokens: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """All rows of these query tokens (None: of all), block by block: (rows, query tokens, key tokens).

        rows: (heads, n, keys) float32. query tokens: (n,). key tokens: (keys,), -1 where the kernel saw padding.
        """
        for window, places, queries, keys in self._block_indices(tokens):
            yield self._window_rows(window, places), queries, keys

    def _block_indices(self, tokens: Tensor | None) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        grid = self.site.query_grid
        chosen = torch.arange(grid.n_tokens) if tokens is None else grid.check_tokens(tokens)
        windows, places = grid.window_of_token[chosen].unbind(1)
        rows = max(1, BLOCK_ELEMENTS // (self.call.heads * self.call.k_shape[2]))
        for window in windows.unique().tolist():
            here = (windows == window).nonzero().flatten()
            for part in here.split(rows):
                yield window, places[part], chosen[part], self.site.key_grid.window_tokens[window]

    @property
    def images(self) -> int:
        """How many images the call's batch held; every image is cut into all its windows."""
        return max(1, self.call.q_shape[0] // self.site.query_grid.window_tokens.shape[0])

    def _entry(self, window: int) -> int:
        return self.image * self.site.query_grid.window_tokens.shape[0] + window

    def _window_rows(self, window: int, places: Tensor) -> Tensor:
        call, entry = self.call, self._entry(window)
        return attention_rows(
            call.q[entry], call.k[entry], places, scale=call.scale, bias=call.bias, batch=entry, causal=call.causal
        )


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
    total = torch.zeros((captured.call.heads, captured.site.key_grid.n_tokens), device=scores.device)
    padding, weights = total.new_zeros(total.shape[0]), weights.to(total)
    for part in scores.parts():
        weight = weights[part.queries.to(total.device)]
        real = (part.keys >= 0).to(total.device)
        keys = part.keys.to(total.device)[real]
        for heads, block, _ in scores.blocks(part):
            with exact(scores.device):
                sums = weight @ torch.softmax(block, dim=-1, out=block)
            total[heads, keys] += sums[:, real]
            padding[heads] += sums[:, ~real].sum(dim=1)
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
