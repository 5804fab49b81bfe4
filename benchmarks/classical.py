"""Segmentation without learning, from the same prompts: what a network has to beat.

Each takes the windowed slice (H, W) in [0, 1], clicks [((y, x), sign), …] and a box (y0, x0, y1, x1) or None, and
returns a mask (H, W). GrabCut runs where OpenCV is installed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage
from skimage.segmentation import flood, random_walker

Clicks = list[tuple[tuple[int, int], int]]
Box = tuple[int, int, int, int]
# Pixels beside a box that a method may look at, as a share of its longer side.
MARGIN = 0.25
# Longest side of what the slow methods are given; larger crops are thinned.
LONGEST = 160


def ellipse(image: np.ndarray, clicks: Clicks, box: Box | None) -> np.ndarray:
    """The ellipse that touches the four sides of the box."""
    if box is None:
        return np.zeros(image.shape, bool)
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    y0, x0, y1, x1 = box
    v = (y + 0.5 - (y0 + y1) / 2) / ((y1 - y0) / 2)
    u = (x + 0.5 - (x0 + x1) / 2) / ((x1 - x0) / 2)
    return np.asarray(u**2 + v**2 <= 1)


def region_growing(image: np.ndarray, clicks: Clicks, box: Box | None) -> np.ndarray:
    """Pixels joined to an inside click whose smoothed value differs little from it (two deviations around it)."""
    smooth = ndimage.gaussian_filter(image, 1)
    mask = np.zeros(image.shape, bool)
    inside = [at for at, sign in clicks if sign]
    if not inside and box is not None:
        inside = [((box[0] + box[2]) // 2, (box[1] + box[3]) // 2)]
    for y, x in inside:
        near = smooth[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        mask |= flood(smooth, (y, x), tolerance=max(0.04, 2 * float(near.std())))
    for (y, x), sign in clicks:
        if not sign:
            mask[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = False
    if box is not None:
        mask &= _within(box, image.shape)
    return ndimage.binary_fill_holes(ndimage.binary_opening(mask) | _at(clicks, image.shape))


def walker(image: np.ndarray, clicks: Clicks, box: Box | None) -> np.ndarray:
    """Random walker (Grady 2006): seeds at the clicks; outside the box, and in its middle where nothing is clicked."""
    seeds = np.zeros(image.shape, np.int8)
    for (y, x), sign in clicks:
        seeds[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = 1 if sign else 2
    if box is not None:
        seeds[~_within(box, image.shape)] = 2
        if not any(sign for _, sign in clicks):
            seeds[_shrunk(box, 0.4, image.shape)] = 1
    elif not (seeds == 2).any():
        seeds[[0, -1], :] = 2
        seeds[:, [0, -1]] = 2
    return _on_crop(image, seeds, box, lambda part, marks: random_walker(part, marks, beta=300, mode="cg_j") == 1)


def grabcut(image: np.ndarray, clicks: Clicks, box: Box | None) -> np.ndarray:
    """GrabCut (Rother et al. 2004) of OpenCV, five rounds."""
    import cv2

    marks = np.full(image.shape, cv2.GC_PR_BGD, np.uint8)
    if box is not None:
        marks[:] = cv2.GC_BGD
        marks[_within(box, image.shape)] = cv2.GC_PR_FGD
    for (y, x), sign in clicks:
        if sign and box is None:  # without a box the neighbourhood of a click is all there is to learn from
            marks[max(0, y - 8) : y + 9, max(0, x - 8) : x + 9] = cv2.GC_PR_FGD
    for (y, x), sign in clicks:
        marks[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = cv2.GC_FGD if sign else cv2.GC_BGD

    def cut(part: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        picture = np.repeat((part * 255).astype(np.uint8)[..., None], 3, axis=-1)
        known = np.ascontiguousarray(seeds)
        cv2.grabCut(picture, known, None, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
        return np.isin(known, (cv2.GC_FGD, cv2.GC_PR_FGD))

    return _on_crop(image, marks, box, cut)


def methods() -> dict[str, Callable[[np.ndarray, Clicks, Box | None], np.ndarray]]:
    """The methods that can run here, by name."""
    found = {"ellipse": ellipse, "region growing": region_growing, "random walker": walker}
    try:
        import cv2  # noqa: F401
    except ImportError:
        return found
    return found | {"GrabCut": grabcut}


def _on_crop(
    image: np.ndarray, seeds: np.ndarray, box: Box | None, method: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Run a method near the box, thinned where that is large, and put its mask back."""
    y0, x0, y1, x1 = (0, 0, *image.shape) if box is None else box
    margin = 0 if box is None else 2 + int(MARGIN * max(y1 - y0, x1 - x0))
    part = np.s_[max(0, y0 - margin) : y1 + margin, max(0, x0 - margin) : x1 + margin]
    step = max(1, -(-max(seeds[part].shape) // LONGEST))
    thinned = seeds[part][::step, ::step].copy()
    for y, x in np.argwhere(seeds[part] == 1):  # no inside seed falls through the mesh
        thinned[min(y // step, thinned.shape[0] - 1), min(x // step, thinned.shape[1] - 1)] = 1
    found = method(image[part][::step, ::step], thinned)
    mask = np.zeros(image.shape, bool)
    shape = seeds[part].shape
    mask[part] = np.repeat(np.repeat(found, step, axis=0), step, axis=1)[: shape[0], : shape[1]]
    return mask


def _within(box: Box, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[box[0] : box[2], box[1] : box[3]] = True
    return mask


def _shrunk(box: Box, share: float, shape: tuple[int, ...]) -> np.ndarray:
    y, x = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2
    half_y, half_x = (max(0, int(share * (high - low) / 2)) for low, high in ((box[0], box[2]), (box[1], box[3])))
    return _within((y - half_y, x - half_x, y + half_y + 1, x + half_x + 1), shape)


def _at(clicks: Clicks, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for (y, x), sign in clicks:
        mask[y, x] |= bool(sign)
    return mask
