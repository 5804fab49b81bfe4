"""transformers' Swin transformer with its window attention made fused, and where that attention happens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.models.swin.modeling_swin import SwinAttention

from napari_medtransformer.attention.bias import WindowBias
from napari_medtransformer.attention.fused import attend
from napari_medtransformer.attention.layout import TokenLayout
from napari_medtransformer.attention.sites import SiteSpec
from napari_medtransformer.models.initial import Network


class FusedSwinAttention(SwinAttention):
    """transformers' window attention with the shift as regions, instead of a mask per image, window and head."""

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """hidden_states: (images · windows, tokens, width). attention_mask: (windows, tokens, tokens), 0 or -100."""
        if self.training and self.attention_dropout > 0:
            return super().forward(hidden_states, attention_mask, **kwargs)
        q, k, v = (
            projection(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        # the first token a token sees names its region
        regions = None if attention_mask is None else (attention_mask == 0).to(torch.uint8).argmax(dim=-1)
        bias = WindowBias(self.relative_position_bias()[0], regions)
        out = attend(q, k, v, bias=bias, scale=self.scaling)
        return self.o_proj(out.transpose(1, 2).flatten(2)), None


def use_fused_attention(network: Network) -> Network:
    """The same network, its Swin blocks computing fused; parameters, names and modes stay as they are."""
    for module in network.modules():
        if type(module) is SwinAttention:
            module.__class__ = FusedSwinAttention
    return network


def swin_sites(backbone: Any, prefix: str = "") -> list[SiteSpec]:
    """The window attention of a SwinBackbone, in the order in which it runs: encoder.<stage>.<block>.

    prefix: the backbone's path in the network, with a dot. A backbone pads its grids to whole windows.
    """
    sites = []
    for stage, layer in enumerate(backbone.swin.encoder.layers):
        patch = (backbone.config.patch_size * 2**stage,) * 2
        for i, block in enumerate(layer.blocks):
            shift = (int(block.shift_size),) * 2 if block.shift_size else None
            layout = TokenLayout(patch, window=(int(block.window_size),) * 2, shift=shift)
            module = f"{prefix}swin.encoder.layers.{stage}.blocks.{i}.attention"
            heads = block.attention.num_attention_heads
            sites.append(SiteSpec(f"encoder.{stage}.{i}", module, "window", heads, layout, layout))
    return sites
