"""One object from its prompted slices to the others, on both sides until it ends.

Model-agnostic: see propagation_walk for how a slice follows from the last, propagation_voice for who is asked, and
propagation_ends for where an object ends. Between two prompted slices both directions are followed and blended by
nearness.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from napari_medtransformer.progress import Partial, Progress, Result, Steps
from napari_medtransformer.prompting.masks import PackedMask, unpacked
from napari_medtransformer.prompting.model_prompts import logits_of
from napari_medtransformer.prompting.predictor import Prediction
from napari_medtransformer.prompting.prompts import Prompt, SliceKey
from napari_medtransformer.prompting.propagation_walk import ABSENT_LOGIT, Followed, marked_on, walk
from napari_medtransformer.prompting.slice_model import Outcome, Request, SliceModel


@dataclass(frozen=True)
class Seed:
    """What a prompted slice says of the object.

    prompts: what it was prompted with. candidate: the mask chosen there (None: the best score). edited: the mask it was
    edited to, which counts instead. model: which of the session's models answered.
    """

    prompts: tuple[Prompt, ...]
    candidate: int | None = None
    edited: PackedMask | None = None
    model: int = 0

    def digest(self) -> str:
        """A short name for all of it."""
        return hashlib.blake2b(repr(self).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, eq=False)
class PropagatedSlice:
    """One slice reached. mask: (H, W) bool; score: expected IoU."""

    key: SliceKey
    mask: np.ndarray
    score: float


@dataclass(frozen=True, eq=False)
class Propagation:
    """An object followed across `axis`.

    masks: by slice index, without the prompted ones. seeds: the prompted slices it started from. spans: the slices that
    were looked at; what was known of others stays. predicted: outcomes of prompted slices, made on the way.
    """

    object_id: int
    axis: int
    masks: Mapping[int, PackedMask]
    seeds: Mapping[int, Seed]
    spans: tuple[range, ...]
    predicted: tuple[Outcome, ...]


def spans_to_follow(seeds: Mapping[int, Seed], before: Mapping[int, str], count: int) -> tuple[range, ...]:
    """The slices, of `count`, whose masks depend on a prompted slice that changed; between them all else stays.

    seeds: the prompted slices now. before: those of the last time, as digests. A span lies between two neighbouring
    prompted slices, or beyond the outermost, and depends on those alone.
    """
    order = sorted(seeds)
    old = sorted(before)
    same = {index for index in order if before.get(index) == seeds[index].digest()}
    bounds = [(None, order[0]), *itertools.pairwise(order), (order[-1], None)] if order else []
    known = {(None, old[0]), *itertools.pairwise(old), (old[-1], None)} if old else set()
    spans = []
    for low, high in bounds:
        unchanged = (low, high) in known and all(end is None or end in same for end in (low, high))
        span = range(0 if low is None else low + 1, count if high is None else high)
        if not unchanged and len(span):
            spans.append(span)
    return tuple(spans)


def follow(
    slices: SliceModel, object_id: int, axis: int, seeds: Mapping[int, Seed], spans: tuple[range, ...]
) -> Steps[Propagation]:
    """Follow an object from its prompted slices (by index, ascending) until it ends on both sides.

    spans: the slices to look at, see spans_to_follow. Yields Progress and a Partial[PropagatedSlice] per slice, then
    the Result.
    """
    ends = [{span.start - 1, span.stop} & seeds.keys() for span in spans]
    # How large the object is elsewhere, and what it looks like there, tell where it ends.
    wanted = set(seeds) if any(len(known) == 1 for known in ends) else set().union(*ends)
    predicted: dict[int, Outcome] = {}
    for index in sorted(wanted):
        yield Progress(len(predicted), None, f"slice {index}, as prompted")
        predicted[index] = slices.predict(Request(SliceKey(object_id, axis, index), seeds[index].prompts), levels=True)
    starts = {index: _chosen(outcome.prediction, seeds[index]) for index, outcome in predicted.items()}
    marked = marked_on(slices, axis, starts)
    done = len(starts)
    masks: dict[int, PackedMask] = {}

    def reached(index: int, logits: np.ndarray, score: float) -> PropagatedSlice:
        masks[index] = PackedMask.pack(logits > 0)
        return PropagatedSlice(SliceKey(object_id, axis, index), logits > 0, score)

    for span in spans:
        below, above = span.start - 1, span.stop
        if below not in starts or above not in starts:
            start, indices = (below, span) if below in starts else (above, span[::-1])
            found = yield from walk(slices, axis, start, starts[start], indices, done=done, marked=marked)
            done += len(found)
            for index, one in found.items():
                yield Partial(reached(index, one.logits(), one.score))
            continue
        sides: list[dict[int, Followed]] = []
        for start, indices in ((below, span), (above, span[::-1])):
            side = yield from walk(slices, axis, start, starts[start], indices, done=done, open_end=False)
            sides.append(side)
            done += len(side)
        for index in span:
            blended = _blend(sides[0].get(index), sides[1].get(index), (above - index) / (above - below))
            if blended is not None and (blended[0] > 0).any():
                yield Partial(reached(index, *blended))
    found_masks = dict(sorted(masks.items()))
    yield Result(Propagation(object_id, axis, found_masks, dict(seeds), spans, tuple(predicted.values())))


def _chosen(prediction: Prediction, seed: Seed) -> np.ndarray:
    if seed.edited is not None:
        return logits_of(unpacked(seed.edited))
    return prediction.logits if seed.candidate is None else prediction.choose(seed.candidate).logits


def _blend(forward: Followed | None, backward: Followed | None, nearness: float) -> tuple[np.ndarray, float] | None:
    """Both directions' logits and scores, weighted by how near their prompted slices are; a missing one speaks against.

    None if neither direction reached the slice.
    """
    known = forward or backward
    if known is None:
        return None
    absent = np.full(known.shape, ABSENT_LOGIT, np.float32)
    logits, other = (absent if one is None else one.logits() for one in (forward, backward))
    scores = [0.0 if one is None else one.score for one in (forward, backward)]
    blended = nearness * logits + (1 - nearness) * other
    return blended.astype(np.float32), nearness * scores[0] + (1 - nearness) * scores[1]
