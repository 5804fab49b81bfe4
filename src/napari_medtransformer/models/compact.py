"""Small UNETR and SwinUNETR for small volumes: MONAI's blocks, three resolutions below the input's instead of more.

MONAI's UNETR cuts patches of 16 voxels and its SwinUNETR halves five times: a structure of 50 voxels is left with a
handful of tokens. Here a UNETR's patch is 8 voxels and a SwinUNETR halves three times, so both take any window whose
axes are multiples of 8 and have tokens enough for global attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from monai.networks.blocks.dynunet_block import UnetOutBlock
from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock
from monai.networks.nets.swin_unetr import SwinTransformer
from monai.networks.nets.vit import ViT
from torch import Tensor, nn

from napari_medtransformer.errors import UnsupportedModel
from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.monai_attention import use_fused_attention
from napari_medtransformer.models.window_model import allow_any_size

# Every axis of a window is a multiple of this: three halvings.
MULTIPLE = 8
# Tokens per axis of a SwinUNETR's attention window, at most.
_LARGEST_ATTENTION_WINDOW = 8

Kind = Literal["unetr", "swin-unetr"]


@dataclass(frozen=True)
class CompactConfig:
    """Sizes of a compact network. kind: its architecture. classes: background included.

    window: (z, y, x) voxels, multiples of 8. width: channels at full resolution, doubled at every halving.
    hidden, layers, heads: of the UNETR's transformer.
    """

    kind: Kind
    classes: int
    window: tuple[int, int, int]
    channels: int = 1
    width: int = 16
    hidden: int = 192
    layers: int = 8
    heads: int = 6

    def __post_init__(self) -> None:
        if any(n < MULTIPLE or n % MULTIPLE for n in self.window):
            raise ValueError(f"a window's axes are multiples of {MULTIPLE}, unlike {self.window}")
        if self.classes < 2:
            raise ValueError(f"a network tells two classes apart at least, not {self.classes}")

    @property
    def attention_window(self) -> tuple[int, ...]:
        """Tokens (z, y, x) of the SwinUNETR's windows: they tile the grids of all three stages without a rest."""
        eighths = [n // MULTIPLE for n in self.window]
        return tuple(max(d for d in range(1, _LARGEST_ATTENTION_WINDOW + 1) if n % d == 0) for n in eighths)


def _block(inputs: int, outputs: int) -> UnetrBasicBlock:
    return UnetrBasicBlock(3, inputs, outputs, kernel_size=3, stride=1, norm_name="instance", res_block=True)


def _up(inputs: int, outputs: int) -> UnetrUpBlock:
    return UnetrUpBlock(3, inputs, outputs, kernel_size=3, upsample_kernel_size=2, norm_name="instance", res_block=True)


def _token_up(inputs: int, outputs: int, times: int) -> UnetrPrUpBlock:
    """Brings tokens to twice their resolution, then `times` times more."""
    return UnetrPrUpBlock(
        3,
        inputs,
        outputs,
        num_layer=times,
        kernel_size=3,
        stride=1,
        upsample_kernel_size=2,
        norm_name="instance",
        conv_block=True,
        res_block=True,
    )


class CompactUNETR(nn.Module):
    """UNETR (Hatamizadeh et al. 2022) with patches of 8 voxels: a ViT, three skips, a convolutional decoder."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.vit = ViT(
            in_channels=config.channels,
            img_size=config.window,
            patch_size=(MULTIPLE,) * 3,
            hidden_size=config.hidden,
            mlp_dim=4 * config.hidden,
            num_layers=config.layers,
            num_heads=config.heads,
            proj_type="conv",
            qkv_bias=True,
        )
        allow_any_size(self.vit.patch_embedding, config.window, (MULTIPLE,) * 3)
        # The states a third and two thirds of the way up, as UNETR takes them.
        self.taps = (round(config.layers / 3) - 1, round(config.layers * 2 / 3) - 1)
        self.encoder1 = _block(config.channels, width)
        self.encoder2 = _token_up(config.hidden, 2 * width, 1)
        self.encoder3 = _token_up(config.hidden, 4 * width, 0)
        self.decoder3 = _up(config.hidden, 4 * width)
        self.decoder2 = _up(4 * width, 2 * width)
        self.decoder1 = _up(2 * width, width)
        self.out = UnetOutBlock(3, width, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, channels, *window). Logits (b, classes, *window)."""
        grid = tuple(n // MULTIPLE for n in x.shape[2:])
        last, states = self.vit(x)

        def spatial(tokens: Tensor) -> Tensor:
            return tokens.transpose(1, 2).reshape(len(x), -1, *grid)

        third = self.decoder3(spatial(last), self.encoder3(spatial(states[self.taps[1]])))
        second = self.decoder2(third, self.encoder2(spatial(states[self.taps[0]])))
        logits: Tensor = self.out(self.decoder1(second, self.encoder1(x)))
        return logits


class SwinStages(SwinTransformer):
    """A Swin transformer of three stages with a residual convolution before each (He et al. 2023, SwinUNETR-V2).

    The last stage keeps its resolution.
    """

    def __init__(self, **sizes: Any) -> None:
        super().__init__(use_v2=True, spatial_dims=3, **sizes)
        self.layers3[0].downsample = None

    def forward(self, x: Tensor, normalize: bool = True) -> list[Tensor]:
        """x: (b, channels, *window). Features at a half, a quarter, an eighth, and the last stage's at an eighth."""
        features = [self.patch_embed(x)]
        for convolution, stage in (
            (self.layers1c, self.layers1),
            (self.layers2c, self.layers2),
            (self.layers3c, self.layers3),
        ):
            features.append(stage[0](convolution[0](features[-1].contiguous()).contiguous()))
        if not normalize:
            return features
        return [F.layer_norm(f.movedim(1, -1), f.shape[1:2]).movedim(-1, 1) for f in features]


class CompactSwinUNETR(nn.Module):
    """SwinUNETR (Hatamizadeh et al. 2022) of three stages, its windows fitted to the input."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.swinViT = SwinStages(
            in_chans=config.channels,
            embed_dim=2 * width,
            window_size=config.attention_window,
            patch_size=(2, 2, 2),
            depths=(2, 2, 2),
            num_heads=tuple(2 * width * 2**stage // 16 for stage in range(3)),
        )
        self.encoder1 = _block(config.channels, width)
        self.encoder2 = _block(2 * width, 2 * width)
        self.encoder3 = _block(4 * width, 4 * width)
        self.encoder4 = _block(8 * width, 8 * width)
        self.decoder3 = _up(8 * width, 4 * width)
        self.decoder2 = _up(4 * width, 2 * width)
        self.decoder1 = _up(2 * width, width)
        self.out = UnetOutBlock(3, width, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, channels, *window). Logits (b, classes, *window)."""
        half, quarter, eighth, last = self.swinViT(x)
        third = self.decoder3(self.encoder4(eighth + last), self.encoder3(quarter))
        second = self.decoder2(third, self.encoder2(half))
        logits: Tensor = self.out(self.decoder1(second, self.encoder1(x)))
        return logits


def compact_config(card: ModelCard) -> CompactConfig:
    """The configuration that an automatic model's card describes. Raises UnsupportedModel if it describes none."""
    try:
        z, y, x = card.input.size
        kind: Kind = "unetr" if card.family == "unetr" else "swin-unetr"
        return CompactConfig(kind, len(card.labels) + 1, (z, y, x), card.input.channels)
    except ValueError as error:
        raise UnsupportedModel(f"{card.name} cannot be built: {error}.") from error


def compact_network(config: CompactConfig, seed: int) -> CompactUNETR | CompactSwinUNETR:
    """The network of that configuration with weights drawn from `seed`, its attention fused."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CompactUNETR(config) if config.kind == "unetr" else CompactSwinUNETR(config)
    use_fused_attention(network)
    return network
