"""The network of SAM-Med3D (Wang et al. 2023): SAM with every layer in 3D, on (z, y, x) and with fused attention.

The published network runs on (x, y, z). This one runs on (z, y, x), so that its tokens lie as voxels do; `turned`
reverses the spatial axes of a published checkpoint's kernels and tables, and the results are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medtransformer.attention.bias import KeyTermsBias
from napari_medtransformer.attention.fused import attend
from napari_medtransformer.attention.relative import relative_table


@dataclass(frozen=True)
class SamMed3DConfig:
    """Sizes of the published network: a ViT-B encoder of 128³ in patches of 16³, a decoder 384 wide.

    window: tokens per side of a window; it is larger than the grid of 8³ tokens, which is padded to it.
    """

    size: int = 128
    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    window: int = 14
    decoder_width: int = 384
    decoder_heads: int = 8
    decoder_depth: int = 2
    decoder_hidden: int = 2048
    score_hidden: int = 256
    mask_channels: int = 16
    masks: int = 4

    @property
    def grid(self) -> int:
        """Tokens per side."""
        return self.size // self.patch


class SamMed3D(nn.Module):
    """Image encoder, prompt encoder and mask decoder under the published names."""

    def __init__(self, config: SamMed3DConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config)
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)

    def encode(self, crops: Tensor) -> Tensor:
        """crops: (B, 1, size, size, size). Returns (B, decoder_width, grid, grid, grid)."""
        return self.image_encoder(crops)

    def decode(self, image: Tensor, points_xyz: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """All masks of one object. image: as encoded, B = 1. points_xyz: (1, n, 3) voxels of the crop; labels: (1, n).

        mask: (1, 1, size/4, …) logits of an earlier answer, zeros if there is none. Returns logits
        (1, masks, size/4, …) and expected IoU (1, masks); the first mask is the one the authors use.
        """
        sparse, dense = self.prompt_encoder(points_xyz, labels, mask)
        return self.mask_decoder(image, self.prompt_encoder.grid_positions(), sparse, dense)


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of (B, C, z, y, x)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, values: Tensor) -> Tensor:
        """values: (B, C, z, y, x)."""
        return super().forward(values.movedim(1, -1)).movedim(-1, 1)


class Perceptron(nn.Module):
    """Two linear layers, as in every block."""

    def __init__(self, width: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.lin1, self.lin2, self.act = nn.Linear(width, hidden), nn.Linear(hidden, width), activation

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (…, width)."""
        return self.lin2(self.act(self.lin1(tokens)))


class BlockAttention(nn.Module):
    """Self-attention of a cube of tokens with relative positions, as the published network computes them.

    It adds q(z, y, x) · R_d[x, kz] + q(kx, y, x) · R_h[y, kz] + q(ky, y, x) · R_w[ky, kz] to the score of the query at
    (z, y, x) and the key at (kz, ky, kx), where q(i, y, x) is the query at height i: its sums broadcast over other axes
    than those they are of. Trained weights expect that, so it is kept.
    """

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.rel_pos_d, self.rel_pos_h, self.rel_pos_w = (
            nn.Parameter(torch.zeros(2 * side - 1, width // heads)) for _ in range(3)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, n, n, n, width) over (z, y, x). Returns the same shape."""
        batch, side, _, _, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, side**3, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        out = attend(q, k, v, bias=self._bias(q, side))
        return self.proj(out.transpose(1, 2).reshape(batch, side, side, side, width))

    def _bias(self, q: Tensor, side: int) -> KeyTermsBias:
        cube = q.unflatten(2, (side,) * 3)
        depth, height, last = (relative_table(p, side).to(q.dtype) for p in self._tables())
        # the rows of queries that differ in z alone are shared
        return KeyTermsBias(
            (side,) * 3,
            (
                (torch.einsum("bhzyxc,xkc->bhzyxk", cube, depth).flatten(2, 4), (0,)),
                (torch.einsum("bhzyxc,ykc->bhyxkz", cube, height).flatten(2, 3), (0, 2)),
                (torch.einsum("bhzyxc,zkc->bhyxkz", cube, last).flatten(2, 3), (0, 1)),
            ),
        )

    def _tables(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.rel_pos_d, self.rel_pos_h, self.rel_pos_w


class Block(nn.Module):
    """A transformer block, global or in windows that pad the grid at the end of each axis."""

    def __init__(self, config: SamMed3DConfig, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attn = BlockAttention(config.width, config.heads, window or config.grid)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = Perceptron(config.width, 4 * config.width, nn.GELU())

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, z, y, x, width)."""
        normed = self.norm1(tokens)
        tokens = tokens + (self._in_windows(normed) if self.window else self.attn(normed))
        return tokens + self.mlp(self.norm2(tokens))

    def _in_windows(self, tokens: Tensor) -> Tensor:
        batch, *grid, width = tokens.shape
        w = self.window
        counts = [-(-n // w) for n in grid]
        spare = [c * w - n for c, n in zip(counts, grid, strict=True)]
        padded = F.pad(tokens, (0, 0, 0, spare[2], 0, spare[1], 0, spare[0]))
        split = padded.reshape(batch, counts[0], w, counts[1], w, counts[2], w, width)
        windows = split.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, w, w, w, width)
        attended = self.attn(windows).reshape(batch, *counts, w, w, w, width)
        whole = attended.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(padded.shape)
        return whole[:, : grid[0], : grid[1], : grid[2]]


class PatchEmbedding(nn.Module):
    """Patches as tokens."""

    def __init__(self, config: SamMed3DConfig) -> None:
        super().__init__()
        self.proj = nn.Conv3d(1, config.width, kernel_size=config.patch, stride=config.patch)

    def forward(self, crops: Tensor) -> Tensor:
        """crops: (B, 1, z, y, x). Returns (B, z, y, x, width)."""
        return self.proj(crops).movedim(1, -1)


class ImageEncoder(nn.Module):
    """A ViT with windows (Li et al. 2022, ViTDet) in 3D."""

    def __init__(self, config: SamMed3DConfig) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(config)
        self.pos_embed = nn.Parameter(torch.zeros(1, *(config.grid,) * 3, config.width))
        self.blocks = nn.ModuleList(
            Block(config, 0 if i in config.global_blocks else config.window) for i in range(config.depth)
        )
        out = config.decoder_width
        self.neck = nn.Sequential(
            nn.Conv3d(config.width, out, kernel_size=1, bias=False),
            ChannelNorm(out),
            nn.Conv3d(out, out, kernel_size=3, padding=1, bias=False),
            ChannelNorm(out),
        )

    def forward(self, crops: Tensor) -> Tensor:
        """crops: (B, 1, z, y, x). Returns (B, decoder_width, *grid)."""
        tokens = self.patch_embed(crops) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        return self.neck(tokens.movedim(-1, 1))


class FourierPositions(nn.Module):
    """Positions in [0, 1] as waves of random frequencies: sine, cosine, and the sine again, as published."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, frequencies: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(3, frequencies))

    def forward(self, unit: Tensor) -> Tensor:
        """unit: (…, 3). Returns (…, 3 · frequencies)."""
        angles = 2 * math.pi * ((2 * unit - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos(), angles.sin()], dim=-1)


class PromptEncoder(nn.Module):
    """Clicks as tokens, and an earlier mask as a grid."""

    def __init__(self, config: SamMed3DConfig) -> None:
        super().__init__()
        self._size, self._grid = config.size, config.grid
        width, channels = config.decoder_width, config.mask_channels
        self.pe_layer = FourierPositions(width // 3)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, width) for _ in range(2))
        self.not_a_point_embed = nn.Embedding(1, width)
        self.mask_downscaling = nn.Sequential(
            nn.Conv3d(1, channels // 4, kernel_size=2, stride=2),
            ChannelNorm(channels // 4),
            nn.GELU(),
            nn.Conv3d(channels // 4, channels, kernel_size=2, stride=2),
            ChannelNorm(channels),
            nn.GELU(),
            nn.Conv3d(channels, width, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, width)

    def forward(self, points_xyz: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """points_xyz: (1, n, 3) voxel centres; labels: (1, n). Returns tokens (1, n + 1, width) and a grid."""
        places = self.pe_layer((points_xyz + 0.5) / self._size)
        signs = torch.cat([embedding.get_parameter("weight") for embedding in self.point_embeddings])
        tokens = places + signs[labels.long()]
        # the last token is an empty place
        return torch.cat([tokens, self.not_a_point_embed.weight[None]], dim=1), self.mask_downscaling(mask)

    def grid_positions(self) -> Tensor:
        """The encoding of every token of the image, (1, width, z, y, x).

        The published network swaps the first two axes here and not for clicks; trained weights expect that.
        """
        device = self.not_a_point_embed.weight.device
        unit = (torch.arange(self._grid, device=device, dtype=torch.float32) + 0.5) / self._grid
        z, y, x = torch.meshgrid(unit, unit, unit, indexing="ij")
        return self.pe_layer(torch.stack([y, x, z], dim=-1)).movedim(-1, 0)[None]


class DecoderAttention(nn.Module):
    """Attention between two sets of tokens, possibly in fewer dimensions."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """queries: (B, n, width). keys, values: (B, m, width). Returns (B, n, width)."""
        q, k, v = (
            projection(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, tokens in ((self.q_proj, queries), (self.k_proj, keys), (self.v_proj, values))
        )
        return self.out_proj(attend(q, k, v).transpose(1, 2).flatten(2))


class TwoWayLayer(nn.Module):
    """Prompts attend to themselves and to the image, then the image attends to the prompts (Kirillov et al. 2023)."""

    def __init__(self, config: SamMed3DConfig, first: bool) -> None:
        super().__init__()
        width, heads = config.decoder_width, config.decoder_heads
        self._first = first
        self.self_attn = DecoderAttention(width, heads, width)
        self.cross_attn_token_to_image = DecoderAttention(width, heads, width // 2)
        self.cross_attn_image_to_token = DecoderAttention(width, heads, width // 2)
        self.mlp = Perceptron(width, config.decoder_hidden, nn.ReLU())
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(width) for _ in range(4))

    def forward(self, tokens: Tensor, image: Tensor, places: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """tokens, places: (B, n, width). image, grid: (B, voxels, width)."""
        if self._first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + places
            tokens = tokens + self.self_attn(placed, placed, tokens)
        tokens = self.norm1(tokens)
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + places, image + grid, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(image + grid, tokens + places, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """The decoder's layers and its last look at the image."""

    def __init__(self, config: SamMed3DConfig) -> None:
        super().__init__()
        width, heads = config.decoder_width, config.decoder_heads
        self.layers = nn.ModuleList(TwoWayLayer(config, i == 0) for i in range(config.decoder_depth))
        self.final_attn_token_to_image = DecoderAttention(width, heads, width // 2)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(self, image: Tensor, grid: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """image, grid: (B, voxels, width). places: (B, n, width), the tokens as they come in."""
        tokens = places
        for layer in self.layers:
            tokens, image = layer(tokens, image, places, grid)
        tokens = tokens + self.final_attn_token_to_image(tokens + places, image + grid, image)
        return self.norm_final_attn(tokens), image


class Head(nn.Module):
    """Three linear layers."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, out)])

    def forward(self, values: Tensor) -> Tensor:
        """values: (B, width). Returns (B, out)."""
        first, second, last = self.layers
        return last(F.relu(second(F.relu(first(values)))))


class MaskDecoder(nn.Module):
    """Masks and their expected IoU from an image and prompts."""

    def __init__(self, config: SamMed3DConfig) -> None:
        super().__init__()
        width = config.decoder_width
        self.transformer = TwoWayTransformer(config)
        self.iou_token, self.mask_tokens = nn.Embedding(1, width), nn.Embedding(config.masks, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose3d(width, width // 4, kernel_size=2, stride=2),
            ChannelNorm(width // 4),
            nn.GELU(),
            nn.ConvTranspose3d(width // 4, width // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(Head(width, width, width // 8) for _ in range(config.masks))
        self.iou_prediction_head = Head(width, config.score_hidden, config.masks)

    def forward(self, image: Tensor, grid: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """image, dense: (1, width, z, y, x). grid: their positions. sparse: (1, n, width)."""
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])[None]
        source = image + dense
        tokens, voxels = self.transformer(
            source.flatten(2).transpose(1, 2), grid.flatten(2).transpose(1, 2), torch.cat([own, sparse], dim=1)
        )
        fine = self.output_upscaling(voxels.transpose(1, 2).reshape(source.shape))
        weights = torch.stack([head(tokens[:, 1 + i]) for i, head in enumerate(self.output_hypernetworks_mlps)], dim=1)
        return torch.einsum("bmc,bczyx->bmzyx", weights, fine), self.iou_prediction_head(tokens[:, 0])


def turned(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint of the network on (x, y, z) as one on (z, y, x), and the other way round."""
    return {
        name: value.permute(0, 3, 2, 1, 4).contiguous()
        if name.endswith("pos_embed")
        else value.permute(0, 1, 4, 3, 2).contiguous()
        if value.ndim == 5
        else value
        for name, value in state.items()
    }
