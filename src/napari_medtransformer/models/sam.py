"""Segment Anything (Kirillov et al. 2023) of any size, on transformers' network with the attention made fused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SamConfig, SamHQModel, SamModel, SamVisionConfig

from napari_medtransformer.attention.layout import TokenLayout
from napari_medtransformer.attention.sites import SiteSpec
from napari_medtransformer.models.base import PromptToken
from napari_medtransformer.models.card import ModelCard, architecture_of
from napari_medtransformer.models.initial import draw_weights, empty
from napari_medtransformer.models.sam_blocks import encoder_sites, use_fused_attention
from napari_medtransformer.models.sam_family import PromptTensors, SamFamilyAdapter, decoder_sites
from napari_medtransformer.models.sam_names import transformers_names
from napari_medtransformer.models.weights import fill

# width, blocks, heads and global blocks of the published image encoders
_VISION: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "vit-b": (768, 12, 12, (2, 5, 8, 11)),
    "vit-l": (1024, 24, 16, (5, 11, 17, 23)),
    "vit-h": (1280, 32, 16, (7, 15, 23, 31)),
}


class SamAdapter(SamFamilyAdapter):
    """A SamModel of any configuration, or one of its kin, behind the interface of promptable models."""

    def __init__(
        self, card: ModelCard, network: SamModel | SamHQModel, device: torch.device, dtype: torch.dtype
    ) -> None:
        vision = network.config.vision_config
        size, patch = vision.image_size, vision.patch_size
        super().__init__(card, use_fused_attention(network), device, dtype, size=size, grid=size // patch)
        self._sam = network

    def attention_sites(self) -> list[SiteSpec]:
        """The encoder's blocks, then the three attentions of each decoder layer, then the decoder's last one."""
        vision, decoder = self._sam.config.vision_config, self._sam.config.mask_decoder_config
        image = TokenLayout((vision.patch_size,) * 2, (self._grid,) * 2)
        return encoder_sites(self._sam.vision_encoder, image) + decoder_sites(
            "mask_decoder.transformer", decoder.num_hidden_layers, decoder.num_attention_heads, image
        )

    def _features(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return (self._sam.vision_encoder(pixels).last_hidden_state,)

    def _masks(self, features: tuple[Tensor, ...], given: PromptTensors, several: bool) -> tuple[Tensor, Tensor]:
        sparse, dense = self._sam.prompt_encoder(given.points, given.labels, given.boxes, given.mask)
        masks, scores, *_ = self._sam.mask_decoder(
            image_embeddings=features[0],
            image_positional_embeddings=self._sam.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
            **self._decoder_inputs(features),
        )
        return masks[0, 0], scores[0, 0]

    def _decoder_inputs(self, features: tuple[Tensor, ...]) -> dict[str, Any]:
        """What the mask decoder takes beside the image embedding and the prompts."""
        return {}

    def _own_tokens(self) -> list[PromptToken]:
        masks = self._sam.config.mask_decoder_config.num_multimask_outputs + 1
        return [PromptToken("score"), *(PromptToken(f"mask {i}") for i in range(masks))]


def build(
    card: ModelCard, weights: Mapping[str, Tensor] | None, *, seed: int, device: torch.device, dtype: torch.dtype
) -> SamAdapter:
    """A SAM of the card's architecture. weights: Meta's or transformers' names; None for random ones from `seed`.

    Raises UnreadableWeights if they do not fit, UnsupportedModel for an unknown architecture.
    """
    size = card.input.size[0]
    config = SamConfig(vision_config=SamVisionConfig(**vision_sizes(card)), prompt_encoder_config={"image_size": size})
    if weights is None:
        return SamAdapter(card, random_sam(config, seed), device, dtype)
    network = empty_sam(config)
    fill(network, transformers_names(weights), card.name)
    return SamAdapter(card, network, device, dtype)


def vision_sizes(card: ModelCard) -> dict[str, Any]:
    """The image encoder's configuration for a card. Raises UnsupportedModel for an unknown architecture."""
    width, blocks, heads, global_blocks = architecture_of(card, _VISION, "SAM")
    return {
        "hidden_size": width,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "global_attn_indexes": list(global_blocks),
        "image_size": card.input.size[0],
    }


def empty_sam(config: Any, make: Callable[[Any], nn.Module] = SamModel) -> Any:
    """A SamModel, or one of its kin, with uninitialised parameters. make: its class, or what makes it of a config."""
    config._attn_implementation = "sdpa"
    network: Any = empty(lambda: make(config))
    # one matrix under two names; leaving the meta device made two of it
    network.prompt_encoder.shared_embedding = network.shared_image_embedding
    return network


def random_sam(config: Any, seed: int, make: Callable[[Any], nn.Module] = SamModel) -> Any:
    """A SamModel, or one of its kin, with weights drawn from `seed`, whose attention depends on the image.

    transformers' own initialisation is made for loading: its encoder starts at 1e-10.
    """
    return draw_weights(empty_sam(config, make), seed)
