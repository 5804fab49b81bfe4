"""What every promptable model offers, whatever its family: encode an image once, decode prompts many times."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.sites import SiteSpec
from napari_medtransformer.models.card import ModelCard


@dataclass(frozen=True)
class Prompts:
    """Prompts for one object on one image, in native pixels; an integer is a pixel's centre.

    points_yx: (n, 2) float32. point_labels: (n,) int64, 1 inside, 0 outside. box: (y0, x0, y1, x1), half-open.
    mask_logits: (H, W) float32, the logits of an earlier prediction to refine.
    """

    points_yx: np.ndarray
    point_labels: np.ndarray
    box: tuple[float, float, float, float] | None = None
    mask_logits: np.ndarray | None = None


@dataclass(frozen=True)
class ImageEmbedding:
    """One encoded image: the network's features (family-specific tensors) and where the image lies in its input."""

    features: tuple[torch.Tensor, ...]
    placement: InputPlacement


@dataclass(frozen=True)
class MaskPrediction:
    """Candidate masks of an object. logits: (m, H, W) float32, native pixels, inside > 0. scores: (m,) expected IoU."""

    logits: np.ndarray
    scores: np.ndarray


class PromptableModel(ABC):
    """A segmentation transformer that answers prompts on a 2D image.

    `network` is the torch module that runs; `on_encode` is called with the placement of every image before it is
    encoded or decoded, which is how a probe learns where tokens lie.
    """

    card: ModelCard
    network: torch.nn.Module
    device: torch.device
    dtype: torch.dtype
    on_encode: list[Callable[[InputPlacement], None]]

    @abstractmethod
    def placement(self, native_shape: tuple[int, int], pixel_size: tuple[float, float] = (1.0, 1.0)) -> InputPlacement:
        """Where an image of (H, W) native pixels lies in the network's input.

        pixel_size: (y, x) size of a pixel, in any unit: anatomy keeps its proportions where pixels are no squares.
        """

    @abstractmethod
    def encode(self, image: np.ndarray, pixel_size: tuple[float, float] = (1.0, 1.0)) -> ImageEmbedding:
        """Encode one image. image: (H, W) float32 in [0, 1], already windowed. pixel_size: as for `placement`."""

    @abstractmethod
    def decode(self, embedding: ImageEmbedding, prompts: Prompts) -> MaskPrediction:
        """Predict the candidate masks of one object; best score first is not promised."""

    @abstractmethod
    def attention_sites(self) -> list[SiteSpec]:
        """Every attention site of the network, encoder first, in the order in which they run."""
