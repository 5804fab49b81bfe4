"""The blocks of Segment Anything's image encoders (SAM, SAM-HQ), computed without an N×N tensor and without detours."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamMLPBlock
from transformers.models.sam_hq.modeling_sam_hq import SamHQMLPBlock

from napari_medtransformer.attention.bias import DecomposedBias
from napari_medtransformer.attention.fused import attend
from napari_medtransformer.attention.layout import TokenLayout
from napari_medtransformer.attention.relative import relative_table
from napari_medtransformer.attention.sites import SiteKind, SiteSpec
from napari_medtransformer.models.initial import Network

# tokens that go through a perceptron at a time on a processor, by bytes per number: what is between its layers stays
# in the cache, and is enough for matrix units (AMX, bfloat16: a third less time than with half as many)
_TOKENS_AT_ONCE = {4: 1024, 2: 2048}


class FusedSamAttention(nn.Module):
    """The attention of an image encoder's block, its windows included, over the parameters of transformers' own."""

    def __init__(self, original: Any, window: int = 0) -> None:
        super().__init__()
        self.heads: int = original.num_attention_heads
        self.window = window  # tokens per side, 0 for attention of all to all
        self.qkv, self.proj = original.qkv, original.proj
        self.rel_pos_h: nn.Parameter | None = original.rel_pos_h if original.use_rel_pos else None
        self.rel_pos_w: nn.Parameter | None = original.rel_pos_w if original.use_rel_pos else None

    def forward(self, hidden_states: Tensor) -> Tensor:
        """hidden_states: (B, rows, columns, width) of whole images. Returns the same shape."""
        rows, columns = hidden_states.shape[1:3]
        side = (self.window, self.window) if self.window else (rows, columns)
        q, k, v = self._in_windows(self.qkv(hidden_states), side)
        bias = None
        if self.rel_pos_h is not None and self.rel_pos_w is not None:
            bias = DecomposedBias((relative_table(self.rel_pos_h, side[0]), relative_table(self.rel_pos_w, side[1])))
        out = attend(q, k, v, bias=bias)
        counts = -(-rows // side[0]), -(-columns // side[1])
        whole = out.reshape(-1, *counts, self.heads, *side, out.shape[-1]).permute(0, 1, 4, 2, 5, 3, 6)
        whole = whole.reshape(len(hidden_states), counts[0] * side[0], counts[1] * side[1], -1)
        # a slice as it is takes three times as long to project
        projected: Tensor = self.proj(whole[:, :rows, :columns].contiguous())
        return projected

    def _in_windows(self, qkv: Tensor, side: tuple[int, int]) -> tuple[Tensor, ...]:
        """Queries, keys and values of the whole grid, (B, rows, columns, 3 · width), as (windows, heads, N, head_dim).

        What fills up the last windows is what their projection makes of zeros, its bias: padding before it, as the
        authors do, is the same and takes a fifth more arithmetic at 64 × 64 tokens.
        """
        batch, rows, columns, _ = qkv.shape
        down, right = -rows % side[0], -columns % side[1]
        if down or right:
            if self.qkv.bias is None:
                qkv = F.pad(qkv, (0, 0, 0, right, 0, down))
            else:
                filled = self.qkv.bias.to(qkv.dtype).expand(batch, rows + down, columns + right, -1).clone()
                filled[:, :rows, :columns] = qkv
                qkv = filled
        counts = (rows + down) // side[0], (columns + right) // side[1]
        cut = qkv.reshape(batch, counts[0], side[0], counts[1], side[1], 3, self.heads, -1)
        cut = cut.permute(5, 0, 1, 3, 6, 2, 4, 7)
        # a head's tokens one after another, as matrix products read them fastest
        return cut.contiguous().view(3, -1, self.heads, side[0] * side[1], cut.shape[-1]).unbind(0)


class FusedSamLayer(nn.Module):
    """A block of an image encoder over the parameters of transformers' own."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = original.layer_norm1, original.layer_norm2
        self.attn = FusedSamAttention(original.attn, original.window_size)
        self.mlp = original.mlp
        # SAM-HQ's encoder picks the blocks whose output its decoder sees by it
        self.window_size: int = original.window_size

    def forward(self, hidden_states: Tensor) -> Tensor:
        """hidden_states: (B, rows, columns, width) of whole images. Returns the same shape."""
        # the patch embedding leaves channels far apart in memory, and every sum would keep that order
        hidden_states = hidden_states.contiguous()
        attended = self.attn(self.layer_norm1(hidden_states))
        tokens = hidden_states + attended.to(hidden_states.dtype)
        by_token = isinstance(self.mlp, SamMLPBlock | SamHQMLPBlock)
        if not by_token or torch.is_grad_enabled() or tokens.device.type != "cpu":
            return tokens + self.mlp(self.layer_norm2(tokens))
        for part in tokens.flatten(0, 2).split(_TOKENS_AT_ONCE.get(attended.element_size(), 1024)):
            part += self.mlp(self.layer_norm2(part))
        return tokens


def use_fused_attention(network: Network) -> Network:
    """The same network, the blocks of its image encoder replaced by fused ones over the same parameters.

    Takes a SamModel or a SamHQModel, whose encoder's blocks are the same.
    """
    encoder: Any = network.vision_encoder
    for i, layer in enumerate(encoder.layers):
        if not isinstance(layer, FusedSamLayer):
            encoder.layers[i] = FusedSamLayer(layer)
    return network


def encoder_sites(encoder: Any, image: TokenLayout, path: str = "vision_encoder") -> list[SiteSpec]:
    """The blocks of an image encoder, global or in windows that pad the grid. image: the layout of its tokens."""
    sites = []
    for i, layer in enumerate(encoder.layers):
        kind: SiteKind = "window" if layer.window_size > 0 else "global"
        window = (layer.window_size,) * 2 if layer.window_size > 0 else None
        layout = TokenLayout(image.patch, image.grid, window=window)
        sites.append(SiteSpec(f"encoder.{i}", f"{path}.layers.{i}.attn", kind, layer.attn.heads, layout, layout))
    return sites
