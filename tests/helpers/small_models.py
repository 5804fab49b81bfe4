"""Small models of every family with seeded weights, made as the full ones are; each takes a fraction of a second."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from monai.networks.blocks.selfattention import SABlock
from torch import nn
from transformers import (
    DeformableDetrConfig,
    DeformableDetrModel,
    DetrConfig,
    DetrModel,
    ResNetConfig,
    SamConfig,
    SamHQConfig,
    SamHQModel,
    SwinConfig,
    UperNetConfig,
)

from napari_medtransformer.attention.layout import TokenLayout
from napari_medtransformer.attention.sites import SiteSpec
from napari_medtransformer.models import InputContract, LabelInfo, ModelCard, find_card
from napari_medtransformer.models.initial import draw_weights
from napari_medtransformer.models.sam import SamAdapter, random_sam
from napari_medtransformer.models.sam2 import Hiera, Sam2Adapter, empty_sam2, sam2_config
from napari_medtransformer.models.sam_hq import SamHQAdapter
from napari_medtransformer.models.sam_med2d import SamMed2DAdapter, adapted_sam
from napari_medtransformer.models.sam_med3d import SamMed3DModel
from napari_medtransformer.models.sam_med3d_network import SamMed3D, SamMed3DConfig

CPU, FLOAT = torch.device("cpu"), torch.float32


def sam_config(kind: type[SamConfig] = SamConfig, *, size: int = 128, **changed: Any) -> Any:
    """128² input, 8 × 8 tokens; blocks of windows of 3, which pad the grid, global, and windows again; 4 heads.

    changed: other sizes of the image encoder. kind: SamConfig, or SamHQConfig.
    """
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": size,
        "window_size": 3,
        "global_attn_indexes": [1],
    } | changed
    prompts = {"image_size": size, "patch_size": vision.get("patch_size", 16)}
    decoder = {"mask_decoder_config": {"vit_dim": vision["hidden_size"]}} if kind is SamHQConfig else {}
    return kind(vision_config=vision, prompt_encoder_config=prompts, **decoder)


def small_sam(seed: int = 0, **changed: Any) -> SamAdapter:
    """A SAM of `sam_config`."""
    return SamAdapter(find_card("sam-vit-b"), random_sam(sam_config(**changed), seed), CPU, FLOAT)


def small_sam_hq(seed: int = 0) -> SamHQAdapter:
    """A SAM-HQ of the same sizes."""
    return SamHQAdapter(find_card("sam-hq-vit-b"), random_sam(sam_config(SamHQConfig), seed, SamHQModel), CPU, FLOAT)


def small_sam_med2d(seed: int = 0) -> SamMed2DAdapter:
    """A SAM-Med2D of the same sizes, with windows of 5."""
    network = random_sam(sam_config(window_size=5), seed, adapted_sam)
    return SamMed2DAdapter(find_card("sam-med2d"), network, CPU, FLOAT)


SMALL_HIERA = Hiera(16, 1, (1, 2, 3, 1), (4,), (8, 4, 6, 3), 7)
"""Every kind of block there is: windows that pad, pooled queries, global attention."""
SAM2_SIZE = 128


def small_sam2_network(seed: int = 0) -> Any:
    """transformers' Sam2Model of SMALL_HIERA."""
    network = draw_weights(empty_sam2(sam2_config(SMALL_HIERA, SAM2_SIZE)), seed)
    network.shared_image_embedding.positional_embedding.copy_(
        network.prompt_encoder.shared_embedding.positional_embedding
    )
    return network


def small_sam2(seed: int = 0) -> Sam2Adapter:
    """A SAM 2.1 without memory."""
    return Sam2Adapter(find_card("sam2.1-hiera-t"), small_sam2_network(seed), CPU, FLOAT)


SMALL_SAM_MED3D = SamMed3DConfig(
    size=64, width=48, depth=3, heads=4, global_blocks=(1,), window=5, decoder_width=48, decoder_heads=4
)


def small_sam_med3d(seed: int = 0) -> SamMed3DModel:
    """A SAM-Med3D with crops of 64³ voxels and 4³ tokens."""
    return SamMed3DModel(find_card("sam-med3d"), draw_weights(SamMed3D(SMALL_SAM_MED3D), seed), CPU, FLOAT)


def segformer_card(labels: int = 150) -> ModelCard:
    """SegFormer B0's card with the first labels."""
    card = find_card("segformer-b0-ade20k")
    return replace(card, name="segformer-test", labels=card.labels[:labels])


def upernet_card(labels: int = 6) -> ModelCard:
    """UperNet Swin-T's card with the first labels."""
    card = find_card("upernet-swin-t-ade20k")
    return replace(card, name="upernet-test", labels=card.labels[:labels])


def upernet_config(window: int = 5, heads: tuple[int, ...] = (2, 2, 2, 2), width: int = 16) -> UperNetConfig:
    """A UperNet of 6 classes on a Swin transformer of two blocks a stage."""
    backbone = SwinConfig(
        embed_dim=width,
        depths=[2, 2, 2, 2],
        num_heads=list(heads),
        window_size=window,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return UperNetConfig(
        backbone_config=backbone,
        hidden_size=16,
        num_labels=6,
        auxiliary_in_channels=4 * width,
        auxiliary_channels=16,
    )


def window_card(family: str, architecture: str, size: tuple[int, int, int]) -> ModelCard:
    """A card of an automatic model of two labels for windows of `size`, (z, y, x)."""
    return ModelCard(
        name="tested",
        title="tested",
        family=family,
        architecture=architecture,
        builder="a.b:c",
        task="automatic",
        dimensions=3,
        input=InputContract(size, clip=(0.0, 1.0)),
        labels=(LabelInfo(1, "a", (1, 0, 0)), LabelInfo(2, "b", (0, 1, 0))),
        licence="none",
        citation="none",
        description="none",
    )


def small_detr(implementation: str = "sdpa", deformable: bool = False) -> nn.Module:
    """transformers' DETR, or Deformable DETR, of two layers on each side."""
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage2", "stage3", "stage4"]
    )
    sizes = {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 2 if not deformable else 4,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "num_queries": 6,
        "backbone_config": backbone,
        "use_timm_backbone": False,
        "use_pretrained_backbone": False,
        "backbone": None,
    }
    torch.manual_seed(0)
    kind, config = (DeformableDetrModel, DeformableDetrConfig) if deformable else (DetrModel, DetrConfig)
    if deformable:
        sizes["num_feature_levels"] = 4
    network = kind(config(**sizes)).eval()
    # the backbone, a ResNet, knows no attention and would refuse the word
    network.config._attn_implementation = implementation
    return network


_PATCH = 8


def randomised(network: nn.Module) -> nn.Module:
    """Position tables away from their zero start."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "rel_pos" in name:
                nn.init.normal_(parameter)
    return network.eval()


class Volumetric(nn.Module):
    """Cubic patches and two residual blocks of MONAI's attention with relative positions along three axes."""

    def __init__(self, side: int, save_attn: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv3d(1, 24, _PATCH, stride=_PATCH)
        options = {"rel_pos_embedding": "decomposed", "input_size": (side,) * 3, "save_attn": save_attn}
        self.blocks = nn.ModuleList(SABlock(24, 3, qkv_bias=True, **options) for _ in range(2))

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """volume: (B, 1, z, y, x)."""
        x = self.patches(volume).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = x + block(x)
        return x

    def sites(self) -> list[SiteSpec]:
        """Of both blocks."""
        layout = TokenLayout((_PATCH,) * 3)
        return [SiteSpec(f"encoder.{i}", f"blocks.{i}", "global", 3, layout, layout) for i in range(2)]
