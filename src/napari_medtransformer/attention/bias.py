"""What is added to attention scores before the softmax, kept in its cheapest form: never tokens × tokens.

Every form answers `rows(q, batch, queries, heads)`: what it adds for some queries of one batch entry. q: theirs,
unscaled, (heads, n, head_dim); heads: which of the call's heads those are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class DecomposedBias:
    """A relative position term per axis, added up (SAM, ViTDet, MViT; Li et al. 2022, eq. 4).

    tables: per axis (query positions, key positions, head_dim); the bias of a query and a key is the sum over axes of
    q · tables[axis][query index, key index]. Queries and keys are grids, row-major, 2 or 3 axes.
    """

    tables: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        if len(self.tables) not in (2, 3) or any(t.ndim != 3 for t in self.tables):
            raise ValueError(f"expected 2 or 3 tables (queries, keys, head_dim), got {[t.shape for t in self.tables]}")

    @property
    def query_shape(self) -> tuple[int, ...]:
        """The grid of the queries."""
        return tuple(t.shape[0] for t in self.tables)

    @property
    def key_shape(self) -> tuple[int, ...]:
        """The grid of the keys."""
        return tuple(t.shape[1] for t in self.tables)

    def terms(self, q: Tensor) -> list[Tensor]:
        """Per axis, (B, heads, queries, key positions): the bias that each key position of that axis gets."""
        batch, heads, queries, width = q.shape
        grid = q.reshape(batch * heads, *self.query_shape, width)
        letters = "xyz"[: len(self.tables)]
        return [
            torch.einsum(f"b{letters}d,{axis}kd->b{letters}k", grid, table.to(q.dtype)).reshape(
                batch, heads, queries, -1
            )
            for axis, table in zip(letters, self.tables, strict=True)
        ]

    def row_terms(self, q: Tensor, queries: Tensor) -> list[Tensor]:
        """As `terms` for some queries. q: (heads, n, head_dim), theirs. Returns (heads, n, key positions) per axis."""
        index = torch.unravel_index(queries, self.query_shape)
        return [
            torch.einsum("hnd,nkd->hnk", q, table.to(q.dtype)[i]) for table, i in zip(self.tables, index, strict=True)
        ]

    def rows(self, q: Tensor, batch: int, queries: Tensor, heads: slice = slice(None)) -> Tensor:
        """The bias of some queries. q: (heads, n, head_dim), theirs, unscaled. Returns (heads, n, keys)."""
        return outer_sum(self.row_terms(q, queries))


@dataclass(frozen=True, eq=False)
class WindowBias:
    """A learned term per head for each pair of places in a window, and the regions that a cyclic shift keeps apart.

    table: (heads, n, n). regions: (windows, n) integers, None without a shift; tokens of different regions in one
    window get `penalty` added (Liu et al. 2021, Swin). The batch axis of queries and keys is (images × windows).
    """

    table: Tensor
    regions: Tensor | None = None
    penalty: float = -100.0

    @cached_property
    def groups(self) -> list[tuple[Tensor, Tensor | None]]:
        """Windows that share one mask: (their indices, (n, n) mask to add or None)."""
        if self.regions is None:
            return []
        patterns, member = torch.unique(self.regions, dim=0, return_inverse=True)
        groups: list[tuple[Tensor, Tensor | None]] = []
        for number, pattern in enumerate(patterns):
            apart = pattern[:, None] != pattern[None, :]
            mask = apart.to(self.table.dtype) * self.penalty if bool(apart.any()) else None
            groups.append(((member == number).nonzero().flatten(), mask))
        return groups

    def rows(self, q: Tensor, batch: int, queries: Tensor, heads: slice = slice(None)) -> Tensor:
        """The bias of some queries of one window. batch: image × windows + window. Returns (heads, n, keys)."""
        queries = queries.to(self.table.device)
        bias = self.table[heads, queries].to(q.dtype)
        if self.regions is not None:
            region = self.regions[batch % self.regions.shape[0]]
            bias = bias + (region[queries][:, None] != region[None, :]).to(q.dtype) * self.penalty
        return bias


@dataclass(frozen=True, eq=False)
class DenseBias:
    """A mask as scaled_dot_product_attention takes it: float to add or bool to keep, broadcast to (B, heads, N, K)."""

    mask: Tensor

    def rows(self, q: Tensor, batch: int, queries: Tensor, heads: slice = slice(None)) -> Tensor:
        """The bias of some queries of one batch entry. Returns (heads or 1, n or 1, keys)."""
        mask = self.mask.reshape((1,) * (4 - self.mask.ndim) + tuple(self.mask.shape))
        mask = mask[batch if mask.shape[0] > 1 else 0]
        mask = mask[heads] if mask.shape[0] > 1 else mask
        mask = mask[:, queries.to(mask.device)] if mask.shape[1] > 1 else mask
        if mask.dtype == torch.bool:
            return torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, float("-inf"))
        return mask.to(q.dtype)


@dataclass(frozen=True, eq=False)
class KeyTermsBias:
    """Terms over some axes of the key grid, computed from queries beforehand, added up: O(N · terms), never N×N.

    key_shape: the keys' grid, row-major. terms: (values, axes) each; values: (B, heads, M, *key_shape of those axes),
    axes ascending. runs: per term, how many consecutive queries share a row; () for one each. Query n has the term's
    row (n // run) modulo M.
    """

    key_shape: tuple[int, ...]
    terms: tuple[tuple[Tensor, tuple[int, ...]], ...]
    runs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.terms or (self.runs and (len(self.runs) != len(self.terms) or min(self.runs) < 1)):
            raise ValueError(f"{len(self.terms)} terms with runs {self.runs}; expected a run of 1 or more for each")
        for values, axes in self.terms:
            if list(axes) != sorted(axes) or tuple(values.shape[3:]) != tuple(self.key_shape[a] for a in axes):
                raise ValueError(f"a term {tuple(values.shape)} over axes {axes} does not fit keys {self.key_shape}")

    @property
    def width(self) -> int:
        """Numbers per query in the low-rank form: all terms' key positions."""
        return sum(math.prod(values.shape[3:]) for values, _ in self.terms)

    def query_terms(self, queries: int) -> list[Tensor]:
        """Per term, the rows of this many queries: (B, heads, queries, key positions of its axes)."""
        numbers = torch.arange(queries, device=self.terms[0][0].device)
        return [
            values[:, :, (numbers // run) % values.shape[2]].flatten(3)
            for (values, _), run in zip(self.terms, self._runs, strict=True)
        ]

    def key_codes(self) -> list[Tensor]:
        """Per term, one-hot codes of the keys' places along its axes: (keys, key positions of its axes) bool."""
        numbers = torch.arange(math.prod(self.key_shape), device=self.terms[0][0].device)
        places = torch.unravel_index(numbers, self.key_shape)
        codes = []
        for _, axes in self.terms:
            place = torch.zeros_like(numbers)
            for axis in axes:
                place = place * self.key_shape[axis] + places[axis]
            positions = math.prod(self.key_shape[axis] for axis in axes)
            codes.append(place[:, None] == numbers[:positions])
        return codes

    def rows(self, q: Tensor, batch: int, queries: Tensor, heads: slice = slice(None)) -> Tensor:
        """The bias of some queries of one batch entry. Returns (heads, n, keys)."""
        total = q.new_zeros((q.shape[0], len(queries), *self.key_shape))
        for (values, axes), run in zip(self.terms, self._runs, strict=True):
            rows = values[batch, heads][:, (queries // run).to(values.device) % values.shape[2]].to(total)
            sides = [n if axis in axes else 1 for axis, n in enumerate(self.key_shape)]
            total += rows.reshape(*rows.shape[:2], *sides)
        return total.flatten(2)

    @property
    def _runs(self) -> tuple[int, ...]:
        return self.runs or (1,) * len(self.terms)


Bias = DecomposedBias | WindowBias | DenseBias | KeyTermsBias


def outer_sum(terms: list[Tensor]) -> Tensor:
    """Sum of per-axis terms (…, K_axis) over the product of their last axes: (…, K_1 · K_2 · …), row-major."""
    total = terms[0]
    for term in terms[1:]:
        total = (total[..., :, None] + term[..., None, :]).flatten(-2)
    return total


def outer_sum_into(block: Tensor, terms: list[Tensor]) -> None:
    """`outer_sum` of terms (…, K_axis), written into a block (…, K_1, K_2, …)."""
    axes = len(terms)
    spread = [
        term[(..., *[slice(None) if i == axis else None for i in range(axes)])] for axis, term in enumerate(terms)
    ]
    torch.add(spread[0], spread[1].expand(block.shape), out=block)
    for term in spread[2:]:
        block.add_(term)
