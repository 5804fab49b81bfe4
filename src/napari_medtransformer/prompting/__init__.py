"""Click to segment: one image (ImagePredictor) or one volume with many objects (PromptSession)."""

from napari_medtransformer.prompting.predictor import ImagePredictor, Prediction
from napari_medtransformer.prompting.prompts import BoxPrompt, MaskPrompt, PointPrompt, Prompt, SliceKey
from napari_medtransformer.prompting.session import PromptSession
from napari_medtransformer.prompting.slice_model import Outcome, Request

__all__ = [
    "BoxPrompt",
    "ImagePredictor",
    "MaskPrompt",
    "Outcome",
    "PointPrompt",
    "Prediction",
    "Prompt",
    "PromptSession",
    "Request",
    "SliceKey",
]
