"""Building blocks of both looks of the click network: convolutions, attention, and what tells a good mask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_dtype: ContextVar[torch.dtype] = ContextVar("convolution_dtype", default=torch.float32)


@contextmanager
def convolutions_in(dtype: torch.dtype) -> Iterator[None]:
    """Inside, the factors of this module's convolutions are rounded to `dtype`; everything else stays as it is.

    Where a processor multiplies bfloat16 natively a convolution takes half the time. Autocast would also round what
    comes between, which is slower in bfloat16 there, not faster.
    """
    token = _dtype.set(dtype)
    try:
        yield
    finally:
        _dtype.reset(token)


def convolution_dtype() -> torch.dtype:
    """What convolutions multiply in here and now."""
    return _dtype.get()


Kernel = tuple[Tensor, Tensor | None]


class Conv2d(nn.Conv2d):
    """A convolution in the number format that `convolutions_in` asks for.

    Its kernel rounded to that format is kept from one answer to the next, until the parameters change.
    """

    _kept: tuple[tuple[object, ...], Kernel] | None = None

    def forward(self, x: Tensor) -> Tensor:
        return self.over(x)

    def over(self, x: Tensor, channels: slice | None = None, *, biased: bool = True) -> Tensor:
        """The share of the answer that some of its input channels have, all by default; in the format of x."""
        dtype = convolution_dtype()
        if dtype == torch.float32:
            weight, bias = self._kernel(channels)
            return F.conv2d(x, weight, bias if biased else None, self.stride, self.padding)
        weight, bias = self._rounded(dtype, channels)
        return F.conv2d(x.to(dtype), weight, bias if biased else None, self.stride, self.padding).to(x.dtype)

    def _kernel(self, channels: slice | None) -> Kernel:
        """Weight and bias over some input channels."""
        return self.weight if channels is None else self.weight[:, channels], self.bias

    def _rounded(self, dtype: torch.dtype, channels: slice | None) -> Kernel:
        # Parameters count how often they were changed in place, unless they were made for inference alone; what is kept
        # must not get into a graph.
        inference = torch.is_inference_mode_enabled() and not self.weight.is_inference()
        state: tuple[object, ...] = ()
        if inference:
            changes = [p._version for p in (self.weight, self.bias) if p is not None]
            state = (dtype, channels and (channels.start, channels.stop), self.weight.data_ptr(), *changes)
            if self._kept is not None and self._kept[0] == state:
                return self._kept[1]
        weight, bias = self._kernel(channels)
        rounded = weight.to(dtype), None if bias is None else bias.to(dtype)
        if inference:
            self._kept = state, rounded
        return rounded


class GroupNorm(nn.GroupNorm):
    """Over eight groups. Gradients in bfloat16 are found in float32, of large maps in a half to a fifth of the time."""

    def __init__(self, channels: int) -> None:
        super().__init__(8, channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.bfloat16 and torch.is_grad_enabled():
            return super().forward(x.float()).to(x.dtype)
        return super().forward(x)


class ResidualConv(nn.Module):
    """Two 3x3 convolutions with a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = GroupNorm(channels), Conv2d(channels, channels, 3, padding=1)
        self.norm2, self.conv2 = GroupNorm(channels), Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.gelu(self.norm1(x)))
        return x + self.conv2(F.gelu(self.norm2(y)))


# Gain of normalised queries and keys before training: scores of standard deviation 1.7 for unrelated tokens.
FIRST_GAIN = 1.3


class Attention(nn.Module):
    """Multi-head attention over (B, N, width), queries and keys given apart; the kernel is torch's fused SDPA.

    sharp: queries and keys are normalised and scaled by learned gains (Henry et al. 2020, QK-norm), so that attention
    is not uniform from the start; short trainings otherwise leave it so.
    """

    def __init__(self, width: int, heads: int, *, sharp: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.q_norm, self.k_norm = (nn.RMSNorm(width // heads, eps=1e-6) if sharp else nn.Identity() for _ in range(2))
        for norm in (self.q_norm, self.k_norm):
            if isinstance(norm, nn.RMSNorm):
                nn.init.constant_(norm.weight, FIRST_GAIN)
        self.q, self.k, self.v = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None = None) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.q, query), (self.k, key), (self.v, value))
        )
        # Under autocast the gains stay float32, and so must what they scale.
        q, k = self.q_norm(q.float()).to(v.dtype), self.k_norm(k.float()).to(v.dtype)
        mask = None if key_mask is None else key_mask[:, None, None, :]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out


class MLP(nn.Sequential):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int, hidden: int, out: int | None = None) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out or width))


class Block(nn.Module):
    """A pre-norm transformer block (Dosovitskiy et al. 2021) whose branches start small (LayerScale)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads, sharp=True)
        self.norm2, self.mlp = nn.LayerNorm(width), MLP(width, 4 * width)
        self.scale1, self.scale2 = (nn.Parameter(torch.full((width,), 0.1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.scale1 * self.attention(y, y, y)
        out: Tensor = x + self.scale2 * self.mlp(self.norm2(x))
        return out


def double(x: Tensor) -> Tensor:
    """Twice the size, bilinear."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class TwoWayLayer(nn.Module):
    """Prompt tokens attend to themselves and to the image; the image attends back to the prompts (SAM, fig. 14)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads)
        self.prompt_to_image = Attention(width, heads)
        self.image_to_prompt = Attention(width, heads)
        self.mlp = MLP(width, 2 * width)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(width) for _ in range(4))

    def forward(
        self, prompts: Tensor, image: Tensor, prompt_position: Tensor, image_position: Tensor, used: Tensor
    ) -> tuple[Tensor, Tensor]:
        query = prompts + prompt_position
        prompts = self.norm1(prompts + self.self_attention(query, query, prompts, used))
        query = prompts + prompt_position
        prompts = self.norm2(prompts + self.prompt_to_image(query, image + image_position, image))
        prompts = self.norm3(prompts + self.mlp(prompts))
        query = prompts + prompt_position
        image = self.norm4(image + self.image_to_prompt(image + image_position, query, prompts, used))
        return prompts, image


def mask_evidence(logits: Tensor, features: Tensor) -> Tensor:
    """What tells a good mask from a bad one: features inside and just outside, its size, and how sure it is.

    logits: (B, m, S/2, S/2); features: (B, C, S/8, S/8). Returns (B, m, 2C + 2).
    """
    chance = logits.sigmoid()
    inside = F.avg_pool2d(chance, 4)
    rim = (F.max_pool2d(inside, 5, stride=1, padding=2) - inside).clamp(min=0)
    area = inside.sum(dim=(2, 3))
    means = [
        torch.einsum("bmhw,bchw->bmc", part, features.float()) / (part.sum(dim=(2, 3))[..., None] + 1e-3)
        for part in (inside, rim)
    ]
    sure = (chance * (2 * chance - 1).abs()).sum(dim=(2, 3)) / (chance.sum(dim=(2, 3)) + 1e-3)
    return torch.cat([*means, (area + 0.1).log()[..., None] / 4, sure[..., None]], dim=2)
