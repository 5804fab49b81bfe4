"""Click to segment: one image (ImagePredictor) or one volume with many objects (PromptSession).

The names are looked up on first use: the records of prompts need no torch, the sessions do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_medtransformer.prompting.embedding_store import EmbeddingStore as EmbeddingStore
    from napari_medtransformer.prompting.measures import ObjectStatistics as ObjectStatistics
    from napari_medtransformer.prompting.predictor import ImagePredictor as ImagePredictor
    from napari_medtransformer.prompting.predictor import Prediction as Prediction
    from napari_medtransformer.prompting.prompts import BoxPrompt as BoxPrompt
    from napari_medtransformer.prompting.prompts import LassoPrompt as LassoPrompt
    from napari_medtransformer.prompting.prompts import MaskPrompt as MaskPrompt
    from napari_medtransformer.prompting.prompts import PointPrompt as PointPrompt
    from napari_medtransformer.prompting.prompts import Prompt as Prompt
    from napari_medtransformer.prompting.prompts import ScribblePrompt as ScribblePrompt
    from napari_medtransformer.prompting.prompts import SliceKey as SliceKey
    from napari_medtransformer.prompting.session import PromptSession as PromptSession
    from napari_medtransformer.prompting.slice_model import Outcome as Outcome
    from napari_medtransformer.prompting.slice_model import Request as Request

_HOMES = {
    "BoxPrompt": "prompts",
    "EmbeddingStore": "embedding_store",
    "ImagePredictor": "predictor",
    "LassoPrompt": "prompts",
    "MaskPrompt": "prompts",
    "ObjectStatistics": "measures",
    "Outcome": "slice_model",
    "PointPrompt": "prompts",
    "Prediction": "predictor",
    "Prompt": "prompts",
    "PromptSession": "session",
    "Request": "slice_model",
    "ScribblePrompt": "prompts",
    "SliceKey": "prompts",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import the home of a name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
