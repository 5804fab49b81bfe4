"""What is known about a model, in words for tables, tooltips and the picker."""

from __future__ import annotations

from pathlib import Path

from napari_medtransformer.models.card import BUNDLED, ModelCard


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


def model_card_text(card: ModelCard) -> str:
    """What is written beside a model's weights about its training, scores and limits (Markdown); empty without it."""
    weights = BUNDLED / card.weights if isinstance(card.weights, str) else card.weights
    if not isinstance(weights, Path):
        return ""
    beside = weights.with_suffix(".md")
    return beside.read_text(encoding="utf-8", errors="replace") if beside.is_file() else ""


def size_in_words(count: int) -> str:
    """Bytes in the unit a person would choose."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
