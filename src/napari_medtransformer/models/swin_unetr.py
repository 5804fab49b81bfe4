"""SwinUNETR as an automatic model: MONAI's, as published, and the compact one that this package trains."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from monai.networks.nets.swin_unetr import SwinUNETR
from torch import Tensor, nn

from napari_medtransformer.errors import UnsupportedModel
from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.compact import MULTIPLE, compact_config, compact_network
from napari_medtransformer.models.initial import draw_weights
from napari_medtransformer.models.monai_attention import use_fused_attention
from napari_medtransformer.models.weights import fill
from napari_medtransformer.models.window_model import PATIENT_RAS, WindowModel, own_names

# MONAI's SwinUNETR halves its windows five times.
MONAI_MULTIPLE = 32


def build(
    card: ModelCard, weights: Mapping[str, Tensor] | None, *, seed: int, device: torch.device, dtype: torch.dtype
) -> WindowModel:
    """A SwinUNETR with `weights`, or with random ones drawn from `seed`.

    card.architecture: "compact"; "monai-<feature size>" for MONAI's on (z, y, x) growing to Superior, Posterior and
    Left; "monai-<feature size>-ras" for one trained on (x, y, z) growing to Right, Anterior and Superior, as published
    ones are: its windows are turned, because cyclic shifts and patch merging tell the sides apart.
    Raises UnreadableWeights, UnsupportedModel.
    """
    if card.architecture == "compact":
        network: nn.Module = compact_network(compact_config(card), seed)
        if weights is not None:
            fill(network, weights, card.name)
        return WindowModel(card, network, device, dtype, multiple=MULTIPLE)
    parts = card.architecture.split("-")
    if len(parts) not in (2, 3) or parts[0] != "monai" or not parts[1].isdigit() or parts[2:] not in ([], ["ras"]):
        raise UnsupportedModel(
            f"{card.name}: no SwinUNETR architecture {card.architecture!r}; expected compact, or monai- and a feature "
            "size, then perhaps -ras."
        )
    network = SwinUNETR(card.input.channels, len(card.labels) + 1, feature_size=int(parts[1]))
    if weights is None:
        draw_weights(network, seed)
    else:
        fill(network, own_names(weights, network), card.name)
    network, turn = use_fused_attention(network), PATIENT_RAS if len(parts) == 3 else None
    return WindowModel(card, network, device, dtype, multiple=MONAI_MULTIPLE, turn=turn)
