"""Where windows lie along an axis, and how much each voxel of a window counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

# As in MONAI and nnU-Net: the deviation as a share of the window, and the least weight, so that corners still count.
_SIGMA = 0.125
_LEAST_WEIGHT = 1e-3


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """First voxels of the windows that cover [0, length), ascending; the last one ends with the axis.

    length ≥ window. overlap: share of a window, in [0, 1); at least one voxel lies between starts.
    """
    step = max(1, int(window * (1 - overlap))) if length > window else window
    starts = list(range(0, max(length - window, 0) + 1, step))
    if starts[-1] + window < length:
        starts.append(length - window)
    return starts


def weight_map(window: Sequence[int], kind: Literal["gaussian", "constant"]) -> Tensor:
    """(*window) float32 weights in (0, 1], highest in the middle for "gaussian"."""
    if kind == "constant":
        return torch.ones(tuple(window))
    weights = torch.ones(())
    for n in window:
        x = torch.arange(n, dtype=torch.float32) - (n - 1) / 2
        weights = weights[..., None] * torch.exp(x**2 / (-2 * (_SIGMA * n) ** 2))
    return weights.clamp_min(max(float(weights.min()), _LEAST_WEIGHT))
