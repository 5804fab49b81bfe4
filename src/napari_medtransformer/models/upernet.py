"""UperNet (Xiao et al. 2018) on a Swin transformer (Liu et al. 2021), on transformers' network, slice by slice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import SwinConfig, UperNetConfig, UperNetForSemanticSegmentation

from napari_medtransformer.attention.sites import SiteSpec
from napari_medtransformer.models.card import ModelCard, architecture_of
from napari_medtransformer.models.initial import draw_weights
from napari_medtransformer.models.renaming import Renames
from napari_medtransformer.models.segformer import names_of
from napari_medtransformer.models.slice_segmenter import SliceSegmenter, classes_of
from napari_medtransformer.models.swin_attention import swin_sites, use_fused_attention
from napari_medtransformer.models.weights import fill

# width of the first stage, blocks and heads per stage, window (Liu et al. 2021, section 3.3)
_SIZES: dict[str, tuple[int, tuple[int, ...], tuple[int, ...], int]] = {
    "swin-t": (96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    "swin-s": (96, (2, 2, 18, 2), (3, 6, 12, 24), 7),
    "swin-b": (128, (2, 2, 18, 2), (4, 8, 16, 32), 12),
    "swin-l": (192, (2, 2, 18, 2), (6, 12, 24, 48), 12),
}
# published names to those of transformers 5.23
_RENAMES: Renames = (
    (r"^backbone\.embeddings\.", "backbone.swin.embeddings."),
    (r"^backbone\.encoder\.", "backbone.swin.encoder."),
    (r"^backbone\.layernorm\.", "backbone.swin.layernorm."),
    (r"\.attention\.self\.query\.", ".attention.q_proj."),
    (r"\.attention\.self\.key\.", ".attention.k_proj."),
    (r"\.attention\.self\.value\.", ".attention.v_proj."),
    (
        r"\.attention\.self\.relative_position_bias_table$",
        ".attention.relative_position_bias.relative_position_bias_table",
    ),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
# which places differ by how much: a constant of the window's size, saved by older releases
_CONSTANT = "relative_position_index"
# a norm that the backbone has and never runs; published files leave it out
_UNUSED = "backbone.swin.layernorm."


class UperNetModel(SliceSegmenter):
    """A UperNetForSemanticSegmentation on a Swin backbone behind the interface of automatic models."""

    def _slice_logits(self, slices: Tensor) -> Tensor:
        return self.network(slices).logits

    def attention_sites(self) -> list[SiteSpec]:
        """Every block's window attention, in turn un-shifted and shifted."""
        return swin_sites(self.network.backbone, "backbone.")


def build(
    card: ModelCard, weights: Mapping[str, Tensor] | None, *, seed: int, device: torch.device, dtype: torch.dtype
) -> UperNetModel:
    """A UperNet of the card's architecture. weights: transformers' names, as published or as of 5.23.

    Raises UnreadableWeights if they do not fit, UnsupportedModel for an unknown architecture.
    """
    width, blocks, heads, window = architecture_of(card, _SIZES, "Swin")
    backbone = SwinConfig(
        embed_dim=width,
        depths=list(blocks),
        num_heads=list(heads),
        window_size=window,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    # the third stage's channels, where the auxiliary head of the published models looks
    config = UperNetConfig(
        backbone_config=backbone, num_labels=classes_of(card, weights), auxiliary_in_channels=4 * width
    )
    network = UperNetForSemanticSegmentation(config)
    if weights is None:
        draw_weights(network, seed)
    else:
        fill(network, own_names(weights, network), card.name)
    return UperNetModel(card, use_fused_attention(network), device, dtype)


def own_names(weights: Mapping[str, Tensor], network: Any) -> dict[str, Tensor]:
    """A published checkpoint's tensors under the names of the installed transformers' network, constants left out."""
    state = {name: value for name, value in weights.items() if not name.endswith(_CONSTANT)}
    named = names_of(state, network, _RENAMES)
    for name, value in network.state_dict().items():
        if name.startswith(_UNUSED):
            named.setdefault(name, value)
    return named
