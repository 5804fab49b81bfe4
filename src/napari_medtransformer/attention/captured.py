"""The rows of a site that was recorded: exact attention of a few queries, or of all in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_medtransformer.attention.bias import Bias, DenseBias
from napari_medtransformer.attention.calls import AttentionCall
from napari_medtransformer.attention.kept_calls import KeptCall
from napari_medtransformer.attention.sites import AttentionSite
from napari_medtransformer.errors import QueryOutOfGrid

BLOCK_ELEMENTS = 1 << 22
"""Attention weights held at a time, 16 MB in float32."""


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
