"""What happens to a mask when heads are switched off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_medtransformer.attention.ablation import ablated_heads
from napari_medtransformer.errors import UnknownSite
from napari_medtransformer.inspection.place import SlicePlane
from napari_medtransformer.models.base import MaskPrediction, PromptableModel, Prompts
from napari_medtransformer.progress import Partial, Progress, Result, Steps
from napari_medtransformer.volumes.intensity import apply_window
from napari_medtransformer.volumes.volume import Volume


@dataclass(frozen=True)
class HeadEffect:
    """The mask without one head. dice: overlap with the mask of the whole model, 1 means the head made no difference.

    score: the model's own expected IoU of the mask without the head.
    """

    site: str
    head: int
    dice: float
    score: float


def head_effects(
    model: PromptableModel,
    volume: Volume,
    axis: int,
    index: int,
    prompts: Prompts,
    *,
    sites: Sequence[str] | None = None,
    window: tuple[float, float] | None = None,
) -> Steps[list[HeadEffect]]:
    """Switch off one head after another and compare the masks: yields each HeadEffect as a Partial, then all.

    Encoder heads cost an encoding each, decoder heads only a decoding. prompts: one object's, in pixels of the slice.
    sites: names, None for all. The mask is the candidate that scores best with the whole model.
    """
    plane = SlicePlane(axis, index, volume.shape)
    specs = {spec.name: spec for spec in model.attention_sites()}
    unknown = [name for name in sites or () if name not in specs]
    if unknown:
        raise UnknownSite(f"no attention site {unknown[0]!r}; there are {', '.join(specs)}.")
    limits = (volume.window.low, volume.window.high) if window is None else window
    image = apply_window(plane.of(volume.data), limits)
    rows, columns = plane.axes
    pixel_size = (volume.spacing[rows], volume.spacing[columns])
    embedding = model.encode(image, pixel_size)
    whole = model.decode(embedding, prompts)
    best = int(np.argmax(whole.scores))
    chosen = [(specs[name], head) for name in sites or specs for head in range(specs[name].heads)]
    effects: list[HeadEffect] = []
    for done, (spec, head) in enumerate(chosen):
        yield Progress(done, len(chosen), f"{spec.name}, head {head}")
        with ablated_heads(model, {spec.name: [head]}):
            in_encoder = spec.kind in ("global", "window")
            features = model.encode(image, pixel_size) if in_encoder else embedding
            without: MaskPrediction = model.decode(features, prompts)
        overlap = dice(without.logits[best] > 0, whole.logits[best] > 0)
        effects.append(HeadEffect(spec.name, head, overlap, float(without.scores[best])))
        yield Partial(effects[-1:])
    yield Progress(len(chosen), len(chosen), "done")
    yield Result(effects)


def dice(mask: np.ndarray, reference: np.ndarray) -> float:
    """2 |A ∩ B| / (|A| + |B|); 1 if both are empty (Dice 1945)."""
    total = int(mask.sum()) + int(reference.sum())
    return 1.0 if total == 0 else 2.0 * int((mask & reference).sum()) / total
