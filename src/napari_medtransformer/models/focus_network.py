"""The second look: a small network that sees only a crop around the prompted object, always at about one size.

The first look answers from the whole slice at half of 256 pixels; what is small there has ragged edges. A crop that
follows the object's size shows a vertebra and a liver alike, so the network learns edges and shapes once, not per size.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medtransformer.models.click_layers import MLP, Conv2d, GroupNorm, Kernel, ResidualConv, mask_evidence

# Pixels of a crop's side.
FOCUS_SIZE = 128
# Radii of drawn clicks in crop pixels: where exactly, and whereabouts.
CLICK_RADII = (3.0, 12.0)
_CHANNELS = 17
# Grey values told apart when an object's are compared with those around it.
_BINS = 24


@dataclass(frozen=True)
class FocusBatch:
    """B crops and the prompts in them, in crop pixels.

    images: (B, 1, S, S) in [0, 1]. points_yx: (B, P, 2), point_labels: (B, P), 1 inside, 0 outside, -1 empty place.
    boxes: (B, 4) y0 x0 y1 x1, half-open, and has_box: (B,) bool. coarse, previous: (B, 1, S, S) logits of the first
    look and of an earlier prediction, with has_coarse and has_previous: (B,) bool.
    """

    images: Tensor
    points_yx: Tensor
    point_labels: Tensor
    boxes: Tensor
    has_box: Tensor
    coarse: Tensor
    has_coarse: Tensor
    previous: Tensor
    has_previous: Tensor


class FocusNetwork(nn.Module):
    """A U-shaped network from 1/2 to 1/16 of the crop. FocusBatch to logits (B, 1, S, S) and expected IoU (B,)."""

    def __init__(self, widths: tuple[int, int, int, int] = (32, 64, 96, 128)) -> None:
        super().__init__()
        self.first = UnshuffledConv2d(4 * _CHANNELS, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(ResidualConv(width) for width in widths)
        self.downs = nn.ModuleList(Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.middle = ResidualConv(widths[-1])
        self.ups = nn.ModuleList(Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.up_blocks = nn.ModuleList(ResidualConv(width) for width in widths[:-1])
        self.norm = GroupNorm(widths[0])
        self.out = Conv2d(widths[0], 4, 3, padding=1)
        self.score = MLP(2 * widths[2] + widths[-1] + 2, 128, 1)

    def forward(self, batch: FocusBatch) -> tuple[Tensor, Tensor]:
        x = self.first(focus_maps(batch))
        skips = []
        for level, block in enumerate(self.down_blocks):
            x = block(x)
            skips.append(x)
            if level < len(self.downs):
                x = self.downs[level](x)
        x = self.middle(x)
        deepest = x.mean(dim=(2, 3))
        seen = x
        for level in reversed(range(len(self.ups))):
            x = F.interpolate(self.ups[level](x), scale_factor=2, mode="bilinear", align_corners=False)
            x = self.up_blocks[level](x + skips[level])
            if level == len(self.ups) - 1:
                seen = x
        logits = F.pixel_shuffle(self.out(F.gelu(self.norm(x))), 2).float()
        evidence = mask_evidence(F.avg_pool2d(logits.detach(), 2), seen)[:, 0]
        score = self.score(torch.cat([evidence.to(deepest.dtype), deepest], dim=1))[:, 0]
        return logits, score.float().sigmoid()


class UnshuffledConv2d(Conv2d):
    """A convolution of F.pixel_unshuffle(x, 2), which it does itself: (B, C, S, S) to (B, out, S / 2, S / 2).

    Its input then lies channels last, in an order in which whole runs of channels are copied, and its kernel follows.
    torch's own order costs as much again as the convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        count, channels, size, _ = x.shape
        last = x.flatten(2).transpose(1, 2).contiguous()
        blocks = last.view(count, size // 2, 2, size // 2, 2 * channels).transpose(2, 3)
        return self.over(blocks.reshape(count, size // 2, size // 2, 4 * channels).permute(0, 3, 1, 2))

    def _kernel(self, channels: slice | None) -> Kernel:
        weight, bias = super()._kernel(channels)
        return weight.unflatten(1, (-1, 4)).transpose(1, 2).flatten(1, 2), bias


def focus_maps(batch: FocusBatch) -> Tensor:
    """Crop and prompts as (B, 17, S, S) maps, what is absent drawn as 0."""
    images = batch.images
    size = images.shape[-1]
    axis = torch.arange(size, device=images.device, dtype=images.dtype)
    y, x = axis[None, :, None], axis[None, None, :]
    y0, x0, y1, x1 = (batch.boxes[:, i, None, None] - 0.5 for i in range(4))
    has_box = batch.has_box[:, None, None].to(images.dtype)
    sides = [(y - y0) + 0.5, (y1 - y) + 0.5, (x - x0) + 0.5, (x1 - x) + 0.5]
    box = sides[0].clamp(0, 1) * sides[1].clamp(0, 1) * sides[2].clamp(0, 1) * sides[3].clamp(0, 1) * has_box
    v = (2 * y - y0 - y1) / (y1 - y0).clamp(min=1)
    u = (2 * x - x0 - x1) / (x1 - x0).clamp(min=1)
    ellipse = (1 - (u.square() + v.square())).clamp(-1, 1) * has_box
    inside, outside = drawn_clicks(batch.points_yx, batch.point_labels, axis, CLICK_RADII)
    likeness = _likeness(images, batch.points_yx, batch.point_labels)
    clicks = [*inside, likeness[0], *outside, likeness[1]]
    earlier = []
    for logits, there in ((batch.coarse, batch.has_coarse), (batch.previous, batch.has_previous)):
        earlier += [drawn_mask(logits, there, 3), there[:, None, None].to(images.dtype).expand_as(box)]
    prior = _prior(batch, box * (ellipse > 0), clicks[1])
    image = images[:, 0]
    views = [image * 2 - 1, image.clamp(max=0.5) * 4 - 1, image.clamp(min=0.5) * 4 - 3]
    return torch.stack([*views, box, ellipse, *clicks, *earlier, has_box.expand_as(box), typical(image, prior)], dim=1)


def _likeness(images: Tensor, points_yx: Tensor, labels: Tensor) -> list[Tensor]:
    """How much every pixel looks like the inside clicks, and like the outside ones, in (0, 1]: (B, S, S) each."""
    absent = [(labels != sign)[:, :, None, None] for sign in (1, 0)]
    none = [bool(there.all()) for there in absent]
    if all(none):  # spares work on every pixel, as below
        return [torch.zeros_like(images[:, 0])] * 2
    smooth = F.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)
    unit = (points_yx + 0.5) / images.shape[-1] * 2 - 1
    at = F.grid_sample(smooth, unit.flip(-1)[:, :, None], align_corners=False, padding_mode="border")[:, 0, :, 0]
    unlike = (smooth - at[:, :, None, None]).abs()
    return [
        torch.zeros_like(images[:, 0]) if nothing else torch.exp(-unlike.masked_fill(away, 1e9).amin(dim=1) / 0.08)
        for nothing, away in zip(none, absent, strict=True)
    ]


def drawn_clicks(
    points_yx: Tensor, labels: Tensor, axis: Tensor, radii: tuple[float, ...]
) -> tuple[list[Tensor], list[Tensor]]:
    """Inside and outside clicks as Gaussian blobs of each radius, the highest where they overlap: (B, n, n) each.

    points_yx: (B, P, 2); labels: (B, P); axis: (n,) where the pixels of either axis lie, in the points' unit.
    """
    away = (axis - points_yx[..., None]).square()  # (B, P, 2, n)
    drawn: tuple[list[Tensor], list[Tensor]] = ([], [])
    signs = [labels == sign for sign in (1, 0)]
    nothing = [None if chosen.any() else away.new_zeros(len(away), len(axis), len(axis)) for chosen in signs]
    for radius in radii:
        # A Gaussian is the product of its profiles: an exponential per row and column, not per pixel.
        profiles = torch.exp(-away / (2 * radius**2))
        for maps, chosen, empty in zip(drawn, signs, nothing, strict=True):
            if empty is not None:  # spares work on every pixel
                maps.append(empty)
                continue
            rows = profiles[:, :, 0] * chosen[..., None]
            blobs = rows[..., :, None] * profiles[:, :, 1, None, :]
            maps.append(blobs[:, 0] if blobs.shape[1] == 1 else blobs.amax(dim=1))
    return drawn


def drawn_mask(logits: Tensor, there: Tensor, softness: float) -> Tensor:
    """Logits (B, 1, S, S) of an earlier mask as a map in (-1, 1), 0 where there (B,) is none: (B, S, S)."""
    if not there.any():  # spares a tangent of every pixel
        return torch.zeros_like(logits[:, 0])
    return (logits[:, 0].clamp(-8, 8) / softness).tanh() * there[:, None, None].to(logits.dtype)


def _prior(batch: FocusBatch, boxed: Tensor, clicked: Tensor) -> Tensor:
    """Where the object probably is, (B, S, S) in [0, 1]: an earlier mask, else the box, else the guess or the click."""
    guessed = torch.where(batch.has_coarse[:, None, None], batch.coarse[:, 0].sigmoid(), clicked)
    prior = torch.where(batch.has_box[:, None, None], boxed, guessed)
    return torch.where(batch.has_previous[:, None, None], batch.previous[:, 0].sigmoid(), prior)


@torch.no_grad()
def typical(images: Tensor, prior: Tensor) -> Tensor:
    """How much likelier each grey value is in the object than around it: log ratio in [-2, 2], (B, S, S).

    images: (B, S, S) in [0, 1]; prior: (B, S, S). Two rounds: after the first, pixels that do not look like the object
    count less as part of it (Rother et al. 2004 iterate so, with mixtures of Gaussians for histograms).
    """
    images, weight = images.float(), prior.float().flatten(1)
    smooth = F.avg_pool2d(images[:, None], 3, stride=1, padding=1, count_include_pad=False)
    index = (smooth * _BINS).long().clamp(0, _BINS - 1).flatten(1)
    ratio = torch.zeros_like(weight)
    for _ in range(2):
        inside = weight * (0.2 + 0.8 * ratio.sigmoid())
        shares = [
            F.avg_pool1d(
                torch.zeros(len(images), 1, _BINS, device=images.device).scatter_add_(2, index[:, None], part[:, None]),
                3, stride=1, padding=1,
            )[:, 0]
            for part in (inside, 1 - weight)
        ]  # fmt: skip
        logs = [((share + 1e-3) / (share + 1e-3).sum(dim=1, keepdim=True) + 5e-3).log() for share in shares]
        ratio = (logs[0] - logs[1]).gather(1, index).clamp(-4, 4)
    return (ratio / 2).view_as(images)
