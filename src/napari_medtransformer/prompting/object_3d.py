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
from napari_medtransformer.volumes.volume import Volume

Zyx = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class ObjectIn3D:
    """What a model answered to clicks on one object.

    mask: (z, y, x) bool over the whole volume, False beyond the crop that was seen. answer: the model's own, for
    `previous` of the next call. left_out: how many clicks lay outside the crop.
    """

    mask: np.ndarray
    answer: VolumeMask
    left_out: int


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
    yield Progress(0, 2, f"encoding the surroundings of {len(points)} clicks")
    centre = crop_centre(model, volume, points, signs)
    embedding = model.encode(volume.data, volume.spacing, centre, volume.modality)
    yield Progress(1, 2, "finding the object")
    turns = [Turn(points[i : i + 1], signs[i : i + 1]) for i in range(len(points))]
    answer = answer_turns(model, embedding, turns, 0, previous)
    mask = np.zeros(volume.shape, bool)
    mask[answer.slices] = answer.logits > 0
    yield Result(ObjectIn3D(mask, answer, int((~_held(embedding.placement, points)).sum())))


def segment_object(
    model: VolumePromptableModel,
    volume: Volume,
    points_zyx: Sequence[Zyx] | np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    previous: VolumeMask | None = None,
) -> ObjectIn3D:
    """As object_steps, at once."""
    return run_to_end(object_steps(model, volume, points_zyx, labels, previous))


def crop_centre(model: VolumePromptableModel, volume: Volume, points_zyx: np.ndarray, labels: np.ndarray) -> Zyx:
    """Where the crop for these clicks is centred: (z, y, x) in voxels.

    At the first click inside the object while that crop holds all clicks, so that a further one needs no new encoding;
    else in the middle of all those inside.
    """
    points, inside = np.asarray(points_zyx, np.float64), np.asarray(labels) == 1
    if inside.any():
        z, y, x = (float(p) for p in points[inside][0])
        if _held(model.placement(volume.shape, volume.spacing, (z, y, x)), points).all():
            return z, y, x
    return centre_of(points, np.asarray(labels))


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
        points = np.concatenate([turn.points_zyx for turn in turns[:count]])
        signs = np.concatenate([turn.labels for turn in turns[:count]])
        if count < len(turns) and not _held(embedding.placement, points).any():
            continue
        answer = model.decode(embedding, VolumePrompts(points, signs, previous if answer is None else answer))
    if answer is None:
        raise InvalidPrompt("there is nothing to answer; give at least one click.")
    return answer


def _held(placement: InputPlacement, points_zyx: np.ndarray) -> np.ndarray:
    """(n,) bool: which clicks a crop holds."""
    there = np.array([placement.to_input(point) for point in points_zyx.tolist()]).reshape(-1, 3)
    return np.asarray(((there >= -0.5) & (there < np.array(placement.input_shape) - 0.5)).all(axis=1))
