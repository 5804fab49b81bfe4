"""Click-to-segment medical volumes with pretrained transformers, and look inside their attention.

The names below are the public API. They are looked up on first use, so that importing the package loads neither torch
nor Qt.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_medtransformer.errors import MedTransformerError as MedTransformerError
    from napari_medtransformer.inspection import AttentionProbe as AttentionProbe
    from napari_medtransformer.inspection import AttentionSite as AttentionSite
    from napari_medtransformer.models import ModelCard as ModelCard
    from napari_medtransformer.models import list_models as list_models
    from napari_medtransformer.models import load_model as load_model
    from napari_medtransformer.prompting import ImagePredictor as ImagePredictor
    from napari_medtransformer.prompting import PromptSession as PromptSession
    from napari_medtransformer.segmentation import segment as segment
    from napari_medtransformer.segmentation import segment_steps as segment_steps
    from napari_medtransformer.volumes import Volume as Volume
    from napari_medtransformer.volumes import read_volume as read_volume
    from napari_medtransformer.volumes import write_labels as write_labels

try:
    __version__ = version("napari-medtransformer")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_HOMES = {
    "read_volume": "napari_medtransformer.volumes",
    "write_labels": "napari_medtransformer.volumes",
    "Volume": "napari_medtransformer.volumes",
    "list_models": "napari_medtransformer.models",
    "load_model": "napari_medtransformer.models",
    "ModelCard": "napari_medtransformer.models",
    "ImagePredictor": "napari_medtransformer.prompting",
    "PromptSession": "napari_medtransformer.prompting",
    "segment": "napari_medtransformer.segmentation",
    "segment_steps": "napari_medtransformer.segmentation",
    "AttentionProbe": "napari_medtransformer.inspection",
    "AttentionSite": "napari_medtransformer.inspection",
    "MedTransformerError": "napari_medtransformer.errors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import the home of a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
