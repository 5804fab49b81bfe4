"""What happens to an automatic model's labels when heads are switched off, in the windows that ran."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import numpy as np
import torch

from napari_medtransformer.attention.ablation import Heads, ablated_heads
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.errors import InvalidPrompt
from napari_medtransformer.inspection.ablation import HeadEffect, ObjectEffect
from napari_medtransformer.inspection.place import SlicePlane
from napari_medtransformer.inspection.windows import Start, VolumeInspection
from napari_medtransformer.progress import Partial, Progress, Result, Steps


def labels_without(inspection: VolumeInspection, heads: Mapping[str, Heads]) -> dict[int, ObjectEffect]:
    """Every label that the windows hold, with the whole model and with some heads switched off.

    heads: site → head numbers or "all". Masks are those on the inspected slice; Dice counts every voxel of the windows,
    one that several hold as often. score: the changed model's mean probability of the label where it wins. Raises
    UnknownSite and QueryOutOfGrid.
    """
    chosen = {site: numbers for site, numbers in heads.items() if numbers}
    return labels_under(inspection, ablated_heads(inspection.model, chosen))


def labels_under(inspection: VolumeInspection, change: AbstractContextManager[None]) -> dict[int, ObjectEffect]:
    """The same while the model is changed. change: entered for the changed passes alone."""
    starts = inspection.runs.starts
    whole = [_winners(inspection, start)[0] for start in starts]
    with change:
        changed = [_winners(inspection, start) for start in starts]
    found = {}
    for number, label in enumerate(inspection.model.card.labels, start=1):
        if any(bool((one == number).any()) for one in (*whole, *(winners for winners, _ in changed))):
            flat = [
                _on_slice(inspection, starts, [one == number for one in windows])
                for windows in (whole, [winners for winners, _ in changed])
            ]
            dice, score = _agreement(whole, changed, number)
            found[label.value] = ObjectEffect(flat[0], flat[1], dice, score)
    return found


def rank_heads_for_label(inspection: VolumeInspection, label: int | None = None) -> Steps[list[HeadEffect]]:
    """Switch off one head after another and compare a label's voxels: yields each HeadEffect as a Partial, then all.

    label: a value of the card's labels; None for what the model calls the inspected voxel. Each head costs a pass of
    every window that ran; it can be stopped between two. Raises InvalidPrompt for a label that is not there.
    """
    card = inspection.model.card
    named = {one.value: number for number, one in enumerate(card.labels, start=1)}
    if label is None:
        label = next((one.value for one in card.labels if one.name == inspection.label), None)
    if label not in named:
        raise InvalidPrompt(f"{card.name} calls this voxel {inspection.label}; click on a structure that it names.")
    starts, number = inspection.runs.starts, named[label]
    whole = [_winners(inspection, start)[0] for start in starts]
    chosen = [(spec, head) for spec in inspection.model.attention_sites() for head in range(spec.heads)]
    effects: list[HeadEffect] = []
    for done, (spec, head) in enumerate(chosen):
        yield Progress(done, len(chosen), f"{spec.name}, head {head}")
        changed = []
        for start in starts:
            with ablated_heads(inspection.model, {spec.name: [head]}):
                changed.append(_winners(inspection, start))
            if len(starts) > 1:
                yield Progress(done, len(chosen), f"{spec.name}, head {head}")
        effects.append(HeadEffect(spec.name, head, *_agreement(whole, changed, number)))
        yield Partial(effects[-1:])
    yield Progress(len(chosen), len(chosen), "done")
    yield Result(effects)


def _winners(inspection: VolumeInspection, start: Start) -> tuple[torch.Tensor, torch.Tensor]:
    """The class of every voxel of a window, (*window), and its probability."""
    model = inspection.model
    with torch.inference_mode():
        logits = model.logits(inspection.windows.read(start).to(model.device))[0]
        probability, winners = logits.softmax(0).max(0)
    return winners.cpu(), probability.cpu()


def _agreement(
    whole: list[torch.Tensor], changed: list[tuple[torch.Tensor, torch.Tensor]], number: int
) -> tuple[float, float]:
    """Dice of a class over all windows, and the changed model's mean probability where it wins."""
    common = total = held = 0
    sure = 0.0
    for before, (after, probability) in zip(whole, changed, strict=True):
        a, b = before == number, after == number
        common += int((a & b).sum())
        total += int(a.sum()) + int(b.sum())
        held += int(b.sum())
        sure += float(probability[b].sum())
    return (1.0 if total == 0 else 2 * common / total), (sure / held if held else 0.0)


def _on_slice(inspection: VolumeInspection, starts: tuple[Start, ...], masks: list[torch.Tensor]) -> np.ndarray:
    """(rows, columns) bool: windows' masks on the inspected slice; where they overlap, those that hold it together."""
    flat = np.zeros(inspection.image.shape, bool)
    for start, mask in zip(starts, masks, strict=True):
        flat |= _window_on_slice(mask.numpy(), inspection.windows.placement(start), inspection)
    return flat


def _window_on_slice(mask: np.ndarray, placement: InputPlacement, inspection: VolumeInspection) -> np.ndarray:
    """(rows, columns) bool: a window's mask at the nearest voxels of the inspected slice, False beyond it."""
    plane: SlicePlane = inspection.plane
    sides = []
    for axis, (n, r, o) in enumerate(zip(placement.native_shape, placement.resized_shape, placement.start)):
        native = np.arange(n) if not inspection.is_solid or axis != plane.axis else np.array([plane.index])
        # InputPlacement.to_input of many coordinates at once, to the nearest voxel
        sides.append(np.floor((native + 0.5) * r / n - o).astype(np.int64))
    within = [(at >= 0) & (at < n) for at, n in zip(sides, mask.shape, strict=True)]
    index = np.ix_(*[at.clip(0, n - 1) for at, n in zip(sides, mask.shape, strict=True)])
    found = mask[index]
    for part in np.meshgrid(*within, indexing="ij", sparse=True):
        found = found & part
    return np.asarray(found.squeeze(plane.axis) if inspection.is_solid else found)
