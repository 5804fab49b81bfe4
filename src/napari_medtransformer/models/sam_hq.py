"""SAM-HQ (Ke et al. 2023, Segment Anything in High Quality) on transformers' network with the attention made fused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import SamHQConfig, SamHQModel, SamHQVisionConfig

from napari_medtransformer.models.base import PromptToken
from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.sam import SamAdapter, empty_sam, random_sam, vision_sizes
from napari_medtransformer.models.sam_names import transformers_names
from napari_medtransformer.models.weights import fill


class SamHQAdapter(SamAdapter):
    """A SamHQModel of any configuration behind the interface of promptable models.

    Each of its candidates is one of SAM's masks and the high-quality token's mask added up.
    """

    def _features(self, pixels: Tensor) -> tuple[Tensor, ...]:
        encoded = self._sam.vision_encoder(pixels)
        # of the early features, the decoder uses those after the first global block
        return encoded.last_hidden_state, encoded.intermediate_embeddings[0]

    def _decoder_inputs(self, features: tuple[Tensor, ...]) -> dict[str, Any]:
        return {"hq_token_only": False, "intermediate_embeddings": [features[1]]}

    def _own_tokens(self) -> list[PromptToken]:
        return [*super()._own_tokens(), PromptToken("high-quality mask")]


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
