"""Square windows around an object: cut out of an image at one size, and pasted back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_medtransformer.models.focus_network import FOCUS_SIZE

# Side of the crop over the longer side of what it is about.
FOCUS_MARGIN = 1.7
# Shortest side of a crop, in pixels of a slice scaled to 256: closer than this there is only interpolation to see.
SHORTEST_SIDE = 16.0
# Of pixels that no crop holds.
OUTSIDE_LOGIT = -8.0


def crop_window(low_yx: Tensor, high_yx: Tensor, shortest: float = SHORTEST_SIDE) -> Tensor:
    """The square window around a region [low, high) (…, 2): (…, 4) its first edges y, x and its sides, in pixels."""
    side = ((high_yx - low_yx).amax(dim=-1, keepdim=True) * FOCUS_MARGIN).clamp(min=shortest)
    return torch.cat([(low_yx + high_yx) / 2 - side / 2, side, side], dim=-1)


def crop(images: Tensor, windows: Tensor, *, outside: float = 0.0, size: int = FOCUS_SIZE) -> Tensor:
    """Cut windows out of images and bring them to one size.

    images: (B, 1, H, W); windows: (B, 4) first edges y, x and sides y, x, in pixels of the images.
    Returns (B, 1, size, size), `outside` beyond the image. Averages where it shrinks.
    """
    return crops([Shown(images, outside)], windows, size=size)[0]


@dataclass(frozen=True)
class Shown:
    """Images (B, 1, H, W) to cut from: what lies `outside`, and where values are cut off, ±limit."""

    images: Tensor
    outside: float = 0.0
    limit: float = math.inf


def crops(groups: Sequence[Shown], windows: Tensor, *, size: int = FOCUS_SIZE) -> list[Tensor]:
    """What `crop` makes of each group, all of one shape, seen through the same windows (B, 4)."""
    first_images = groups[0].images
    outsides = torch.tensor([g.outside for g in groups], dtype=first_images.dtype, device=first_images.device)
    outside = outsides[:, None, None]
    height, width = first_images.shape[-2:]
    pieces = []
    for number, window in enumerate(windows.tolist()):
        pools = [max(1, int(side / size)) for side in window[2:]]
        # Only what the window shows, a pixel more on every side, and whole pools: the rest need not be copied.
        first, last = [], []
        for edge, side, pool, length in zip(window[:2], window[2:], pools, (height, width), strict=True):
            start = min(max(math.floor(edge) - 1, 0), length - 1) // pool * pool
            first.append(start)
            last.append(min(start + -(-max(math.ceil(edge + side) + 1 - start, 1) // pool) * pool, length))
        inside = np.s_[number : number + 1, :, first[0] : last[0], first[1] : last[1]]
        parts = [g.images[inside] if g.limit == math.inf else g.images[inside].clamp(-g.limit, g.limit) for g in groups]
        part = torch.cat(parts, dim=1)
        if max(pools) > 1:
            part = F.avg_pool2d(part, pools, ceil_mode=True, count_include_pad=False)
        steps = (torch.arange(size, device=part.device, dtype=part.dtype) + 0.5) / size
        y, x = (
            (edge - start + steps * side) / pool * 2 / length - 1
            for edge, start, side, pool, length in zip(
                window[:2], first, window[2:], pools, part.shape[-2:], strict=True
            )
        )
        grid = torch.stack([x[None, :].expand(size, -1), y[:, None].expand(-1, size)], dim=-1)[None]
        pieces.append(F.grid_sample(part - outside, grid, align_corners=False) + outside)
    return list((pieces[0] if len(pieces) == 1 else torch.cat(pieces)).split(1, dim=1))


def paste(logits: Tensor, window: Tensor, shape: tuple[int, int], *, outside: float = OUTSIDE_LOGIT) -> Tensor:
    """The way back from `crop`: (1, S, S) logits of one window onto an image of (H, W) pixels, `outside` elsewhere."""
    whole = logits.new_full((1, *shape), outside)
    first = [max(0, math.floor(float(edge))) for edge in window[:2]]
    last = [min(n, math.ceil(float(e + s))) for e, s, n in zip(window[:2], window[2:], shape, strict=True)]
    if any(a >= b for a, b in zip(first, last, strict=True)):
        return whole
    y, x = (
        (torch.arange(a, b, device=logits.device, dtype=logits.dtype) + 0.5 - edge) / side * 2 - 1
        for a, b, edge, side in zip(first, last, window[:2], window[2:], strict=True)
    )
    grid = torch.stack([x[None, :].expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)[None]
    seen = F.grid_sample(logits[None], grid, align_corners=False, padding_mode="border")[0]
    whole[:, first[0] : last[0], first[1] : last[1]] = seen
    return whole
