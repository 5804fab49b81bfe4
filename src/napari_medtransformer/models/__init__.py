"""Cards, registry, weights and one adapter per model family. Nothing here imports torch before a model is loaded."""

from napari_medtransformer.models.card import InputContract, LabelInfo, ModelCard, WeightsSource
from napari_medtransformer.models.registry import find_card, list_models, load_model, register

__all__ = [
    "InputContract",
    "LabelInfo",
    "ModelCard",
    "WeightsSource",
    "find_card",
    "list_models",
    "load_model",
    "register",
]
