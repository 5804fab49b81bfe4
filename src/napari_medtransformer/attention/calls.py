"""One attention call, as the kernel saw it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from napari_medtransformer.attention.bias import Bias


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
