"""A 2D model in all three planes, with a vote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from napari_medtransformer.models.base import AutomaticModel
from napari_medtransformer.progress import Partial, Progress, Result
from napari_medtransformer.segmentation.engine import Segmentation, new_outcome, steps_of
from napari_medtransformer.segmentation.options import Plane, SegmentOptions
from napari_medtransformer.segmentation.run import FinishedSlab
from napari_medtransformer.volumes.volume import Volume

_PLANES: tuple[Plane, ...] = (0, 1, 2)
_NAMES = ("axial", "coronal", "sagittal")


def voted_steps(
    model: AutomaticModel, volume: Volume, chosen: SegmentOptions
) -> Iterator[Progress | Partial[FinishedSlab] | Result[Segmentation]]:
    """Segment in the axial, coronal and sagittal plane and take what most planes say.

    Where all three differ, the plane with the lowest entropy is believed. Slabs are those of the axial pass, until the
    result replaces them. Uncertainty is the mean over the planes.
    """
    passes: list[Segmentation] = []
    for plane in _PLANES:
        one = replace(chosen, plane=plane, uncertainty=True)
        for step in steps_of(model, volume, one, new_outcome(model, volume, one)):
            if isinstance(step, Result):
                passes.append(step.value)
            elif isinstance(step, Progress):
                yield replace(step, message=f"{_NAMES[len(passes)]} plane: {step.message}")
            elif not passes:
                yield step
    labels = _vote(passes)
    yield Partial(FinishedSlab((0, 0, 0), volume.shape, labels.copy()))
    yield Result(
        Segmentation(
            labels,
            _mean([one.entropy for one in passes]) if chosen.uncertainty else None,
            _mean([one.disagreement for one in passes]) if chosen.uncertainty else None,
            tuple(dict.fromkeys(message for one in passes for message in one.messages)),
            sum(one.windows for one in passes),
            sum(one.skipped for one in passes),
        )
    )


def _vote(passes: list[Segmentation]) -> np.ndarray:
    """What two of three say, else the surest."""
    first, second, third = passes
    voted = np.where(second.labels == third.labels, second.labels, first.labels)
    split = (first.labels != second.labels) & (second.labels != third.labels) & (first.labels != third.labels)
    if split.any():
        surest = np.argmin([np.asarray(one.entropy)[split] for one in passes], axis=0)
        said = np.stack([one.labels[split] for one in passes])
        voted[split] = np.take_along_axis(said, surest[None], axis=0)[0]
    return voted


def _mean(maps: list[np.ndarray | None]) -> np.ndarray | None:
    """The mean of maps; None where there are none."""
    there = [one for one in maps if one is not None]
    if not there:
        return None
    mean: np.ndarray = sum(there[1:], start=there[0]) / len(there)
    return mean
