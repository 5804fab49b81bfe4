"""SAM-Med2D (Cheng et al. 2023): SAM ViT-B at 256² with an adapter beside the perceptron of each encoder block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SamConfig, SamModel, SamVisionConfig

from napari_medtransformer.models.base import Prompts
from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.sam import SamAdapter, empty_sam, random_sam, vision_sizes
from napari_medtransformer.models.sam_family import PromptTensors
from napari_medtransformer.models.sam_names import transformers_names
from napari_medtransformer.models.weights import fill

_HIDDEN = 0.25  # width of the adapter's channel attention, as a fraction of the encoder's


class BlockAdapter(nn.Module):
    """Channels weighted by a squeeze and excitation, then a strided convolution and its transpose, beside the input.

    Cheng et al. 2023, figure 4. In and out: (B, rows, columns, width), rows and columns even.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = int(width * _HIDDEN)
        self.norm = nn.LayerNorm(width)
        self.channel = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, width, bias=False), nn.Sigmoid()
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(width, width, kernel_size=3, stride=2, padding=1, bias=False),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, kernel_size=4, stride=2, padding=1, bias=False),
            nn.ReLU(),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, rows, columns, width). Returns the same shape."""
        weighted = tokens * self.channel(tokens.mean(dim=(1, 2)))[:, None, None]
        spatial = self.spatial(weighted.movedim(-1, 1)).movedim(1, -1)
        return self.norm(tokens + spatial)


class AdaptedPerceptron(nn.Module):
    """A block's perceptron and the adapter beside it: both see the normalised tokens, and their outputs add up."""

    def __init__(self, perceptron: Any) -> None:
        super().__init__()
        self.lin1, self.lin2, self.act = perceptron.lin1, perceptron.lin2, perceptron.act
        self.adapter = BlockAdapter(self.lin1.in_features)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, rows, columns, width). Returns the same shape."""
        return self.lin2(self.act(self.lin1(tokens))) + self.adapter(tokens)


class SamMed2DAdapter(SamAdapter):
    """A SamModel with block adapters behind the interface of promptable models.

    It was trained to answer every prompt with its three masks, of which the best counts, and with the probabilities of
    an earlier answer, not their logits, as a mask prompt.
    """

    def _wants_several(self, prompts: Prompts) -> bool:
        return True

    def _masks(self, features: tuple[Tensor, ...], given: PromptTensors, several: bool) -> tuple[Tensor, Tensor]:
        mask = None if given.mask is None else given.mask.sigmoid()
        return super()._masks(features, PromptTensors(given.points, given.labels, given.boxes, mask), several)


def build(
    card: ModelCard, weights: Mapping[str, Tensor] | None, *, seed: int, device: torch.device, dtype: torch.dtype
) -> SamMed2DAdapter:
    """A SAM-Med2D. weights: the authors' names; None for random ones from `seed`.

    Raises UnreadableWeights if they do not fit, UnsupportedModel for an unknown architecture.
    """
    size = card.input.size[0]
    config = SamConfig(vision_config=SamVisionConfig(**vision_sizes(card)), prompt_encoder_config={"image_size": size})
    if weights is None:
        return SamMed2DAdapter(card, random_sam(config, seed, adapted_sam), device, dtype)
    network = empty_sam(config, adapted_sam)
    fill(network, transformers_names(weights), card.name)
    return SamMed2DAdapter(card, network, device, dtype)


def adapted_sam(config: SamConfig) -> SamModel:
    """A SamModel with an adapter in each block of its image encoder."""
    network = SamModel(config)
    for layer in network.vision_encoder.layers:
        layer.mlp = AdaptedPerceptron(layer.mlp)
    return network
