"""One object from its prompted slices to the others, each slice prompted by the mask of the one before.

Model-agnostic: the most interior point of the mask before and its logits are the prompts for the next slice; no box,
as a box says how large the object is, and a network that believes it never lets it end. What comes back is one voice
of three. The second is a prior of motion: an outline moves by about as much as the slices are apart. The third is what
the object looked like where it was marked, against what was beside it there: a network that is shown its own mask
agrees with it too readily, and this keeps it from walking into the organ next door. The sum is reduced to what hangs
together with the mask before, and the object has ended when nothing is left, or what is left neither looks like it nor
convinces the network. Between two prompted slices both directions are followed and blended by nearness.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_medtransformer.progress import Partial, Progress, Result, Steps
from napari_medtransformer.prompting.appearance import Appearance, around, bounding_box, without_noise
from napari_medtransformer.prompting.masks import PackedMask, unpacked
from napari_medtransformer.prompting.model_prompts import logits_of
from napari_medtransformer.prompting.predictor import Prediction, make_prompts
from napari_medtransformer.prompting.prompts import Prompt, SliceKey
from napari_medtransformer.prompting.rounding import logits_from_levels, rounded_levels
from napari_medtransformer.prompting.slice_model import Outcome, Request, SliceModel

_NETWORK = 0.5  # weight of the network's logits beside the two others, which are in nats
_LOOKS = 1.0  # weight of what the object looks like
_REACH_PIXELS = 2.0  # an outline may move by that much, or by the distance of the slices if that is more
_FAR, _DEEP = -3.0, 1.0  # the prior's range: three reaches outside the mask before, and one reach inside
_MARGIN = 0.25  # of the mask's extent: how far around the mask before the object is looked for, and at least
_MARGIN_PIXELS = 10
_SMALLEST_PIXELS = 6  # a mask below that is noise
_SHRINK = 0.15  # of the area before: an object that vanishes faster than that has ended
_GROW = 2.5  # times the area before: a mask that grows faster has leaked
_OVERLAP = 0.2  # IoU with the slice before, below which it is another object
_UNLIKE = 1.5  # nats per pixel: it looks that much less like the object than the object where it was marked
_DOUBTFUL = -0.05  # nats per pixel: it looks no more like the object than like what is beside it …
_DOUBTED = 0.5  # … and the network expects less IoU than this
_ABSENT_LOGIT = -6.0  # of a slice that one direction of two did not reach


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


Found = tuple[np.ndarray, float]
"""(H, W) logits of a slice, and the expected IoU."""


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
    wanted = {end for span in spans for end in (span.start - 1, span.stop) if end in seeds}
    predicted: dict[int, Outcome] = {}
    for index in sorted(wanted):
        yield Progress(len(predicted), None, f"slice {index}, as prompted")
        predicted[index] = slices.predict(Request(SliceKey(object_id, axis, index), seeds[index].prompts), levels=True)
    starts = {index: _chosen(outcome.prediction, seeds[index]) for index, outcome in predicted.items()}
    done = len(starts)
    masks: dict[int, PackedMask] = {}

    def reached(index: int, logits: np.ndarray, score: float) -> PropagatedSlice:
        masks[index] = PackedMask.pack(logits > 0)
        return PropagatedSlice(SliceKey(object_id, axis, index), logits > 0, score)

    for span in spans:
        below, above = span.start - 1, span.stop
        if below not in starts or above not in starts:
            start, indices = (below, span) if below in starts else (above, span[::-1])
            for index, found in _walk(slices, axis, start, starts[start], indices):
                done += 1
                yield Progress(done, None, f"slice {index}")
                yield Partial(reached(index, *found))
            continue
        sides: list[dict[int, Found]] = []
        for start, indices in ((below, span), (above, span[::-1])):
            sides.append({})
            for index, found in _walk(slices, axis, start, starts[start], indices):
                sides[-1][index] = found
                yield Progress(done, None, f"slice {index}, from {start}")
        for index in span:
            blended = _blend(sides[0].get(index), sides[1].get(index), (above - index) / (above - below))
            done += 1
            yield Progress(done, None, f"slice {index}")
            if blended is not None and (blended[0] > 0).any():
                yield Partial(reached(index, *blended))
    found_masks = dict(sorted(masks.items()))
    yield Result(Propagation(object_id, axis, found_masks, dict(seeds), spans, tuple(predicted.values())))


def _walk(slices: SliceModel, axis: int, start: int, logits: np.ndarray, indices: range) -> Iterator[tuple[int, Found]]:
    """Slice after slice until the object ends. logits: (H, W), of the slice `start` that it begins at."""
    if not (logits > 0).any():
        return
    appearance = Appearance(without_noise(slices.image(axis, start)), logits > 0)
    before = logits_from_levels(rounded_levels(logits))
    for index in indices:
        found = _next(slices, axis, index, before, appearance)
        if found is None:
            return
        before = found[0]
        yield index, found


def _next(slices: SliceModel, axis: int, index: int, before: np.ndarray, appearance: Appearance) -> Found | None:
    """The object on the next slice, or None if it has ended. before: (H, W) logits of the slice before."""
    mask = before > 0
    area_before = np.count_nonzero(mask)
    if area_before < _SMALLEST_PIXELS:
        return None
    y0, x0, y1, x1 = bounding_box(mask)
    window = around(mask, max(_MARGIN_PIXELS, int(_MARGIN * max(y1 - y0, x1 - x0))))
    there = mask[window]
    depth = ndimage.distance_transform_edt(np.pad(there, 1))[1:-1, 1:-1]  # the image's edge bounds the object too
    row, column = np.unravel_index(int(np.argmax(depth)), there.shape)
    inside = (float(window[0].start + row), float(window[1].start + column))
    prompts = make_prompts(slices.slice_shape(axis), [inside], [1], None, before)
    prediction = slices.decode(axis, index, prompts, levels=True)
    pixel_mm = min(spacing for a, spacing in enumerate(slices.volume.spacing) if a != axis)
    reach = max(_REACH_PIXELS, slices.volume.spacing[axis] / pixel_mm)
    motion = np.clip((depth - ndimage.distance_transform_edt(~there)) / reach, _FAR, _DEEP)
    looks = appearance.evidence(without_noise(slices.image(axis, index, window)))
    prior = motion + _LOOKS * looks
    candidates = [_connected(_NETWORK * logits[window] + prior, there) for logits in prediction.candidates]
    overlaps = np.array([_iou(candidate > 0, there) for candidate in candidates])
    best = int(np.argmax(overlaps + prediction.scores))
    score, found = float(prediction.scores[best]), candidates[best] > 0
    area = np.count_nonzero(found)
    alike = float(looks[found].mean()) if area else _FAR
    ended = (
        area < max(_SMALLEST_PIXELS, _SHRINK * area_before)
        or area > _GROW * area_before
        or overlaps[best] < _OVERLAP
        or alike < appearance.own - _UNLIKE
        or (alike < _DOUBTFUL and score < _DOUBTED)
    )
    if ended:
        return None
    logits = np.full(mask.shape, _ABSENT_LOGIT, np.float32)
    logits[window] = logits_from_levels(rounded_levels(candidates[best]))
    return logits, score


def _connected(logits: np.ndarray, before: np.ndarray) -> np.ndarray:
    """`logits` with everything made negative that does not hang together with the mask before."""
    parts, _ = ndimage.label(logits > 0)
    kept = np.unique(parts[before])
    astray = (parts > 0) & ~np.isin(parts, kept[kept > 0])
    return np.where(astray, -np.abs(logits), logits).astype(np.float32)


def _chosen(prediction: Prediction, seed: Seed) -> np.ndarray:
    if seed.edited is not None:
        return logits_of(unpacked(seed.edited))
    return prediction.logits if seed.candidate is None else prediction.choose(seed.candidate).logits


def _blend(forward: Found | None, backward: Found | None, nearness: float) -> Found | None:
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
