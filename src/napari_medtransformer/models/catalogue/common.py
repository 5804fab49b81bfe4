"""What several cards share."""

from __future__ import annotations

from napari_medtransformer.models.card import Fit, InputContract

MB = 1_000_000
IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Of intensities in [0, 1], red green blue; Meta writes 123.675 … of 255."""
IMAGENET_STD = (0.229, 0.224, 0.225)
HUGGING_FACE = "https://huggingface.co"


def photograph_input(size: int, fit: Fit = "pad") -> InputContract:
    """What networks that began with photographs see: a square of `size` pixels, normalised as ImageNet is."""
    return InputContract(
        size=(size, size),
        channels=3,
        intensities="windowed to [0, 1], repeated to three channels, ImageNet mean and deviation",
        fit=fit,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
