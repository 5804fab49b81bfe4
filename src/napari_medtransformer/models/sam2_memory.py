"""SAM 2's memory of an object: what it looked like on the slices before, as on a video's frames (Ravi et al. 2024).

A slice's features attend to memories: maps of the marked slice and of the last six, made of features and mask together,
and pointers, the decoder's tokens of the object on the marked slice and on the last fifteen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import Sam2VideoConfig
from transformers.models.sam2_video.modeling_sam2_video import (
    Sam2VideoFeedForward,
    Sam2VideoMemoryAttention,
    Sam2VideoMemoryEncoder,
)

_POINTER_LAYERS = 3
_TEMPERATURE = 10_000  # of the sinusoids that tell how long ago a pointer was made (Vaswani et al. 2017)


@dataclass(frozen=True, eq=False)
class Remembered:
    """One slice in memory. features, positions: (tokens, 1, memory width). pointer: (1, width)."""

    features: Tensor
    positions: Tensor
    pointer: Tensor


class Sam2Memory(nn.Module):
    """The part of SAM 2.1 that only following needs; its names are those of transformers' Sam2VideoModel.

    Only inference: dropout is never active. Maps are (1, channels, rows, columns).
    """

    def __init__(self, config: Sam2VideoConfig) -> None:
        super().__init__()
        width, self.width = config.memory_attention_hidden_size, config.memory_encoder_output_channels
        self.slots = config.num_maskmem
        self.pointers = config.max_object_pointers_in_encoder
        self._scale, self._bias = config.sigmoid_scale_for_mem_enc, config.sigmoid_bias_for_mem_enc
        self.memory_attention = Sam2VideoMemoryAttention(config)
        self.memory_encoder = Sam2VideoMemoryEncoder(config)
        self.no_memory_positional_encoding = nn.Parameter(torch.zeros(1, 1, width))
        self.memory_temporal_positional_encoding = nn.Parameter(torch.zeros(self.slots, 1, 1, self.width))
        self.no_object_pointer = nn.Parameter(torch.zeros(1, width))
        self.mask_downsample = nn.Conv2d(1, 1, kernel_size=4, stride=4)
        self.object_pointer_proj = Sam2VideoFeedForward(width, width, width, _POINTER_LAYERS)
        self.temporal_positional_encoding_projection_layer = nn.Linear(width, self.width)
        self.occlusion_spatial_embedding_parameter = nn.Parameter(torch.zeros(1, self.width))
        self.eval()

    def pointer(self, token: Tensor, present: bool) -> Tensor:
        """The pointer (1, width) that a decoder's mask token (1, width) becomes."""
        pointer: Tensor = self.object_pointer_proj(token) if present else self.no_object_pointer
        return pointer

    def remember(self, features: Tensor, logits: Tensor, pointer: Tensor, *, marked: bool, present: bool) -> Remembered:
        """What is kept of a slice.

        features: the encoder's coarsest map. logits: (1, 1, S, S) of the object at the network's input size.
        marked: whether a person said so; the mask then counts as certain. present: whether there is an object at all.
        """
        chance = (logits > 0).to(logits.dtype) if marked else logits.sigmoid()
        maps, positions = self.memory_encoder(features, chance * self._scale + self._bias)
        if not present:
            maps = maps + self.occlusion_spatial_embedding_parameter[..., None, None]
        # as published: memories are kept in half the bytes
        kept = maps.to(torch.bfloat16).flatten(2).permute(2, 0, 1)
        return Remembered(kept, positions.to(logits.dtype).flatten(2).permute(2, 0, 1), pointer)

    def recall(
        self, features: Tensor, positions: Tensor, marked: Remembered, since: list[Remembered], age: int
    ) -> Tensor:
        """The slice's coarsest map, having attended to what is remembered.

        features, positions: of the slice. marked: the slice that the object was marked on, so many slices (age) ago.
        since: the last of those followed since then, in order; the slice to come is the next.
        """
        maps, places = [marked.features], [marked.positions + self.memory_temporal_positional_encoding[-1]]
        for ago in range(min(self.slots - 1, len(since)), 0, -1):
            maps.append(since[-ago].features)
            places.append(since[-ago].positions + self.memory_temporal_positional_encoding[ago - 1])
        latest = since[::-1][: self.pointers - 1]
        pointers = torch.stack([one.pointer for one in (marked, *latest)])
        ages = [age, *range(1, len(latest) + 1)]
        tokens, tokens_age = self._pointer_tokens(pointers, ages)
        recalled = self.memory_attention(
            current_vision_features=features.flatten(2).permute(2, 0, 1),
            current_vision_position_embeddings=positions.flatten(2).permute(2, 0, 1),
            memory=torch.cat([*maps, tokens]).to(features.dtype),
            memory_posision_embeddings=torch.cat([*places, tokens_age]),
            num_object_pointer_tokens=len(tokens),
        )
        # (1, tokens, width) after a squeezed axis of objects, tokens first
        recalled = recalled.reshape(features.shape[2] * features.shape[3], features.shape[1])
        return recalled.T.reshape(features.shape)

    def _pointer_tokens(self, pointers: Tensor, ages: list[int]) -> tuple[Tensor, Tensor]:
        """Pointers (n, 1, width), split to the memory's width, and encodings of how many slices ago each was made."""
        width = pointers.shape[-1]
        when = torch.tensor(ages, dtype=torch.float32, device=pointers.device) / (self.pointers - 1)
        steps = torch.arange(width // 2, dtype=torch.float32, device=pointers.device)
        angles = when[:, None] / _TEMPERATURE ** (2 * (steps // 2) / (width // 2))
        sine = torch.cat([angles.sin(), angles.cos()], dim=-1).to(pointers.dtype)
        age = self.temporal_positional_encoding_projection_layer(sine)[:, None]
        parts = width // self.width
        tokens = pointers.reshape(-1, 1, parts, self.width).permute(0, 2, 1, 3).flatten(0, 1)
        return tokens, age.repeat_interleave(parts, dim=0)
