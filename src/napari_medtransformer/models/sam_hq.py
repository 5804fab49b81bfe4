"""SAM-HQ (Ke et al. 2023, Segment Anything in High Quality) on transformers' network with the attention made fused."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import SamHQConfig, SamHQModel, SamHQVisionConfig

from napari_medtransformer.attention.sites import SiteSpec, TokenLayout
from napari_medtransformer.models.base import PromptToken
from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.sam import empty_sam, encoder_sites, random_sam, use_fused_attention, vision_sizes
from napari_medtransformer.models.sam_family import PromptTensors, SamFamilyAdapter, decoder_sites
from napari_medtransformer.models.sam_names import transformers_names
from napari_medtransformer.models.weights import fill


class SamHQAdapter(SamFamilyAdapter):
    """A SamHQModel of any configuration behind the interface of promptable models.

    Each of its candidates is one of SAM's masks and the high-quality token's mask added up.
    """

    def __init__(self, card: ModelCard, network: SamHQModel, device: torch.device, dtype: torch.dtype) -> None:
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
        encoded = self._sam.vision_encoder(pixels)
        # of the early features, the decoder uses those after the first global block
        return encoded.last_hidden_state, encoded.intermediate_embeddings[0]

    def _masks(self, features: tuple[Tensor, ...], given: PromptTensors, several: bool) -> tuple[Tensor, Tensor]:
        sparse, dense = self._sam.prompt_encoder(given.points, given.labels, given.boxes, given.mask)
        masks, scores, *_ = self._sam.mask_decoder(
            image_embeddings=features[0],
            image_positional_embeddings=self._sam.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
            hq_token_only=False,
            intermediate_embeddings=[features[1]],
        )
        return masks[0, 0], scores[0, 0]

    def _own_tokens(self) -> list[PromptToken]:
        masks = self._sam.config.mask_decoder_config.num_multimask_outputs + 1
        return [
            PromptToken("score"),
            *(PromptToken(f"mask {i}") for i in range(masks)),
            PromptToken("high-quality mask"),
        ]


def build(
    card: ModelCard, weights: Mapping[str, Tensor] | None, *, seed: int, device: torch.device, dtype: torch.dtype
) -> SamHQAdapter:
    """A SAM-HQ of the card's architecture. weights: the authors' or transformers' names; None for random ones.

    Raises UnreadableWeights if they do not fit, UnsupportedModel for an unknown architecture.
    """
    sizes = vision_sizes(card)
    config = SamHQConfig(
        vision_config=SamHQVisionConfig(**sizes),
        prompt_encoder_config={"image_size": card.input.size[0]},
        mask_decoder_config={"vit_dim": sizes["hidden_size"]},
    )
    if weights is None:
        return SamHQAdapter(card, random_sam(config, seed, SamHQModel), device, dtype)
    network = empty_sam(config, SamHQModel)
    fill(network, transformers_names(weights), card.name)
    return SamHQAdapter(card, network, device, dtype)
