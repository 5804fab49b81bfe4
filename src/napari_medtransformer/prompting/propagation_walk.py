"""One object followed in one direction from a slice it is known on: each slice is prompted by the mask of the last.

What comes back is one voice of three. The second is a prior of motion: an outline moves by about as much as the slices
are apart. The third is what the object looked like where it was marked, against what is beside it on the way: a network
that is shown its own mask agrees with it too readily, and this keeps it from walking into the organ next door. The sum
is reduced to what hangs together with the mask before, and not by a neck alone, through which masks leak into what
touches the object.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_medtransformer.progress import Progress
from napari_medtransformer.prompting.appearance import Appearance, around, bounding_box, without_noise
from napari_medtransformer.prompting.propagation_ends import SMALLEST_PIXELS, Ends, SliceFacts
from napari_medtransformer.prompting.propagation_voice import Voice
from napari_medtransformer.prompting.rounding import LOGIT_LIMIT, logits_from_levels, rounded_levels
from napari_medtransformer.prompting.slice_model import SliceModel

_NETWORK = 0.8  # weight of the network's logits beside the two others, which are in nats
_REACH_PIXELS = 2.0  # an outline may move by that much, or by the distance of the slices if that is more
_FAR, _DEEP = -3.0, 1.0  # the prior's range: three reaches outside the mask before, and one reach inside
_MARGIN = 0.4  # of the mask's extent: how far around the mask before the object is looked for, and at least
_MARGIN_PIXELS = 10
_NECK = 0.3  # of the object's inner radius: what hangs on by a neck of no more than twice that is cut off, …
_NECK_MM = 7.5  # … or of twice that, if that is less
_FINE_PIXELS = 160  # masks wider than that are measured on every second pixel, or third …
ABSENT_LOGIT = -6.0  # of what was not looked at, and of a slice that one direction of two did not reach


@dataclass(frozen=True)
class Marked:
    """What all prompted slices say of the object. largest: pixels of the largest mask. looks, usual: see Ends.

    looks and usual are None where there is one prompted slice only: it knows no better than the slice followed from.
    """

    largest: int = 0
    looks: float | None = None
    usual: float | None = None


@dataclass(frozen=True, eq=False)
class Followed:
    """The object on one slice. levels: int8 logits in steps (see rounding) within `window`; all else is absent.

    shape: (H, W). score: expected IoU of the network's mask.
    """

    levels: np.ndarray
    window: tuple[slice, slice]
    shape: tuple[int, int]
    score: float

    def logits(self) -> np.ndarray:
        """(H, W) float32, inside > 0."""
        logits = np.full(self.shape, ABSENT_LOGIT, np.float32)
        logits[self.window] = logits_from_levels(self.levels)
        return logits


def walk(
    slices: SliceModel,
    axis: int,
    start: int,
    logits: np.ndarray,
    indices: range,
    *,
    done: int = 0,
    marked: Marked | None = None,
    open_end: bool = True,
) -> Generator[Progress, None, dict[int, Followed]]:
    """Follow the object slice after slice until it ends; returns the slices that hold it.

    logits: (H, W), of the slice `start` that it begins at. done: slices already followed, for Progress. open_end: see
    Ends.
    """
    followed: dict[int, Followed] = {}
    if not (logits > 0).any():
        return followed
    mask = logits > 0
    appearance = Appearance(without_noise(slices.image(axis, start)), mask)
    known = marked or Marked()
    looks = appearance.own if known.looks is None else known.looks
    ends = Ends(int(np.count_nonzero(mask)), looks, known.largest, known.usual, open_end)
    voice = Voice(slices, axis, start, logits)
    before, last = logits_from_levels(rounded_levels(logits)), start
    for index in indices:
        if np.count_nonzero(before > 0) < SMALLEST_PIXELS:
            break
        found, facts = _next(slices, axis, last, index, before, appearance, voice)
        yield Progress(done + len(followed), None, f"slice {index}")
        ends.add(facts)
        if ends.ended:
            break
        followed[index] = found
        before, last = found.logits(), index
        voice.tell(before)
    return dict(list(followed.items())[: ends.kept])


def marked_on(slices: SliceModel, axis: int, starts: Mapping[int, np.ndarray]) -> Marked:
    """What the prompted slices say of the object. starts: (H, W) logits by slice index."""
    masks = {index: logits > 0 for index, logits in starts.items() if (logits > 0).any()}
    largest = max((int(np.count_nonzero(mask)) for mask in masks.values()), default=0)
    if len(masks) < 2:
        return Marked(largest)
    looks: list[float] = []
    changes: list[float] = []
    for index, mask in masks.items():
        image = without_noise(slices.image(axis, index))
        looks.append(Appearance(image, mask).own)
        for beside in (index - 1, index + 1):
            if 0 <= beside < slices.volume.shape[axis]:
                changes.append(float(np.abs(image - without_noise(slices.image(axis, beside)))[mask].mean()))
    return Marked(largest, float(np.median(looks)), float(np.median(changes)) if changes else None)


def _next(
    slices: SliceModel, axis: int, last: int, index: int, before: np.ndarray, appearance: Appearance, voice: Voice
) -> tuple[Followed, SliceFacts]:
    """The object on the slice `index`. before: (H, W) logits of the slice `last`. Renews the appearance."""
    mask = before > 0
    y0, x0, y1, x1 = bounding_box(mask)
    window = around(mask, max(_MARGIN_PIXELS, int(_MARGIN * max(y1 - y0, x1 - x0))))
    there = mask[window]
    pixel_mm = min(spacing for a, spacing in enumerate(slices.volume.spacing) if a != axis)
    depth = _depth(there)
    row, column = np.unravel_index(int(np.argmax(depth)), there.shape)
    inside = (float(window[0].start + row), float(window[1].start + column))
    candidates, scores = voice.ask(index, inside, before)

    image = without_noise(slices.image(axis, index, window))
    reach = max(_REACH_PIXELS, slices.volume.spacing[axis] / pixel_mm)
    looks = appearance.evidence(image)
    prior = np.clip((depth - _depth(~there, edge=False)) / reach, _FAR, _DEEP) + looks
    neck = min(_NECK * float(depth.max()), _NECK_MM / pixel_mm)
    sums = [
        _hanging_together(_NETWORK * np.clip(one[window], -LOGIT_LIMIT, LOGIT_LIMIT) + prior, there, neck)
        for one in candidates
    ]
    overlaps = np.array([_iou(one > 0, there) for one in sums])
    best = int(np.argmax(overlaps + scores))
    found = sums[best] > 0
    area = int(np.count_nonzero(found))
    both = found & there
    change = np.abs(image - without_noise(slices.image(axis, last, window)))
    facts = SliceFacts(
        area=area,
        overlap=float(overlaps[best]),
        looks=float(looks[found].mean()) if area else _FAR,
        change=float(change[both].mean()) if both.any() else 1.0,
    )
    if area:
        appearance.renew(image, found)
    return Followed(rounded_levels(sums[best]), window, (mask.shape[0], mask.shape[1]), float(scores[best])), facts


def _hanging_together(logits: np.ndarray, before: np.ndarray, neck: float) -> np.ndarray:
    """`logits` with all made negative that does not hang together with the mask before, or by a neck alone.

    neck: half the width of what counts as one, in pixels; below a pixel there are none.
    """
    kept = _touching(logits > 0, before)
    if neck >= 1 and kept.any():
        core = _depth(kept) > neck
        core = _touching(core, before)
        if core.any():
            kept &= _depth(~core, edge=False) <= neck + 1
    return np.where(kept | (logits <= 0), logits, -np.abs(logits)).astype(np.float32)


def _touching(mask: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The connected parts of a mask that share pixels with another."""
    parts, count = ndimage.label(mask)
    touching = np.zeros(count + 1, bool)
    touching[parts[before]] = True
    touching[0] = False
    kept: np.ndarray = touching[parts]
    return kept


def _depth(mask: np.ndarray, edge: bool = True) -> np.ndarray:
    """(H, W) distance in pixels of every pixel of a mask to what is outside; edge: beyond the image is outside too."""
    step = max(1, max(mask.shape) // _FINE_PIXELS)
    coarse = mask[step // 2 :: step, step // 2 :: step] if step > 1 else mask
    padded = np.pad(coarse, 1, constant_values=not edge)
    depth: np.ndarray = ndimage.distance_transform_edt(padded)[1:-1, 1:-1].astype(np.float32)
    if step == 1:
        return depth
    rows, columns = mask.shape
    fine = np.kron(depth * step, np.ones((step, step), np.float32))
    fine = np.pad(fine, ((0, max(0, rows - fine.shape[0])), (0, max(0, columns - fine.shape[1]))), mode="edge")
    return np.where(mask, np.maximum(ndimage.uniform_filter(fine[:rows, :columns], step), 0.5), 0)


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    either = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / either if either else 0.0
