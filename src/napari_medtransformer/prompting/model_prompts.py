"""A person's prompts as models know them: points, one box, one mask to refine – and what no model may contradict.

A stroke becomes a few points in its middle, far from each other. A lasso becomes its most interior point, its inside as
the mask to refine and, for most models, the box around it; one around what is not the object becomes points outside.
Whatever a model makes of them, a marked pixel is what the person said it is: `honour` sees to that.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import ndimage

from napari_medtransformer.errors import InvalidPrompt, PointOutsideVolume
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.prompting.appearance import bounding_box
from napari_medtransformer.prompting.masks import unpacked
from napari_medtransformer.prompting.predictor import make_prompts
from napari_medtransformer.prompting.prompts import (
    BoxPrompt,
    LassoPrompt,
    MaskPrompt,
    PointPrompt,
    Prompt,
    ScribblePrompt,
    nearest_voxel,
)
from napari_medtransformer.prompting.refining import REFINED_LOGIT, refined_logits

MASK_LOGIT = 6.0  # certainty given to a mask that has no logits: sigmoid 0.998, and of the size networks give
POINTS_PER_STROKE = 6  # more of one sign cost time and say nothing new
_POINT_DISTANCE = 1 / 5  # of the stroke's extent, and at least
_POINT_PIXELS = 6.0  # this far do a stroke's points lie apart


def logits_of(mask: np.ndarray) -> np.ndarray:
    """(H, W) float32 logits that say a bool mask with certainty."""
    return np.where(mask, np.float32(MASK_LOGIT), np.float32(-MASK_LOGIT))


def model_prompts(shape: tuple[int, int], prompts: Iterable[Prompt], *, boxed_lassos: bool = True) -> Prompts:
    """The prompts of one object on one slice of `shape` (H, W), for any promptable model.

    Of several boxes or lassos, and of several masks, the last one counts. boxed_lassos: whether a lasso is given as its
    box and its inside as a mask; else its inside comes as `lasso_logits`, without the box, which is better for a model
    that refines masks: Dice on 184 targets of docs/quality.md with and without the box, lassos a pixel outside the
    border .84 and .84, a twentieth of the extent .80 and .83, a tenth .72 and .77.
    Raises PointOutsideVolume, InvalidPrompt.
    """
    points: list[tuple[float, float]] = []
    labels: list[int] = []
    box: tuple[float, float, float, float] | None = None
    hint: np.ndarray | None = None
    for prompt in prompts:
        if isinstance(prompt, PointPrompt):
            given = [prompt.on_slice()]
        elif isinstance(prompt, BoxPrompt):
            box = prompt.on_slice()
            continue
        elif isinstance(prompt, MaskPrompt):
            hint = logits_of(pixels_on_slice(prompt, shape))
            continue
        elif isinstance(prompt, ScribblePrompt):
            given = stroke_points(pixels_on_slice(prompt, shape))
        else:
            inside = lasso_mask(prompt, shape)
            given = stroke_points(inside, most=1 if prompt.positive else POINTS_PER_STROKE)
            if prompt.positive:
                y0, x0, y1, x1 = bounding_box(inside)
                box = (y0, x0, y1, x1) if boxed_lassos else None
                hint = logits_of(inside) if boxed_lassos else lasso_logits(inside)
        points += given
        labels += [int(not isinstance(prompt, MaskPrompt) and prompt.positive)] * len(given)
    return make_prompts(shape, points, labels, box, hint)


def refines(prompt: Prompt) -> bool:
    """Whether a prompt can correct the answer before it: a point, a stroke, a lasso around what is not the object.

    A box, a lasso around the object or a mask says anew what is meant.
    """
    return isinstance(prompt, PointPrompt | ScribblePrompt) or (isinstance(prompt, LassoPrompt) and not prompt.positive)


def contradicts(prompt: Prompt, answer: np.ndarray) -> bool:
    """Whether a prompt says of any pixel that the answer, (H, W) bool, is wrong there."""
    said = refined_logits(answer)[None]
    return honour(said, (prompt,)) is not said


def stroke_logits(shape: tuple[int, int], prompts: Iterable[Prompt]) -> np.ndarray | None:
    """(H, W) float32 logits that say that what was painted over is inside, one pixel around it included; None without.

    For models that refine masks: a stroke says more than the points in its middle. Dice on 184 targets of the
    validation sets of docs/quality.md, a stroke through the middle: .57 with its points alone, .65 with both.
    """
    painted = np.zeros(shape, bool)
    for prompt in prompts:
        if isinstance(prompt, ScribblePrompt) and prompt.positive:
            painted |= pixels_on_slice(prompt, shape)
    return painted_logits(painted) if painted.any() else None


def painted_logits(painted: np.ndarray) -> np.ndarray:
    """(H, W) float32 logits of a stroke's pixels, bool: surely inside there and beside it, else perhaps outside."""
    return np.where(ndimage.binary_dilation(painted), np.float32(MASK_LOGIT), np.float32(-REFINED_LOGIT))


def lasso_logits(inside: np.ndarray) -> np.ndarray:
    """(H, W) float32 logits of what a lasso encloses, bool: surely outside beyond it, perhaps inside within."""
    return np.where(inside, np.float32(REFINED_LOGIT), np.float32(-MASK_LOGIT))


def stroke_points(pixels: np.ndarray, most: int = POINTS_PER_STROKE) -> list[tuple[float, float]]:
    """A few (row, column) pixels of a (H, W) bool mask: its most interior one, then each farthest from those before.

    All lie in the middle of the stroke, as its edges and ends are where a hand is least sure. Empty for no pixels.
    """
    if not pixels.any():
        return []
    y0, x0, y1, x1 = bounding_box(pixels)
    depth = ndimage.distance_transform_edt(np.pad(pixels[y0:y1, x0:x1], 1))[1:-1, 1:-1]
    rows, columns = np.nonzero(depth >= depth.max() / 2)
    middle = np.argwhere(pixels).mean(axis=0) - (y0, x0)
    interior = depth[rows, columns] - 1e-3 * np.hypot(rows - middle[0], columns - middle[1])
    apart = max(_POINT_PIXELS, _POINT_DISTANCE * max(y1 - y0, x1 - x0))
    chosen = [int(np.argmax(interior))]
    distance = np.full(len(rows), np.inf)
    while len(chosen) < most:
        last = chosen[-1]
        distance = np.minimum(distance, np.hypot(rows - rows[last], columns - columns[last]))
        farthest = int(np.argmax(distance))
        if distance[farthest] < apart:
            break
        chosen.append(farthest)
    return [(float(y0 + rows[i]), float(x0 + columns[i])) for i in chosen]


def lasso_mask(prompt: LassoPrompt, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: the pixels whose centre lies inside the outline; the nearest to its middle if there is none."""
    from skimage.draw import polygon

    vertices = np.array(prompt.on_slice())
    mask = np.zeros(shape, bool)
    mask[polygon(vertices[:, 0], vertices[:, 1], shape)] = True
    if not mask.any():
        y, x = (nearest_voxel(p) for p in vertices.mean(axis=0))
        if not (0 <= y < shape[0] and 0 <= x < shape[1]):
            raise PointOutsideVolume(f"the lasso lies outside the image of {shape[0]} × {shape[1]} pixels.")
        mask[y, x] = True
    return mask


def honour(logits: np.ndarray, prompts: Iterable[Prompt]) -> np.ndarray:
    """Candidates (m, H, W) with every marked pixel as the person marked it, the later mark over the earlier.

    Pixels under a point or a stroke are inside or outside as it says, all pixels within a lasso around what is not the
    object are outside, and so is what lies outside a lasso around the object, until a later prompt says inside there.
    Boxes and masks promise nothing about single pixels.
    """
    shape = (logits.shape[-2], logits.shape[-1])
    given = tuple(prompts)
    changed: np.ndarray | None = None
    for number, prompt in enumerate(given):
        if isinstance(prompt, BoxPrompt | MaskPrompt):
            continue
        around = isinstance(prompt, LassoPrompt) and prompt.positive
        marked = ~marked_pixels(prompt, shape) if around else marked_pixels(prompt, shape)
        if around and any(_goes_into(later, marked) for later in given[number + 1 :]):
            continue
        inside = prompt.positive and not around
        wrong = marked & ((logits > 0) != inside)
        if wrong.any():
            changed = logits.copy() if changed is None else changed
            changed[wrong] = MASK_LOGIT if inside else -MASK_LOGIT
            logits = changed
    return logits


def marked_pixels(prompt: PointPrompt | ScribblePrompt | LassoPrompt, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: the pixels under a point or a stroke, or within a lasso."""
    if isinstance(prompt, LassoPrompt):
        return lasso_mask(prompt, shape)
    if isinstance(prompt, ScribblePrompt):
        return unpacked(prompt.pixels)
    marked = np.zeros(shape, bool)
    y, x = (nearest_voxel(p) for p in prompt.on_slice())
    marked[y, x] = True
    return marked


def _goes_into(prompt: Prompt, region: np.ndarray) -> bool:
    """Whether a prompt says of any pixel of a region (H, W) bool that it is, or may be, inside."""
    if isinstance(prompt, BoxPrompt):
        return True
    if isinstance(prompt, MaskPrompt):
        return bool((unpacked(prompt.mask) & region).any())
    return prompt.positive and bool((marked_pixels(prompt, region.shape) & region).any())


def pixels_on_slice(prompt: MaskPrompt | ScribblePrompt, shape: tuple[int, int]) -> np.ndarray:
    """The prompt's (H, W) pixels. Raises InvalidPrompt if they do not fit, or a stroke has none."""
    packed = prompt.mask if isinstance(prompt, MaskPrompt) else prompt.pixels
    if packed.shape != tuple(shape):
        raise InvalidPrompt(f"a mask of shape {packed.shape} was given for slices of {tuple(shape)}.")
    pixels = unpacked(packed)
    if isinstance(prompt, ScribblePrompt) and not pixels.any():
        raise InvalidPrompt("the stroke has no pixel on the slice; paint a longer one.")
    return pixels
