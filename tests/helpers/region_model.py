"""A promptable model that is right by construction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.sites import SiteSpec
from napari_medtransformer.models.base import ImageEmbedding, MaskPrediction, PromptableModel, Prompts
from napari_medtransformer.models.registry import find_card


class RegionModel(PromptableModel):
    """Grows regions of equal intensity from the positive points, without those of the negative points.

    A box alone takes the brighter half of its values; a mask alone takes the regions it covers by half. Candidates:
    the regions, the regions inside the box dilated by one pixel, and everything of that intensity.
    """

    def __init__(self) -> None:
        self.card = replace(find_card("medt-click-tiny"), name="region-growing")
        self.network = torch.nn.Linear(1, 1)
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.on_encode: list[Callable[[InputPlacement], None]] = []
        self.encoded: list[tuple[tuple[int, ...], tuple[float, float]]] = []

    def placement(self, native_shape: tuple[int, int], pixel_size: tuple[float, float] = (1.0, 1.0)) -> InputPlacement:
        return InputPlacement(native_shape, native_shape, native_shape)

    def encode(self, image: np.ndarray, pixel_size: tuple[float, float] = (1.0, 1.0)) -> ImageEmbedding:
        self.encoded.append((image.shape, pixel_size))
        rows, columns = image.shape
        return ImageEmbedding((torch.from_numpy(image.copy()),), self.placement((rows, columns)))

    def decode(self, embedding: ImageEmbedding, prompts: Prompts) -> MaskPrediction:
        image = embedding.features[0].numpy()
        inside = np.zeros(image.shape, bool)
        if prompts.box is not None:
            y0, x0, y1, x1 = (round(edge) for edge in prompts.box)
            inside[y0:y1, x0:x1] = True
        alike = inside & (image > np.median(image)) if prompts.box is not None else inside
        for (y, x), label in zip(np.floor(prompts.points_yx + 0.5).astype(int), prompts.point_labels, strict=True):
            same = np.abs(image - image[y, x]) < 0.05
            parts, _ = ndimage.label(same)
            alike = alike | (parts == parts[y, x]) if label else alike & (parts != parts[y, x])
        if prompts.mask_logits is not None and not len(prompts.points_yx):
            parts, n = ndimage.label(image > 0.5)
            covered = ndimage.mean(prompts.mask_logits > 0, parts, range(1, n + 1))
            alike = np.isin(parts, 1 + np.flatnonzero(np.asarray(covered) >= 0.5))
        every = alike if not alike.any() else np.isin(image, image[alike])
        candidates = np.stack([alike, ndimage.binary_dilation(alike), every])
        return MaskPrediction(np.where(candidates, 4.0, -4.0).astype(np.float32), np.float32([0.9, 0.6, 0.3]))

    def attention_sites(self) -> list[SiteSpec]:
        return []
