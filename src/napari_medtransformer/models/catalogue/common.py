"""What several cards share."""

from __future__ import annotations

MB = 1_000_000
IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Of intensities in [0, 1], red green blue; Meta writes 123.675 … of 255."""
IMAGENET_STD = (0.229, 0.224, 0.225)
HUGGING_FACE = "https://huggingface.co"
