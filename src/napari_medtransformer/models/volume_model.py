"""What a 3D-native promptable model offers: it sees a crop of the volume around the prompts and answers in 3D."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.models.base import EncodingModel, PromptToken


@dataclass(frozen=True, eq=False)
class VolumeEmbedding:
    """An encoded crop: the network's features, and where the crop lies in the volume (a placement with an origin)."""

    features: tuple[torch.Tensor, ...]
    placement: InputPlacement


@dataclass(frozen=True, eq=False)
class VolumeMask:
    """An object in 3D, in the part of the volume that a crop covers; beyond it nothing is known.

    start_zyx: the part's first voxel. logits: (z, y, x) float32 on the volume's own voxels, inside > 0. score: the
    IoU that the model expects. placement: of the crop. coarse: the network's own logits (1, 1, z, y, x) over the crop,
    which refine best; None for a mask from elsewhere.
    """

    start_zyx: tuple[int, int, int]
    logits: np.ndarray
    score: float
    placement: InputPlacement
    coarse: torch.Tensor | None = None

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The part of the volume, to index it with."""
        z, y, x = (slice(a, a + n) for a, n in zip(self.start_zyx, self.logits.shape, strict=True))
        return z, y, x


@dataclass(frozen=True, eq=False)
class VolumePrompts:
    """Clicks on one object, in the volume's voxels; an integer is a voxel's centre.

    points_zyx: (n, 3) float. point_labels: (n,) 1 inside, 0 outside. previous: an earlier answer to refine.
    """

    points_zyx: np.ndarray
    point_labels: np.ndarray
    previous: VolumeMask | None = None


class VolumePromptableModel(EncodingModel):
    """A segmentation transformer that answers clicks in 3D.

    The card's input.size is the crop (z, y, x) and input.spacing_mm the voxel size at which it is seen.
    """

    @abstractmethod
    def placement(
        self, shape_zyx: Sequence[int], spacing_mm: Sequence[float], centre_zyx: Sequence[float]
    ) -> InputPlacement:
        """Where the crop around a voxel of a volume lies in it."""

    @abstractmethod
    def encode(
        self, volume: np.ndarray, spacing_mm: Sequence[float], centre_zyx: Sequence[float], modality: str = ""
    ) -> VolumeEmbedding:
        """Encode the crop around a voxel. volume: (z, y, x) native intensities. modality: "CT", "MR", … or ""."""

    @abstractmethod
    def decode(self, embedding: VolumeEmbedding, prompts: VolumePrompts) -> VolumeMask:
        """Predict one object. Prompts outside the crop are left out; raises InvalidPrompt if none is inside."""

    def prompt_tokens(self, prompts: VolumePrompts) -> tuple[PromptToken, ...]:
        """The tokens that these prompts become in the decoder, in its order; empty where a family cannot tell."""
        return ()


def centre_of(points_zyx: np.ndarray, point_labels: np.ndarray) -> tuple[float, float, float]:
    """The middle of the box around the clicks inside the object, or around all clicks where there are none inside."""
    points = np.asarray(points_zyx, np.float64).reshape(-1, 3)
    inside = np.asarray(point_labels).reshape(-1) == 1
    chosen = points[inside] if inside.any() else points
    z, y, x = (chosen.min(axis=0) + chosen.max(axis=0)) / 2
    return float(z), float(y), float(x)
