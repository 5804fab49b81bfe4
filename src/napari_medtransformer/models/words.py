"""What is known about a model, in words for tables, tooltips and the picker."""

from __future__ import annotations

from pathlib import Path

from napari_medtransformer.models.card import ModelCard


def weights_in_words(card: ModelCard) -> str:
    """Where a model's weights come from, and how large a download is."""
    match card.weights:
        case None:
            return "none: bring your own with --weights"
        case Path():
            return f"your file {card.weights}"
        case str():
            return "bundled"
        case source:
            return "download" if source.bytes is None else f"download, {size_in_words(source.bytes)}"


def size_in_words(count: int) -> str:
    """Bytes in the unit a person would choose."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
