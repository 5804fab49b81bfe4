"""SegFormer (Xie et al. 2021) of any published size, on transformers' network, slice by slice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from napari_medtransformer.attention.sites import SiteSpec
from napari_medtransformer.models.card import ModelCard, architecture_of
from napari_medtransformer.models.initial import draw_weights, empty
from napari_medtransformer.models.renaming import Renames, renamed
from napari_medtransformer.models.slice_segmenter import SliceSegmenter, classes_of
from napari_medtransformer.models.transformers_attention import attention_sites
from napari_medtransformer.models.weights import fill

# blocks per stage, width of the first stage and of the decoder (Xie et al. 2021, table 6)
_SIZES: dict[str, tuple[tuple[int, int, int, int], int, int]] = {
    "mit-b0": ((2, 2, 2, 2), 32, 256),
    "mit-b1": ((2, 2, 2, 2), 64, 256),
    "mit-b2": ((3, 4, 6, 3), 64, 768),
    "mit-b3": ((3, 4, 18, 3), 64, 768),
    "mit-b4": ((3, 8, 27, 3), 64, 768),
    "mit-b5": ((3, 6, 40, 3), 64, 768),
}
# published names to those of transformers 5.23
_RENAMES: Renames = (
    (r"^segformer\.encoder\.patch_embeddings\.(\d+)\.", r"segformer.stages.\1.patch_embeddings."),
    (r"^segformer\.encoder\.block\.(\d+)\.(\d+)\.", r"segformer.stages.\1.blocks.\2."),
    (r"^segformer\.encoder\.layer_norm\.(\d+)\.", r"segformer.stages.\1.layer_norm."),
    (r"\.attention\.self\.query\.", ".attention.q_proj."),
    (r"\.attention\.self\.key\.", ".attention.k_proj."),
    (r"\.attention\.self\.value\.", ".attention.v_proj."),
    (r"\.attention\.self\.sr\.", ".attention.sequence_reduction.sequence_reduction."),
    (r"\.attention\.self\.layer_norm\.", ".attention.sequence_reduction.layer_norm."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.mlp\.dense(\d)\.", r".mlp.fc\1."),
    (r"\.layer_norm_1\.", ".layernorm_before."),
    (r"\.layer_norm_2\.", ".layernorm_after."),
    (r"^decode_head\.linear_c\.", "decode_head.linear_projections."),
)


class SegformerModel(SliceSegmenter):
    """A SegformerForSemanticSegmentation of any configuration behind the interface of automatic models."""

    def _slice_logits(self, slices: Tensor) -> Tensor:
        return self.network(slices).logits

    def attention_sites(self) -> list[SiteSpec]:
        """Every block's attention: all queries, and keys reduced by the stage's ratio."""
        return attention_sites(self.network)


def build(
    card: ModelCard, weights: Mapping[str, Tensor] | None, *, seed: int, device: torch.device, dtype: torch.dtype
) -> SegformerModel:
    """A SegFormer of the card's architecture. weights: transformers' names, as published or as of 5.23.

    Raises UnreadableWeights if they do not fit, UnsupportedModel for an unknown architecture.
    """
    blocks, width, decoder = architecture_of(card, _SIZES, "SegFormer")
    config = SegformerConfig(
        depths=list(blocks),
        hidden_sizes=[width, 2 * width, 5 * width, 8 * width],
        decoder_hidden_size=decoder,
        num_labels=classes_of(card, weights),
    )
    network = empty_segformer(config)
    if weights is None:
        draw_weights(network, seed)
    else:
        fill(network, names_of(weights, network, _RENAMES), card.name)
    return SegformerModel(card, network, device, dtype)


def empty_segformer(config: SegformerConfig) -> Any:
    """A SegFormer with uninitialised parameters that runs fused attention."""
    return empty(lambda: SegformerForSemanticSegmentation._from_config(config, attn_implementation="sdpa"))


def names_of(weights: Mapping[str, Tensor], network: nn.Module, renames: Renames) -> dict[str, Tensor]:
    """A checkpoint under the names of the network that the installed transformers makes.

    Published names are those of transformers 4; a release that kept them needs no renaming.
    """
    own = network.state_dict().keys()
    if weights.keys() <= own:
        return dict(weights)
    return {renamed(name, renames): value for name, value in weights.items()}
