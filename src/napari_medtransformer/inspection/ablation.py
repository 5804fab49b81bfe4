"""What happens to a mask when heads are switched off: cause, where a heatmap shows only where a head looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from napari_medtransformer.attention.ablation import Heads, ablated_heads
from napari_medtransformer.errors import InvalidOption, UnknownSite, in_words
from napari_medtransformer.given import record
from napari_medtransformer.inspection.inspect import SliceInspection, check_prompts
from napari_medtransformer.inspection.place import SlicePlane
from napari_medtransformer.models.base import ImageEmbedding, MaskPrediction, PromptableModel, Prompts
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


@dataclass(frozen=True, eq=False)
class ObjectEffect:
    """One object's mask with the whole model and with a changed one.

    whole, changed: (rows, columns) bool; the candidate that scored best with the whole model. dice: their overlap.
    score: the changed model's expected IoU.
    """

    whole: np.ndarray
    changed: np.ndarray
    dice: float
    score: float


def masks_without(
    inspection: SliceInspection, heads: Mapping[str, Heads], prompts: Mapping[int, Prompts]
) -> dict[int, ObjectEffect]:
    """Every object's mask on the inspected slice with some heads switched off.

    heads: site → head numbers or "all", of any number of sites. prompts: object → its prompts, in pixels of the slice.
    Encoder heads cost an encoding, decoder heads only decodings. Raises UnknownSite and QueryOutOfGrid.
    """
    record(inspection, SliceInspection, "a SliceInspection, as inspect_slice gives one")
    for what, given in (("heads", heads), ("prompts", prompts)):
        if not isinstance(given, Mapping):
            raise InvalidOption(f"{what} are a mapping, not {in_words(given)}.")
    for each in prompts.values():
        check_prompts(each)
    chosen = {site: numbers for site, numbers in heads.items() if numbers}
    in_encoder = {spec.name for spec in inspection.model.attention_sites() if spec.kind in ("global", "window")}
    return masks_under(
        inspection,
        ablated_heads(inspection.model, chosen),
        prompts,
        encode=any(site in in_encoder for site in chosen),
    )


def masks_under(
    inspection: SliceInspection, change: AbstractContextManager[None], prompts: Mapping[int, Prompts], *, encode: bool
) -> dict[int, ObjectEffect]:
    """Every object's mask on the inspected slice while the model is changed, beside that of the model as it is.

    change: entered for the changed pass alone. encode: whether the change reaches the encoder.
    """
    model = inspection.model
    whole = {number: model.decode(inspection.embedding, given) for number, given in prompts.items()}
    with change:
        embedding = model.encode(inspection.image, inspection.spacing_mm) if encode else inspection.embedding
        changed = {number: model.decode(embedding, given) for number, given in prompts.items()}
    return {number: object_effect(whole[number], changed[number]) for number in prompts}


def object_effect(whole: MaskPrediction, changed: MaskPrediction) -> ObjectEffect:
    """Two predictions of one object compared, at the candidate that scored best with the whole model."""
    best = int(np.argmax(whole.scores))
    before, after = whole.logits[best] > 0, changed.logits[best] > 0
    return ObjectEffect(before, after, dice(after, before), float(changed.scores[best]))


def change_labels(effects: Sequence[ObjectEffect]) -> np.ndarray:
    """(rows, columns) uint8 of all objects together: 1 stayed, 2 was lost, 3 was gained. effects: at least one."""
    labels = np.zeros(effects[0].whole.shape, np.uint8)
    for effect in effects:
        labels[effect.whole & effect.changed] = 1
        labels[effect.whole & ~effect.changed] = 2
        labels[effect.changed & ~effect.whole] = 3
    return labels


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
    limits = (volume.window.low, volume.window.high) if window is None else window
    image = apply_window(plane.of(volume.data), limits)
    rows, columns = plane.axes
    pixel_size = (volume.spacing[rows], volume.spacing[columns])
    _check_sites(model, sites)
    yield from _effects(model, image, pixel_size, model.encode(image, pixel_size), prompts, sites)


def rank_heads(
    inspection: SliceInspection, prompts: Prompts, sites: Sequence[str] | None = None
) -> Steps[list[HeadEffect]]:
    """The same on a slice that is inspected already. Raises UnknownSite, InvalidPrompt, InvalidOption."""
    record(inspection, SliceInspection, "a SliceInspection, as inspect_slice gives one")
    check_prompts(prompts)
    _check_sites(inspection.model, sites)
    yield from _effects(inspection.model, inspection.image, inspection.spacing_mm, inspection.embedding, prompts, sites)


def _check_sites(model: PromptableModel, sites: Sequence[str] | None) -> None:
    known = [spec.name for spec in model.attention_sites()]
    unknown = [name for name in sites or () if name not in known]
    if unknown:
        raise UnknownSite(f"no attention site {unknown[0]!r}; there are {', '.join(known)}.")


def _effects(
    model: PromptableModel,
    image: np.ndarray,
    pixel_size: tuple[float, float],
    embedding: ImageEmbedding,
    prompts: Prompts,
    sites: Sequence[str] | None,
) -> Steps[list[HeadEffect]]:
    specs = {spec.name: spec for spec in model.attention_sites()}
    whole = model.decode(embedding, prompts)
    chosen = [(specs[name], head) for name in sites or specs for head in range(specs[name].heads)]
    effects: list[HeadEffect] = []
    for done, (spec, head) in enumerate(chosen):
        yield Progress(done, len(chosen), f"{spec.name}, head {head}")
        with ablated_heads(model, {spec.name: [head]}):
            features = model.encode(image, pixel_size) if spec.kind in ("global", "window") else embedding
            effect = object_effect(whole, model.decode(features, prompts))
        effects.append(HeadEffect(spec.name, head, effect.dice, effect.score))
        yield Partial(effects[-1:])
    yield Progress(len(chosen), len(chosen), "done")
    yield Result(effects)


def dice(mask: np.ndarray, reference: np.ndarray) -> float:
    """2 |A ∩ B| / (|A| + |B|); 1 if both are empty (Dice 1945)."""
    total = int(mask.sum()) + int(reference.sum())
    return 1.0 if total == 0 else 2.0 * int((mask & reference).sum()) / total
