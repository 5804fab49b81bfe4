"""UNETR as an automatic model: MONAI's, as published, and the compact one that this package trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.nets.unetr import UNETR
from torch import Tensor, nn

from napari_medtransformer.errors import UnsupportedModel
from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.compact import MULTIPLE, compact_config, compact_network
from napari_medtransformer.models.initial import draw_weights
from napari_medtransformer.models.monai_attention import use_fused_attention
from napari_medtransformer.models.weights import check_fit, fill
from napari_medtransformer.models.window_model import WindowModel, allow_any_size, own_names

# MONAI's UNETR cuts patches of this many voxels, along every axis.
PATCH = 16
_AXES = (-1, -2, -3)


class AnySizeUNETR(UNETR):
    """MONAI's UNETR for windows of any size, with the names of its parameters."""

    def __init__(self, classes: int, channels: int, window: tuple[int, ...], feature_size: int) -> None:
        super().__init__(
            channels, classes, window, feature_size=feature_size, proj_type="perceptron", norm_name="instance"
        )
        allow_any_size(self.vit.patch_embedding, window, (PATCH,) * 3)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, channels, *window), axes multiples of 16. Logits (b, classes, *window)."""
        grid = tuple(n // PATCH for n in x.shape[2:])
        last, states = self.vit(x)

        def spatial(tokens: Tensor) -> Tensor:
            return tokens.transpose(1, 2).reshape(len(x), -1, *grid)

        third = self.decoder5(spatial(last), self.encoder4(spatial(states[9])))
        second = self.decoder4(third, self.encoder3(spatial(states[6])))
        first = self.decoder3(second, self.encoder2(spatial(states[3])))
        logits: Tensor = self.out(self.decoder2(first, self.encoder1(x)))
        return logits


def build(
    card: ModelCard, weights: Mapping[str, Tensor] | None, *, seed: int, device: torch.device, dtype: torch.dtype
) -> WindowModel:
    """A UNETR with `weights`, or with random ones drawn from `seed`.

    card.architecture: "compact", or "monai-<feature size>" for MONAI's with its published names, whose weights are
    turned to (z, y, x) growing to Superior, Posterior and Left. Raises UnreadableWeights, UnsupportedModel.
    """
    if card.architecture == "compact":
        network: nn.Module = compact_network(compact_config(card), seed)
        if weights is not None:
            fill(network, weights, card.name)
        return WindowModel(card, network, device, dtype, multiple=MULTIPLE)
    kind, _, size = card.architecture.partition("-")
    if kind != "monai" or not size.isdigit():
        raise UnsupportedModel(
            f"{card.name}: no UNETR architecture {card.architecture!r}; expected compact, or monai- and a feature size."
        )
    classes = len(card.labels) + 1
    network = AnySizeUNETR(classes, card.input.channels, card.input.size, int(size))
    if weights is None:
        draw_weights(network, seed)
    else:
        state = own_names(weights, network)
        check_fit(network, state, card.name)  # before turning, which counts on the shapes
        network.load_state_dict(turned(state, card.input.size))
    return WindowModel(card, use_fused_attention(network), device, dtype, multiple=PATCH)


def turned(state: Mapping[str, Tensor], window: tuple[int, ...]) -> dict[str, Tensor]:
    """Weights of a UNETR trained on (x, y, z) growing to Right, Anterior, Superior, for (z, y, x) growing to S, P, L.

    Every kernel, patch and position is turned; nothing in a UNETR tells one side from the other besides, so the result
    is the same network. window: (z, y, x).
    """
    grid_xyz = [n // PATCH for n in reversed(window)]
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        if name == "vit.patch_embedding.position_embeddings":
            result[name] = _turn(value.movedim(1, -1).unflatten(-1, grid_xyz)).flatten(-3).movedim(-1, 1)
        elif name == "vit.patch_embedding.patch_embeddings.1.weight":
            channels_last: Any = value.unflatten(-1, (PATCH, PATCH, PATCH, -1)).movedim(-1, -4)
            result[name] = _turn(channels_last).movedim(-4, -1).flatten(-4)
        else:
            result[name] = _turn(value) if value.ndim == 5 else value
    return {name: value.contiguous() for name, value in result.items()}


def _turn(value: Tensor) -> Tensor:
    """(..., x, y, z) as (..., z, y, x) with y and x reversed."""
    return value.movedim(_AXES, (-3, -2, -1)).flip((-2, -1))
