"""SAM 2.1 (Ravi et al. 2024) and MedSAM2 (Ma et al. 2025) on images and slices, on transformers' network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Sam2Config, Sam2Model, Sam2VideoConfig

from napari_medtransformer.attention.sites import SiteSpec
from napari_medtransformer.models.base import PromptToken
from napari_medtransformer.models.card import ModelCard, architecture_of
from napari_medtransformer.models.following import Follower
from napari_medtransformer.models.initial import draw_weights, empty
from napari_medtransformer.models.sam2_following import MemoryFollower
from napari_medtransformer.models.sam2_memory import Sam2Memory
from napari_medtransformer.models.sam2_names import memory_names, transformers_names
from napari_medtransformer.models.sam_family import PromptTensors, SamFamilyAdapter
from napari_medtransformer.models.transformers_attention import attention_sites
from napari_medtransformer.models.weights import fill


@dataclass(frozen=True)
class Hiera:
    """A published image encoder: width and heads of its first stage, and what lies in each of the four stages.

    background: side of the grid of learned positions that is stretched over the image (Bolya et al. 2023).
    """

    width: int
    heads: int
    blocks: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    windows: tuple[int, int, int, int]
    background: int


_HIERA = {
    "hiera-t": Hiera(96, 1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), 7),
    "hiera-s": Hiera(96, 1, (1, 2, 11, 2), (7, 10, 13), (8, 4, 14, 7), 7),
    "hiera-b-plus": Hiera(112, 2, (2, 3, 16, 3), (12, 16, 20), (8, 4, 14, 7), 14),
    "hiera-l": Hiera(144, 2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8), 7),
}
# input pixels per token of the image embedding and of the two finer feature maps
_STRIDES = (4, 8, 16)


class Sam2Adapter(SamFamilyAdapter):
    """A Sam2Model of any configuration behind the interface of promptable models.

    network: the image part, which answers prompts. memory: what follows an object from slice to slice; None for a
    checkpoint of the image part alone, whose slices are followed by their masks instead.
    """

    def __init__(
        self,
        card: ModelCard,
        network: Sam2Model,
        device: torch.device,
        dtype: torch.dtype,
        memory: Sam2Memory | None = None,
    ) -> None:
        prompts = network.config.prompt_encoder_config
        size, grid = prompts.image_size, prompts.image_size // prompts.patch_size
        super().__init__(card, network, device, dtype, size=size, grid=grid)
        self._sam = network
        self.memory = memory

    @property
    def input_size(self) -> int:
        """Pixels per side of the network's input."""
        return self._size

    def follower(self) -> Follower | None:
        """The memory of one object in one direction, if the checkpoint has the memory's weights."""
        return None if self.memory is None else MemoryFollower(self, self.memory)

    def attention_sites(self) -> list[SiteSpec]:
        """The encoder's blocks, then the three attentions of each decoder layer, then the decoder's last one."""
        return attention_sites(self._sam)

    def _features(self, pixels: Tensor) -> tuple[Tensor, ...]:
        levels = list(self._sam.get_image_features(pixels).fpn_hidden_states)
        # an image is a frame without memory of others
        levels[-1] = levels[-1] + self._sam.no_memory_embedding
        sides = [self._size // stride for stride in _STRIDES]
        return tuple(
            level.permute(1, 2, 0).unflatten(-1, (side, side)) for level, side in zip(levels, sides, strict=True)
        )

    def without_memory_embedding(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """An embedding's maps as the encoder made them, before the coarsest was told that it has no memory."""
        *fine, coarse = features
        return (*fine, coarse - self._sam.no_memory_embedding.view(1, -1, 1, 1))

    def positions(self, features: Tensor) -> Tensor:
        """The encoder's sinusoidal positions, (1, channels, rows, columns) as the map given."""
        positions: Tensor = self._sam.vision_encoder.neck.position_encoding(
            features.shape, features.device, features.dtype
        )
        return positions

    def decode_frame(self, features: tuple[Tensor, ...], mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The decoder without clicks: masks (3, h, w), scores (3,), mask tokens (1, 3, width), presence (1,).

        features: the image's maps, the coarsest last. mask: (1, 1, h, w) logits as a prompt, or None.
        """
        nowhere = features[-1].new_zeros(1, 1, 1, 2)
        empty = torch.full((1, 1, 1), -1, device=nowhere.device)
        if mask is not None:
            size = self._sam.prompt_encoder.mask_input_size
            mask = F.interpolate(mask, size=size, mode="bilinear", antialias=True, align_corners=False)
        sparse, dense = self._sam.prompt_encoder(nowhere, empty, None, mask)
        masks, scores, tokens, presence = self._sam.mask_decoder(
            image_embeddings=features[-1],
            image_positional_embeddings=self._sam.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            high_resolution_features=list(features[:-1]),
        )
        return masks[0, 0], scores[0, 0], tokens[:, 0], presence[0, 0]

    def _masks(self, features: tuple[Tensor, ...], given: PromptTensors, several: bool) -> tuple[Tensor, Tensor]:
        sparse, dense = self._sam.prompt_encoder(given.points, given.labels, given.boxes, given.mask)
        if sparse is None:  # a mask alone
            sparse = features[-1].new_zeros(1, 1, 0, dense.shape[1])
        masks, scores, *_ = self._sam.mask_decoder(
            image_embeddings=features[-1],
            image_positional_embeddings=self._sam.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
            high_resolution_features=list(features[:-1]),
        )
        return masks[0, 0], scores[0, 0]

    def _own_tokens(self) -> list[PromptToken]:
        masks = self._sam.config.mask_decoder_config.num_multimask_outputs + 1
        return [PromptToken("presence"), PromptToken("score"), *(PromptToken(f"mask {i}") for i in range(masks))]


def build(
    card: ModelCard, weights: Mapping[str, Tensor] | None, *, seed: int, device: torch.device, dtype: torch.dtype
) -> Sam2Adapter:
    """A SAM 2.1 of the card's architecture. weights: Meta's or transformers' names; None for random ones from `seed`.

    Raises UnreadableWeights if they do not fit, UnsupportedModel for an unknown architecture.
    """
    network = empty_sam2(sam2_config(architecture_of(card, _HIERA, "Hiera"), card.input.size[0]))
    memory = Sam2Memory(memory_config(card.input.size[0]))
    if weights is None:
        draw_weights(network, seed)
        network.shared_image_embedding.positional_embedding.copy_(
            network.prompt_encoder.shared_embedding.positional_embedding
        )
        draw_weights(memory, seed)
    else:
        fill(network, transformers_names(weights), card.name)
        remembering = memory_names(weights)
        if not remembering:  # a checkpoint of the image part alone
            return Sam2Adapter(card, network, device, dtype)
        fill(memory, remembering, f"the memory of {card.name}")
    return Sam2Adapter(card, network, device, dtype, memory)


def sam2_config(hiera: Hiera, size: int) -> Sam2Config:
    """The configuration of a SAM 2.1 for square images of `size` pixels per side."""
    stages = range(len(hiera.blocks))
    widths = [hiera.width * 2**stage for stage in stages]
    return Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": hiera.width,
                "num_attention_heads": hiera.heads,
                "image_size": [size, size],
                "blocks_per_stage": list(hiera.blocks),
                "embed_dim_per_stage": widths,
                "num_attention_heads_per_stage": [hiera.heads * 2**stage for stage in stages],
                "window_size_per_stage": list(hiera.windows),
                "global_attention_blocks": list(hiera.global_blocks),
                "window_positional_embedding_background_size": [hiera.background] * 2,
            },
            "backbone_channel_list": widths[::-1],
            "backbone_feature_sizes": [[size // stride] * 2 for stride in _STRIDES],
        },
        prompt_encoder_config={"image_size": size},
    )


def memory_config(size: int) -> Sam2VideoConfig:
    """The configuration of SAM 2.1's memory for square images of `size` pixels per side."""
    grid = size // _STRIDES[-1]
    config = Sam2VideoConfig(image_size=size, memory_attention_rope_feat_sizes=[grid, grid])
    config._attn_implementation = "sdpa"
    return config


def empty_sam2(config: Sam2Config) -> Sam2Model:
    """A Sam2Model with uninitialised parameters that runs fused attention."""
    return empty(lambda: Sam2Model._from_config(config, attn_implementation="sdpa"))
