"""Learned relative positions as tables over pairs of places."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def relative_table(positions: Tensor, size: int) -> Tensor:
    """Learned relative positions (2·trained size − 1, head_dim) as a table (size, size, head_dim).

    Entry [query, key] is the position of offset query − key, interpolated linearly if the grid is not the one trained
    on (Li et al. 2022, MViTv2).
    """
    if positions.shape[0] != 2 * size - 1:
        resized = F.interpolate(positions.float().T[None], size=2 * size - 1, mode="linear")[0].T
        positions = resized.to(positions.dtype)
    index = torch.arange(size, device=positions.device)
    return positions[index[:, None] - index[None, :] + size - 1]
