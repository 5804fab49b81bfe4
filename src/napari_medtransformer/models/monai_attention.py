"""MONAI's transformers (ViT, UNETR, SwinUNETR) with fused attention, and where their attention happens."""

from __future__ import annotations

import math
from typing import Any

import torch
from monai.networks.blocks.selfattention import SABlock
from monai.networks.nets.swin_unetr import BasicLayer, SwinTransformer, WindowAttention, get_window_size
from monai.networks.nets.vit import ViT
from torch import Tensor, nn

from napari_medtransformer.attention.bias import Bias, DecomposedBias, DenseBias, KeyTermsBias, WindowBias
from napari_medtransformer.attention.fused import attend
from napari_medtransformer.attention.layout import TokenLayout
from napari_medtransformer.attention.relative import relative_table
from napari_medtransformer.attention.sites import SiteSpec
from napari_medtransformer.errors import UnsupportedModel


class FusedSABlock(SABlock):
    """MONAI's self-attention block without the tokens × tokens matrix; a block that must keep it runs as it was.

    MONAI's own flash switch hands the dropout rate to the kernel in eval mode as well, and refuses relative positions.
    """

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """x: (B, tokens, width). attn_mask: (B, tokens), 0 for keys to leave out."""
        if self.save_attn or (self.training and self.dropout_rate > 0):
            return super().forward(x, attn_mask)
        if self.use_combined_linear:
            q, k, v = self.input_rearrange(self.qkv(x)).unbind(0)
        else:
            q, k, v = (self.input_rearrange(layer(x)) for layer in (self.to_q, self.to_k, self.to_v))
        if self.attention_dtype is not None:
            q, k, v = (t.to(self.attention_dtype) for t in (q, k, v))
        out = self.out_rearrange(attend(q, k, v, bias=self._bias(q, attn_mask), scale=self.scale).to(x.dtype))
        return self.drop_output(self.out_proj(out) if self.include_fc else out)

    def _bias(self, q: Tensor, attn_mask: Tensor | None) -> Bias | None:
        if self.rel_positional_embedding is not None:
            if attn_mask is not None or self.causal:
                raise UnsupportedModel("relative positions together with a mask are not supported; drop one of them.")
            positions = self.rel_positional_embedding.rel_pos_arr
            sizes = tuple(int(n) for n in self.rel_positional_embedding.s_input_dims)
            tables = tuple(relative_table(p, n) for p, n in zip(positions, sizes, strict=True))
            return DecomposedBias(tables) if len(tables) == 2 else monai_bias_3d(q, tables)
        keep = None
        if attn_mask is not None:
            keep = (attn_mask != 0)[:, None, None, :]
        if self.causal:
            past = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()
            keep = past if keep is None else keep & past
        return None if keep is None else DenseBias(keep)


def monai_bias_3d(q: Tensor, tables: tuple[Tensor, ...]) -> KeyTermsBias:
    """The relative positions that MONAI 1.6 adds to scores along three axes, as its broadcasting lays them out.

    q: (B, heads, n³, head_dim), unscaled. tables: three (n, n, head_dim), over query and key positions.
    To the score of the query at (h, w, d) and the key at (i, j, k) `add_decomposed_rel_pos` adds
    q(h, w, d) · R_h[h, k] + q(h, w, i) · R_w[w, k] + q(h, w, j) · R_d[w, k], q(h, w, i) being the query at depth i:
    its sums spread over other axes than those they are of, and the third table is read at the query's place along the
    second axis. Trained weights expect that, so it is kept. It only fits together on cubes.
    Raises UnsupportedModel for another grid.
    """
    sides = tuple(table.shape[0] for table in tables)
    if len(set(sides)) != 1:
        raise UnsupportedModel(f"relative positions on a grid of {sides}; along three axes MONAI's only fit cubes.")
    side = sides[0]
    grid = q.unflatten(2, sides)
    first, second, third = (table.to(q.dtype) for table in tables)
    return KeyTermsBias(
        sides,
        (
            (torch.einsum("bnhwdc,hkc->bnhwdk", grid, first).flatten(2, 4), (2,)),
            (torch.einsum("bnhwdc,wkc->bnhwdk", grid, second).flatten(2, 3), (0, 2)),
            (torch.einsum("bnhwdc,wkc->bnhwdk", grid, third).flatten(2, 3), (1, 2)),
        ),
        # queries that differ in depth alone share the rows of the second and third term
        (1, side, side),
    )


class FusedWindowAttention(WindowAttention):
    """MONAI's window attention over regions instead of a mask per window.

    FusedBasicLayer hands `mask` as (windows, tokens) region numbers; tokens of different regions do not see each
    other. A mask as MONAI makes it, (windows, tokens, tokens), is taken as well.
    """

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x: (B · windows, tokens, width)."""
        entries, n, width = x.shape
        if self.training and self.attn_drop.p > 0:
            return super().forward(x, mask if mask is None or mask.ndim == 3 else dense_mask(mask))
        qkv = self.qkv(x).reshape(entries, n, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        # a window smaller than the trained one takes the first rows and columns, as MONAI does
        index = self.relative_position_index[:n, :n]
        table = self.relative_position_bias_table[index].permute(2, 0, 1)
        if mask is not None and mask.ndim == 3:
            # the first token a token sees names its region
            mask = (mask == 0).to(torch.uint8).argmax(dim=-1)
        out = attend(q, k, v, bias=WindowBias(table, mask), scale=self.scale)
        return self.proj_drop(self.proj(out.transpose(1, 2).reshape(entries, n, width)))


class FusedBasicLayer(BasicLayer):
    """A stage of MONAI's Swin transformer that describes the cyclic shift by regions: windows × tokens numbers."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, width, *grid)."""
        if getattr(self, "use_hyena", False):  # MONAI before 1.6.1 knows of none
            return super().forward(x)
        grid = tuple(x.shape[2:])
        window, shift = get_window_size(grid, self.window_size, self.shift_size)
        x = x.movedim(1, -1).contiguous()
        regions = shift_regions(grid, window, shift).to(x.device)
        for block in self.blocks:
            x = block(x, regions)
        x = x.view(x.shape[0], *grid, -1)
        if self.downsample is not None:
            x = self.downsample(x)
        return x.movedim(-1, 1).contiguous()


def shift_regions(grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]) -> Tensor:
    """(windows, tokens per window) numbers of the regions that meet in a window after a cyclic shift.

    grid is padded to whole windows. Of each axis the last window's two parts and the rest are apart (Liu et al. 2021).
    """
    number = torch.zeros((), dtype=torch.long)
    split: list[int] = []
    for n, w, s in zip(grid, window, shift, strict=True):
        padded = math.ceil(n / w) * w
        part = torch.zeros(padded, dtype=torch.long)
        part[padded - w :] = 1
        if s:
            part[padded - s :] = 2
        number = number[..., None] * 3 + part
        split += [padded // w, w]
    axes = len(grid)
    order = [2 * a for a in range(axes)] + [2 * a + 1 for a in range(axes)]
    return number.reshape(split).permute(order).reshape(-1, math.prod(window))


def dense_mask(regions: Tensor) -> Tensor:
    """(windows, tokens) region numbers as the mask MONAI adds to scores: (windows, tokens, tokens), 0 or -100."""
    return torch.where(regions[:, :, None] == regions[:, None, :], 0.0, -100.0)


_FUSED: dict[type, type] = {
    SABlock: FusedSABlock,
    WindowAttention: FusedWindowAttention,
    BasicLayer: FusedBasicLayer,
}


def use_fused_attention(network: nn.Module) -> nn.Module:
    """The same network, its MONAI attention blocks computing fused; parameters, names and modes stay as they are."""
    for module in network.modules():
        if type(module) in _FUSED:
            module.__class__ = _FUSED[type(module)]
    return network


def attention_sites(network: nn.Module) -> list[SiteSpec]:
    """The self-attention sites of MONAI's ViT, UNETR, Swin transformer and SwinUNETR, in the order in which they run.

    ViT blocks are called encoder.0, encoder.1, …, Swin's encoder.<stage>.<block>. Raises UnsupportedModel if there are
    none.
    """
    sites: list[SiteSpec] = []
    for path, module in network.named_modules():
        prefix = f"{path}." if path else ""
        if isinstance(module, ViT):
            sites += _vit_sites(module, prefix)
        elif isinstance(module, SwinTransformer):
            sites += _swin_sites(module, prefix)
    if not sites:
        raise UnsupportedModel(f"{type(network).__name__} has no ViT or Swin transformer of MONAI inside.")
    return sites


def _vit_sites(vit: Any, prefix: str) -> list[SiteSpec]:
    layer: Any = vit.patch_embedding.patch_embeddings
    if isinstance(layer, nn.Sequential):  # cut by einops, then a linear layer
        sizes: Any = layer[0].axes_lengths
        patch = tuple(int(sizes[f"p{axis + 1}"]) for axis in range(len(sizes)))
    else:
        patch = tuple(int(size) for size in layer.kernel_size)
    layout = TokenLayout(patch, prefix=1 if hasattr(vit, "cls_token") else 0)
    return [
        SiteSpec(f"encoder.{i}", f"{prefix}blocks.{i}.attn", "global", block.attn.num_heads, layout, layout)
        for i, block in enumerate(vit.blocks)
    ]


def _swin_sites(swin: Any, prefix: str) -> list[SiteSpec]:
    sites = []
    for stage in range(swin.num_layers):
        layers = getattr(swin, f"layers{stage + 1}")
        for j, layer in enumerate(layers):
            for i, block in enumerate(layer.blocks):
                if not isinstance(getattr(block, "attn", None), WindowAttention):
                    continue
                layout = TokenLayout(
                    patch=tuple(p * 2**stage for p in swin.patch_size),
                    window=tuple(block.window_size),
                    shift=tuple(block.shift_size),
                    shrink_windows=True,
                )
                module = f"{prefix}layers{stage + 1}.{j}.blocks.{i}.attn"
                sites.append(SiteSpec(f"encoder.{stage}.{i}", module, "window", block.attn.num_heads, layout, layout))
    return sites
