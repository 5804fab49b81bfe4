"""Images between native pixels and a model's input: scaled, then padded at the end of each axis."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, C, h, w) to (B, C, *shape), bilinear, smoothed where it shrinks; the centres of pixels stay in place."""
    if tuple(images.shape[-2:]) == tuple(shape):
        return images
    # Where nothing shrinks smoothing does nothing, and its kernel takes ten times as long.
    shrinks = any(new < old for new, old in zip(shape, images.shape[-2:], strict=True))
    # Channel by channel: torch has a kernel for few channels together that takes five times as long.
    alone = images.reshape(-1, 1, *images.shape[-2:])
    resized = F.interpolate(alone, size=tuple(shape), mode="bilinear", align_corners=False, antialias=shrinks)
    return resized.view(*images.shape[:-2], *shape)


def pad(images: Tensor, size: int, value: float) -> Tensor:
    """(B, C, h, w) to (B, C, size, size), `value` below and to the right."""
    rows, columns = images.shape[-2:]
    return F.pad(images, (0, size - columns, 0, size - rows), value=value)
