"""SwinUNETR as an automatic model: MONAI's, as published, and the compact one that this package trains."""

from __future__ import annotations

import warnings
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

# A tensor that a checkpoint of the self-supervised encoder has under this name, and no other.
_ENCODER_ALONE = "layers1.0.blocks.0.attn.qkv.weight"
_PRETRAINING = ("norm.", "convTrans3d.", "rotation_head.", "contrastive_head.")
# MONAI's SwinUNETR halves its windows five times.
MONAI_MULTIPLE = 32


def build(
    card: ModelCard, weights: Mapping[str, Tensor] | None, *, seed: int, device: torch.device, dtype: torch.dtype
) -> WindowModel:
    """A SwinUNETR with `weights`, or with random ones drawn from `seed`.

    card.architecture: "compact"; "monai-<feature size>" for MONAI's on (z, y, x) growing to Superior, Posterior and
    Left; "monai-<feature size>-ras" for one trained on (x, y, z) growing to Right, Anterior and Superior, as published
    ones are: its windows are turned, because cyclic shifts and patch merging tell the sides apart. MONAI's also takes
    the self-supervised encoder alone (model_swinvit.pt), with a warning: its decoder is drawn from `seed`.
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
    alone = weights is not None and _ENCODER_ALONE in weights
    if weights is None or alone:
        draw_weights(network, seed)
    if weights is not None:
        fill(network, encoder_names(weights, network) if alone else own_names(weights, network), card.name)
    if alone:
        warnings.warn(
            f"{card.name}: these weights are those of the encoder alone, before any training on labels; its attention "
            "can be looked at and it can be trained on, but the labels that it gives mean nothing.",
            stacklevel=2,
        )
    network, turn = use_fused_attention(network), PATIENT_RAS if len(parts) == 3 else None
    return WindowModel(card, network, device, dtype, multiple=MONAI_MULTIPLE, turn=turn)


def encoder_names(weights: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The self-supervised encoder's tensors under this network's names, the network's own for its decoder.

    What pre-training had beside the encoder, its last norm and its heads, is left out by name. Tang et al. 2022.
    """
    encoder = {f"swinViT.{name}": value for name, value in weights.items() if not name.startswith(_PRETRAINING)}
    own = {name: value for name, value in network.state_dict().items() if not name.startswith("swinViT.")}
    return {**own, **own_names(encoder, network)}
