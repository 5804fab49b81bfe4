"""One object in 3D from clicks, by a model that sees volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.errors import InvalidPrompt, PointOutsideVolume
from napari_medtransformer.models.volume_model import (
    VolumeEmbedding,
    VolumeMask,
    VolumePromptableModel,
    VolumePrompts,
    centre_of,
)
from napari_medtransformer.progress import Progress, Result, Steps, run_to_end
from napari_medtransformer.prompting.model_prompts import logits_of
from napari_medtransformer.volumes.volume import Volume

Zyx = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class ObjectIn3D:
    """What a model answered to clicks on one object.

    mask: (z, y, x) bool over the whole volume, False beyond the crops that were seen. answer: the model's own in the
    last of them, for `previous` of the next call.
    """

    mask: np.ndarray
    answer: VolumeMask


@dataclass(frozen=True, eq=False)
class Turn:
    """Clicks given at once. points_zyx: (n, 3) voxels; labels: (n,) 1 inside, 0 outside."""

    points_zyx: np.ndarray
    labels: np.ndarray


def object_steps(
    model: VolumePromptableModel,
    volume: Volume,
    points_zyx: Sequence[Zyx] | np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    previous: VolumeMask | None = None,
) -> Steps[ObjectIn3D]:
    """Segment one object from all of its clicks, each refining the answer to those before it.

    A click beyond the crop is answered in another one around it, and beyond that the mask stays.
    Changes nothing; may run in any thread. points_zyx: voxels of the volume, in the order in which they were given.
    labels: 1 inside, 0 outside, None for all inside. previous: an earlier answer, from which the first click goes on.
    Raises InvalidPrompt and PointOutsideVolume.
    """
    points = np.asarray(points_zyx, np.float64).reshape(-1, 3)
    signs = np.ones(len(points), np.int64) if labels is None else np.asarray(labels, np.int64).reshape(-1)
    if not len(points) or len(signs) != len(points):
        raise InvalidPrompt(
            f"{len(points)} clicks came with {len(signs)} labels; give at least one click, and one each."
        )
    limit = np.asarray(volume.shape)
    outside = ((points < -0.5) | (points >= limit - 0.5) | ~np.isfinite(points)).any(axis=1)
    if outside.any():
        z, y, x = points[outside][0]
        raise PointOutsideVolume(f"the click ({z:g}, {y:g}, {x:g}) lies outside the volume of {volume.shape} voxels.")
    return _steps(model, volume, points, signs, previous)


def _steps(
    model: VolumePromptableModel, volume: Volume, points: np.ndarray, signs: np.ndarray, previous: VolumeMask | None
) -> Steps[ObjectIn3D]:
    turns = [Turn(points[i : i + 1], signs[i : i + 1]) for i in range(len(points))]
    spans = crop_spans(model, volume, turns)
    mask, start, answer = np.zeros(volume.shape, bool), 0, previous
    for number, (stop, centre) in enumerate(spans):
        yield Progress(2 * number, 2 * len(spans), f"encoding the surroundings of {stop - start} clicks")
        embedding = model.encode(volume.data, volume.spacing, centre, volume.modality)
        yield Progress(2 * number + 1, 2 * len(spans), "finding the object")
        refined = mask_to_refine(mask, 0, embedding.placement) if start else previous
        answer = answer_turns(model, embedding, turns[:stop], start, refined)
        seen = mask[answer.slices]
        seen[:] = found_in_crop(answer, turns[:stop], seen if start else None)
        start = stop
    if answer is None:
        raise InvalidPrompt("there is nothing to answer; give at least one click.")
    yield Result(ObjectIn3D(mask, answer))


def segment_object(
    model: VolumePromptableModel,
    volume: Volume,
    points_zyx: Sequence[Zyx] | np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    previous: VolumeMask | None = None,
) -> ObjectIn3D:
    """As object_steps, at once."""
    return run_to_end(object_steps(model, volume, points_zyx, labels, previous))


def crop_spans(model: VolumePromptableModel, volume: Volume, turns: Sequence[Turn]) -> list[tuple[int, Zyx]]:
    """The crops in which turns are answered: up to how many turns each serves, and its centre (z, y, x) in voxels.

    A crop is centred at the first click inside that it serves, while it holds all clicks, so that a further one needs
    no new encoding; the first turn that it does not hold begins another crop, around itself.
    """
    spans: list[tuple[int, Zyx]] = []
    while (start := spans[-1][0] if spans else 0) < len(turns):
        stop, centre = start + 1, _centre_of_turn(model, volume, turns[start])
        while stop < len(turns) and (wider := _centre_of_all(model, volume, turns[start : stop + 1])) is not None:
            stop, centre = stop + 1, wider
        spans.append((stop, centre))
    return spans


def _centre_of_all(model: VolumePromptableModel, volume: Volume, turns: Sequence[Turn]) -> Zyx | None:
    """The first click inside, or the first of all; None if the crop around it does not hold every click."""
    points, signs = _clicks(turns)
    z, y, x = points[np.argmax(signs == 1)].tolist()
    return (z, y, x) if _held(model.placement(volume.shape, volume.spacing, (z, y, x)), points).all() else None


def _centre_of_turn(model: VolumePromptableModel, volume: Volume, turn: Turn) -> Zyx:
    """Its first click, or the middle of a long stroke; the last click of one that no crop holds."""
    first = _centre_of_all(model, volume, [turn])
    if first is not None:
        return first
    middle = centre_of(turn.points_zyx, turn.labels)
    if _held(model.placement(volume.shape, volume.spacing, middle), turn.points_zyx).any():
        return middle
    z, y, x = turn.points_zyx[-1].tolist()
    return z, y, x


def mask_to_refine(mask: np.ndarray, first: int, placement: InputPlacement) -> VolumeMask | None:
    """What a crop holds of a mask, (z, y, x) bool of the slices from `first` on, for the model; None if nothing."""
    z, y, x = _part(placement)
    part = np.zeros((z.stop - z.start, y.stop - y.start, x.stop - x.start), bool)
    start, stop = max(z.start, first), min(z.stop, first + len(mask))
    if start < stop:
        part[start - z.start : stop - z.start] = mask[start - first : stop - first, y, x]
    return VolumeMask((z.start, y.start, x.start), logits_of(part), 1.0, placement) if part.any() else None


def found_in_crop(answer: VolumeMask, turns: Sequence[Turn], before: np.ndarray | None) -> np.ndarray:
    """(z, y, x) bool: an answer as a mask of its part of the volume.

    before: what was there, None for nothing. Where no click inside was seen, those outside only take away of it.
    """
    found = answer.logits > 0
    points, signs = _clicks(turns)
    if before is None or (signs[_held(answer.placement, points)] == 1).any():
        return np.asarray(found)
    return np.asarray(found & before)


def answer_turns(
    model: VolumePromptableModel,
    embedding: VolumeEmbedding,
    turns: Sequence[Turn],
    done: int = 0,
    previous: VolumeMask | None = None,
) -> VolumeMask:
    """The answer after the last turn: each is decoded with all clicks up to it and the answer to the turn before.

    This is how the family was trained (Wang et al. 2023, SAM-Med3D, train.py). done: how many turns `previous` is the
    answer to. Clicks outside the crop are left out; raises InvalidPrompt if none is inside.
    """
    answer = previous if done else None
    for count in range(done + 1, len(turns) + 1):
        points, signs = _clicks(turns[:count])
        if count < len(turns) and not _held(embedding.placement, points).any():
            continue
        answer = model.decode(embedding, VolumePrompts(points, signs, previous if answer is None else answer))
    if answer is None:
        raise InvalidPrompt("there is nothing to answer; give at least one click.")
    return answer


def _clicks(turns: Sequence[Turn]) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) points and (n,) labels of turns, in their order."""
    return np.concatenate([turn.points_zyx for turn in turns]), np.concatenate([turn.labels for turn in turns])


def _part(placement: InputPlacement) -> tuple[slice, slice, slice]:
    """The part of the volume whose voxels' centres a crop holds."""
    parts = []
    for axis, (n, size) in enumerate(zip(placement.native_shape, placement.input_shape, strict=True)):
        where = np.array([placement.to_input((float(i),) * 3)[axis] for i in range(n)])
        there = np.flatnonzero((where >= -0.5) & (where < size - 0.5))
        parts.append(slice(int(there[0]), int(there[-1]) + 1))
    return parts[0], parts[1], parts[2]


def _held(placement: InputPlacement, points_zyx: np.ndarray) -> np.ndarray:
    """(n,) bool: which clicks a crop holds."""
    there = np.array([placement.to_input(point) for point in points_zyx.tolist()]).reshape(-1, 3)
    return np.asarray(((there >= -0.5) & (there < np.array(placement.input_shape) - 0.5)).all(axis=1))
