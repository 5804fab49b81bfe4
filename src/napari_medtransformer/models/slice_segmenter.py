"""What networks share that label whole 2D slices: SegFormer, UperNet and others of transformers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.errors import UnreadableWeights
from napari_medtransformer.models.base import AutomaticModel
from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.channels_last import use_channels_last
from napari_medtransformer.volumes.intensity import Modality, apply_window, default_window

_CLASSIFIER = "decode_head.classifier.weight"
# of the background, for networks that name something everywhere: never the largest, and finite, so that windows average
_NEVER = -1e4


class SliceSegmenter(AutomaticModel):
    """A network that maps slices (b, 3, y, x) to logits (b, classes, …), behind the interface of automatic models.

    Its classes are the card's labels, or the background and then the card's labels.
    """

    def __init__(self, card: ModelCard, network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self.card = card
        self.network = use_channels_last(network.to(device).eval().requires_grad_(False), axes=2)
        self.device, self.dtype = device, dtype
        self.on_encode: list[Callable[[InputPlacement], None]] = []

    @abstractmethod
    def _slice_logits(self, slices: Tensor) -> Tensor:
        """Logits of slices (b, 3, y, x) at any resolution: (b, classes, h, w)."""

    def normalisation(self, data: np.ndarray, modality: str) -> Callable[[np.ndarray], np.ndarray]:
        """Through the volume's window to [0, 1], repeated to three channels, then the card's mean and deviation."""
        known: Modality | None = "CT" if modality == "CT" else "MR" if modality == "MR" else None
        window = default_window(np.asarray(data), known)
        contract = self.card.input
        mean, std = (
            np.asarray(values or (fallback,) * contract.channels, np.float32)[:, None, None, None]
            for values, fallback in ((contract.mean, 0.0), (contract.std, 1.0))
        )

        def normalised(part: np.ndarray) -> np.ndarray:
            return np.asarray((apply_window(part, window)[None] - mean) / std, np.float32)

        return normalised

    @torch.inference_mode()
    def logits(self, windows: Tensor) -> Tensor:
        """Logits of a batch of slices: (b, 3, y, x) to (b, 1 + labels, y, x) float32."""
        return self._logits(windows)

    @torch.enable_grad()
    def differentiable_logits(self, windows: Tensor) -> Tensor:
        """The same in a pass that keeps its graph for gradients."""
        return self._logits(windows)

    def _logits(self, windows: Tensor) -> Tensor:
        with self.autocast():
            found = self._slice_logits(windows.to(self.device, torch.float32)).float()
        if found.shape[2:] != windows.shape[2:]:
            found = F.interpolate(found, size=windows.shape[2:], mode="bilinear", align_corners=False)
        if found.shape[1] == len(self.card.labels):
            found = F.pad(found, (0, 0, 0, 0, 1, 0), value=_NEVER)
        return found


def classes_of(card: ModelCard, weights: Mapping[str, Tensor] | None) -> int:
    """How many classes a checkpoint's network has: the card's labels, perhaps with a background before them.

    Raises UnreadableWeights for any other number.
    """
    labels = len(card.labels)
    if weights is None or _CLASSIFIER not in weights:
        return labels
    classes = int(weights[_CLASSIFIER].shape[0])
    if classes not in (labels, labels + 1):
        raise UnreadableWeights(
            f"the weights name {classes} classes; {card.name} has {labels} labels, with or without a background. "
            "Give a card with the labels of these weights."
        )
    return classes
