"""One object in 3D from clicks, by a model that sees volumes: alone, or for an object of a session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_medtransformer.errors import InvalidPrompt, PointOutsideVolume
from napari_medtransformer.models.volume_model import VolumeMask, VolumePromptableModel, VolumePrompts, centre_of
from napari_medtransformer.progress import Progress, Result, Steps, run_to_end
from napari_medtransformer.prompting.prompts import PointPrompt
from napari_medtransformer.prompting.session import PromptSession
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


def object_steps(
    model: VolumePromptableModel,
    volume: Volume,
    points_zyx: Sequence[Zyx] | np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    previous: VolumeMask | None = None,
) -> Steps[ObjectIn3D]:
    """Segment one object from all of its clicks. Changes nothing; may run in any thread.

    points_zyx: voxels of the volume. labels: 1 inside, 0 outside, None for all inside. previous: an earlier answer to
    refine. Raises InvalidPrompt and PointOutsideVolume.
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
    embedding = model.encode(volume.data, volume.spacing, centre_of(points, signs), volume.modality)
    yield Progress(1, 2, "finding the object")
    answer = model.decode(embedding, VolumePrompts(points, signs, previous))
    mask = np.zeros(volume.shape, bool)
    mask[answer.slices] = answer.logits > 0
    stop = np.asarray(answer.start_zyx) + answer.logits.shape
    seen = ((points >= np.asarray(answer.start_zyx) - 0.5) & (points < stop - 0.5)).all(axis=1)
    yield Result(ObjectIn3D(mask, answer, int((~seen).sum())))


def segment_object(
    model: VolumePromptableModel,
    volume: Volume,
    points_zyx: Sequence[Zyx] | np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    previous: VolumeMask | None = None,
) -> ObjectIn3D:
    """As object_steps, at once."""
    return run_to_end(object_steps(model, volume, points_zyx, labels, previous))


def session_object_steps(model: VolumePromptableModel, session: PromptSession, object_id: int = 1) -> Steps[ObjectIn3D]:
    """Segment an object of a session from all its clicks, on whatever slices they were made. Changes nothing.

    `session.import_mask(result.mask, object_id)` takes the result in, as one step. Raises InvalidPrompt if the object
    has no clicks.
    """
    clicks = [p for p in session.prompts.values() if isinstance(p, PointPrompt) and p.object_id == object_id]
    if not clicks:
        raise InvalidPrompt(f"object {object_id} has no clicks; a 3D model answers clicks, so click on it first.")
    return object_steps(
        model, session.volume, [click.position_zyx for click in clicks], [int(click.positive) for click in clicks]
    )
