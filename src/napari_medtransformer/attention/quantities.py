"""What can be said about attention from queries and keys alone, in blocks: never tokens × tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_medtransformer.attention.bias import Bias, DenseBias
from napari_medtransformer.attention.sites import AttentionSite
from napari_medtransformer.errors import QueryOutOfGrid

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
    scores, _ = attention_scores(q, k, queries, scale=scale, bias=bias, batch=batch, causal=causal)
    return torch.softmax(scores, dim=-1, out=scores)


def attention_scores(
    q: Tensor, k: Tensor, queries: Tensor, *, scale: float, bias: Bias | None, batch: int, causal: bool
) -> tuple[Tensor, bool]:
    """What `attention_rows` takes the softmax of, (heads, n, K) float32, and whether some may be -inf."""
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
    return scores, causal or bias is not None


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


@dataclass(frozen=True, eq=False)
class CapturedSite:
    """A site, the call it made for one image, and which image of the batch that is."""

    site: AttentionSite
    call: AttentionCall
    image: int = 0

    def rows(self, tokens: Tensor) -> Tensor:
        """(heads, n, keys) float32: each query token's attention to the keys of its window, or to all keys."""
        tokens = self.site.query_grid.check_tokens(tokens)
        windows, places = self.site.query_grid.window_of_token[tokens].unbind(1)
        out = self.call.q.new_empty((self.call.heads, len(tokens), self.call.k.shape[2]), dtype=torch.float32)
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

    def score_blocks(self) -> Iterator[tuple[Tensor, bool, Tensor, Tensor]]:
        """As `blocks` for all tokens, before the softmax: (scores, whether some may be -inf, queries, keys)."""
        for window, places, queries, keys in self._block_indices(None):
            yield *self._window_scores(window, places), queries, keys

    def _block_indices(self, tokens: Tensor | None) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        grid = self.site.query_grid
        chosen = torch.arange(grid.n_tokens) if tokens is None else grid.check_tokens(tokens)
        windows, places = grid.window_of_token[chosen].unbind(1)
        rows = max(1, BLOCK_ELEMENTS // (self.call.heads * self.call.k.shape[2]))
        for window in windows.unique().tolist():
            here = (windows == window).nonzero().flatten()
            for part in here.split(rows):
                yield window, places[part], chosen[part], self.site.key_grid.window_tokens[window]

    @property
    def images(self) -> int:
        """How many images the call's batch held; every image is cut into all its windows."""
        return max(1, self.call.q.shape[0] // self.site.query_grid.window_tokens.shape[0])

    def _entry(self, window: int) -> int:
        return self.image * self.site.query_grid.window_tokens.shape[0] + window

    def _window_rows(self, window: int, places: Tensor) -> Tensor:
        scores, _ = self._window_scores(window, places)
        return torch.softmax(scores, dim=-1, out=scores)

    def _window_scores(self, window: int, places: Tensor) -> tuple[Tensor, bool]:
        call, entry = self.call, self._entry(window)
        return attention_scores(
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
    total = captured.call.q.new_zeros((captured.call.heads, captured.site.key_grid.n_tokens), dtype=torch.float32)
    padding = total.new_zeros(total.shape[0])
    weights = weights.to(total.device, torch.float32)
    for rows, queries, keys in captured.blocks(weights.nonzero().flatten().cpu()):
        part, lost = to_keys(torch.einsum("hnk,n->hk", rows, weights[queries.to(total.device)]), keys, total.shape[1])
        total += part
        padding += lost
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


def entropy_and_distance(captured: CapturedSite, spacing: Sequence[float] | None) -> tuple[Tensor, Tensor]:
    """Per head and query: the entropy of its row (nats) and its mean distance to what it attends to.

    spacing: mm per native pixel and axis; None measures in native pixels. Distances are between token centres,
    weighted by attention, padding and prefix tokens left out; nan where a side has no place. Both (heads, queries)
    float32 on the CPU. Dosovitskiy et al. 2021, figure 7, right.
    """
    grid, key_grid, heads = captured.site.query_grid, captured.site.key_grid, captured.call.heads
    device = captured.call.q.device
    entropy = torch.empty((heads, grid.n_tokens))
    distance = torch.full((heads, grid.n_tokens), float("nan"))
    placed = grid.has_place and key_grid.has_place
    if placed:
        spacing = spacing or (1.0,) * len(grid.shape)
        query_mm, key_mm = (_centres(g.centres_mm(spacing), g.prefix).to(device) for g in (grid, key_grid))
    for scores, masked, queries, keys in captured.score_blocks():
        # in place throughout: each pass over a block costs as much as its arithmetic
        scores.sub_(scores.amax(dim=-1, keepdim=True))
        if masked:
            # 0 · -inf has no value, its limit is 0
            scores.clamp_(min=-1e30)
        weights = scores.exp()
        total = weights.sum(dim=-1)
        entropy[:, queries] = (total.log() - scores.mul_(weights).sum(dim=-1) / total).clamp_(min=0).cpu()
        if placed:
            known = ((keys >= 0).to(device) & ~key_mm[keys].isnan().any(dim=1)).float()
            apart = torch.cdist(query_mm[queries], key_mm[keys].nan_to_num(0.0)).mul_(known)
            mass = total if bool(known.all()) else weights @ known
            distance[:, queries] = (weights.mul_(apart).sum(dim=-1) / mass).cpu()
    return entropy, distance


def _centres(axes: tuple[Tensor, ...], prefix: int) -> Tensor:
    """(tokens, axes) centres in mm; nan for prefix tokens."""
    places = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    return torch.cat([places.new_full((prefix, len(axes)), float("nan")), places])


def max_entropy(captured: CapturedSite) -> float:
    """The entropy of a row spread evenly over all its keys, in nats."""
    return math.log(captured.call.k.shape[2])
