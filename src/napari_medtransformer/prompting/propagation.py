"""One object from its prompted slices to the others, each slice prompted by the mask of the one before.

Model-agnostic: the box around the mask before, widened a little, its most interior point, and its logits are the
prompts for the next slice. Between two prompted slices both directions are followed and blended by nearness.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_medtransformer.progress import Partial, Progress, Result, Steps
from napari_medtransformer.prompting.masks import PackedMask
from napari_medtransformer.prompting.predictor import Prediction, make_prompts
from napari_medtransformer.prompting.prompts import Prompt, SliceKey
from napari_medtransformer.prompting.slice_model import Outcome, Request, SliceModel

_MARGIN = 0.08  # of the mask's extent: how much further than on the slice before the object may reach
_MARGIN_PIXELS = 2.0
_SMALLEST_PIXELS = 6  # a mask below that is noise
_SHRINK = 0.2  # of the area before: an object that vanishes faster than that has ended
_GROW = 2.5  # times the area before: a mask that grows faster has leaked
_OVERLAP = 0.35  # IoU with the slice before, below which it is another object
_SCORE = 0.4  # expected IoU below which the model itself does not believe in the mask
_ABSENT_LOGIT = -6.0  # of a slice that one direction of two did not reach


@dataclass(frozen=True)
class Seed:
    """What a prompted slice was prompted with, and the candidate chosen there (None: the best score)."""

    prompts: tuple[Prompt, ...]
    candidate: int | None


@dataclass(frozen=True, eq=False)
class PropagatedSlice:
    """One slice reached. mask: (H, W) bool; score: expected IoU."""

    key: SliceKey
    mask: np.ndarray
    score: float


@dataclass(frozen=True, eq=False)
class Propagation:
    """An object followed across `axis`.

    masks: by slice index, without the prompted ones. seeds: the prompted slices it started from.
    predicted: outcomes of prompted slices, made on the way.
    """

    object_id: int
    axis: int
    masks: Mapping[int, PackedMask]
    seeds: Mapping[int, Seed]
    predicted: tuple[Outcome, ...]


def follow(slices: SliceModel, object_id: int, axis: int, seeds: Mapping[int, Seed]) -> Steps[Propagation]:
    """Follow an object from its prompted slices (by index, ascending) until it ends on both sides.

    Yields Progress and a Partial[PropagatedSlice] per slice, then the Result. Lee et al. propagate SAM by boxes in
    the same way (micro-sam, Archit et al. 2025); the memory of SAM 2 replaces this where a model has one.
    """
    total = slices.volume.shape[axis]
    predicted = {
        index: slices.predict(Request(SliceKey(object_id, axis, index), seed.prompts)) for index, seed in seeds.items()
    }
    starts = {index: _chosen(predicted[index].prediction, seed) for index, seed in seeds.items()}
    order = sorted(starts)
    done = len(order)
    masks: dict[int, PackedMask] = {}

    def decode(index: int, before: np.ndarray) -> tuple[np.ndarray, float] | None:
        return _next(slices, axis, index, before)

    def reached(index: int, logits: np.ndarray, score: float) -> PropagatedSlice:
        masks[index] = PackedMask.pack(logits > 0)
        return PropagatedSlice(SliceKey(object_id, axis, index), logits > 0, score)

    for end, indices in ((order[0], range(order[0] - 1, -1, -1)), (order[-1], range(order[-1] + 1, total))):
        for index, logits, score in _walk(decode, starts[end], indices):
            done += 1
            yield Progress(done, None, f"slice {index}")
            yield Partial(reached(index, logits, score))
    for first, last in itertools.pairwise(order):
        backward: dict[int, tuple[np.ndarray, float]] = {}
        for index, logits, score in _walk(decode, starts[last], range(last - 1, first, -1)):
            backward[index] = (logits, score)
            yield Progress(done, None, f"slice {index}, from {last}")
        forward = {i: (lo, s) for i, lo, s in _walk(decode, starts[first], range(first + 1, last))}
        for index in range(first + 1, last):
            nearness = (last - index) / (last - first)  # of the first one
            blended = _blend(forward.get(index), backward.get(index), nearness)
            done += 1
            yield Progress(done, None, f"slice {index}")
            if blended is not None and (blended[0] > 0).any():
                yield Partial(reached(index, *blended))
    yield Result(Propagation(object_id, axis, dict(sorted(masks.items())), dict(seeds), tuple(predicted.values())))


Decode = Callable[[int, np.ndarray], tuple[np.ndarray, float] | None]


def _walk(decode: Decode, start: np.ndarray, indices: range) -> Iterator[tuple[int, np.ndarray, float]]:
    """(index, logits, score) of slice after slice until the object ends. start: (H, W) logits of the slice before."""
    before = start
    for index in indices:
        found = decode(index, before) if (before > 0).sum() >= _SMALLEST_PIXELS else None
        if found is None:
            return
        before = found[0]
        yield index, *found


def _next(slices: SliceModel, axis: int, index: int, before: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Logits and score on the next slice, or None if the object has ended. before: (H, W) logits."""
    mask = before > 0
    rows, columns = (np.flatnonzero(mask.any(axis=a)) for a in (1, 0))
    edges = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], float)
    reach = np.maximum(_MARGIN_PIXELS, _MARGIN * np.array([len(rows), len(columns)]))
    box = edges + np.array([-reach[0], -reach[1], reach[0], reach[1]])
    inside = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    centre = np.unravel_index(int(np.argmax(inside)), mask.shape)
    prompts = make_prompts(slices.slice_shape(axis), [(float(centre[0]), float(centre[1]))], [1], box, before)
    prediction = slices.decode(axis, index, prompts)
    overlaps = np.array([_iou(candidate > 0, mask) for candidate in prediction.candidates])
    best = int(np.argmax(overlaps + prediction.scores))
    logits, score, overlap = prediction.candidates[best], float(prediction.scores[best]), float(overlaps[best])
    area, area_before = int((logits > 0).sum()), int(mask.sum())
    ended = (
        area < max(_SMALLEST_PIXELS, _SHRINK * area_before)
        or area > _GROW * area_before
        or overlap < _OVERLAP
        or score < _SCORE
    )
    return None if ended else (logits, score)


def _chosen(prediction: Prediction, seed: Seed) -> np.ndarray:
    return prediction.logits if seed.candidate is None else prediction.choose(seed.candidate).logits


def _blend(
    forward: tuple[np.ndarray, float] | None, backward: tuple[np.ndarray, float] | None, nearness: float
) -> tuple[np.ndarray, float] | None:
    """Both directions' logits, weighted by how near their prompted slices are; a missing one speaks against."""
    known = forward or backward
    if known is None:
        return None
    absent = (np.full_like(known[0], _ABSENT_LOGIT), 0.0)
    (logits, score), (other_logits, other_score) = forward or absent, backward or absent
    blended = nearness * logits + (1 - nearness) * other_logits
    return blended.astype(np.float32), nearness * score + (1 - nearness) * other_score


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    either = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / either if either else 0.0
