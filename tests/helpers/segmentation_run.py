"""A segmentation run to its end, with all that it says on the way."""

from __future__ import annotations

import warnings
from typing import Any

import napari_medtransformer as nmt
from napari_medtransformer.progress import Progress, Result
from napari_medtransformer.segmentation import Segmentation
from napari_medtransformer.volumes import Volume


def run_segmentation(model: Any, volume: Volume, **options: Any) -> tuple[Segmentation, list[Progress], list[str]]:
    """The result, every Progress, and the text of every warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        steps = list(nmt.segment_steps(model, volume, **options))
    assert isinstance(steps[-1], Result)
    ours = [str(w.message) for w in caught if w.category is UserWarning]
    return steps[-1].value, [step for step in steps if isinstance(step, Progress)], ours
