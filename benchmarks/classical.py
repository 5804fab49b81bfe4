"""Segmentation without learning, from the same prompts: what a network has to beat.

Each takes the windowed slice (H, W) in [0, 1], clicks [((y, x), sign), …] and a box (y0, x0, y1, x1) or None, and
returns a mask (H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from scipy import ndimage
from skimage.segmentation import flood, random_walker
from skimage.transform import resize

Clicks = list[tuple[tuple[int, int], int]]
Box = tuple[int, int, int, int]
# Pixels beside a box that a method may look at, as a share of its longer side.
MARGIN = 0.25
# Longest side of what the slow methods are given; crops are brought to it.
LONGEST = 160
# Of region growing, shares of the window, widest first.
TOLERANCES = (0.12, 0.08, 0.05, 0.03, 0.02, 0.01)


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
    """Pixels joined to an inside click whose smoothed value differs little from it.

    How little: the widest of a few tolerances that keeps clear of the outside clicks and of half the image.
    """
    smooth = ndimage.gaussian_filter(image, 1)
    mask = _at(clicks, image.shape)
    allowed = np.ones(image.shape, bool) if box is None else _within(box, image.shape)
    outside = [at for at, sign in clicks if not sign]
    inside = [at for at, sign in clicks if sign]
    if not inside and box is not None:
        inside = [((box[0] + box[2]) // 2, (box[1] + box[3]) // 2)]
    for at in inside:
        for tolerance in TOLERANCES:
            grown = flood(smooth, at, tolerance=tolerance) & allowed
            if grown.sum() < image.size / 2 and not any(grown[y, x] for y, x in outside):
                mask |= grown
                break
    return ndimage.binary_fill_holes(mask)


def walker(image: np.ndarray, clicks: Clicks, box: Box | None) -> np.ndarray:
    """Random walker (Grady 2006): seeds at the clicks; outside the box, and in its middle where nothing is clicked."""
    seeds = np.zeros(image.shape, np.int8)
    for (y, x), sign in clicks:
        seeds[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = 1 if sign else 2
    if box is not None:
        seeds[~_within(box, image.shape)] = 2
        if not any(sign for _, sign in clicks):
            seeds[_shrunk(box, 0.4, image.shape)] = 1
    else:
        seeds[[0, -1], :] = 2
        seeds[:, [0, -1]] = 2
    return _on_crop(image, seeds, box, lambda part, marks: random_walker(part, marks, beta=300, mode="cg_j") == 1)


def grab_cut(image: np.ndarray, clicks: Clicks, box: Box | None) -> np.ndarray:
    """GrabCut (Rother et al. 2004) by OpenCV: probably the object in the box, or near inside clicks; sure at clicks.

    Its histograms start from a sure core: the clicks, or else the middle of the box. Without a core it empties masks
    of organs, whose surroundings hold the same grey values.
    """
    import cv2

    sure_out, sure_in, maybe_out, maybe_in = cv2.GC_BGD, cv2.GC_FGD, cv2.GC_PR_BGD, cv2.GC_PR_FGD
    marks = np.full(image.shape, maybe_out, np.uint8)
    inside = [at for at, sign in clicks if sign]
    if box is not None:
        marks[:] = np.where(_within(box, image.shape), maybe_in, sure_out)
        if not inside:
            marks[_shrunk(box, 0.5, image.shape)] = sure_in
    near = max(1, min(image.shape) // 100)
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    for (cy, cx), sign in clicks:
        away = np.hypot(y - cy, x - cx)
        if box is None and sign:
            marks[(away <= 6 * near) & (marks == maybe_out)] = maybe_in
        marks[away <= near] = sure_in if sign else sure_out

    def cut(part: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        coloured = np.repeat((255 * part).astype(np.uint8)[..., None], 3, axis=2)
        # Seeds travel by _on_crop as 1 inside and 2 outside; 0 is not sure, and `maybe` says which way.
        given = np.select([seeds == 1, seeds == 2, seeds == 3], [sure_in, sure_out, maybe_in], maybe_out)
        given = given.astype(np.uint8)
        if not np.isin(given, [sure_out, maybe_out]).any() or not np.isin(given, [sure_in, maybe_in]).any():
            return given == sure_in
        cv2.setRNGSeed(0)
        cv2.grabCut(coloured, given, None, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
        return np.isin(given, [sure_in, maybe_in])

    codes = np.select([marks == sure_in, marks == sure_out, marks == maybe_in], [1, 2, 3], 0).astype(np.int8)
    return _on_crop(image, codes, box, cut)


def methods() -> dict[str, Callable[[np.ndarray, Clicks, Box | None], np.ndarray]]:
    """The methods by name; GrabCut where OpenCV is installed."""
    there = {"ellipse": ellipse, "region growing": region_growing, "random walker": walker}
    return there | ({"GrabCut": grab_cut} if find_spec("cv2") else {})


def _on_crop(
    image: np.ndarray, seeds: np.ndarray, box: Box | None, method: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Run a method near the box, brought to one size, and put its mask back: these methods lose small objects."""
    y0, x0, y1, x1 = (0, 0, *image.shape) if box is None else box
    margin = 0 if box is None else 2 + int(MARGIN * max(y1 - y0, x1 - x0))
    part = np.s_[max(0, y0 - margin) : y1 + margin, max(0, x0 - margin) : x1 + margin]
    shape = seeds[part].shape
    rows, columns = (np.minimum((np.arange(m) + 0.5) * n / m, n - 1).astype(int) for n, m in zip(shape, _scaled(shape)))
    larger = seeds[part][np.ix_(rows, columns)]
    for value in (2, 1):  # no seed falls through the mesh, an inside one least of all
        for y, x in np.argwhere(seeds[part] == value):
            larger[int((y + 0.5) * len(rows) / shape[0]), int((x + 0.5) * len(columns) / shape[1])] = value
    picture = np.clip(resize(image[part], larger.shape, order=1, anti_aliasing=True), 0, 1)
    found = method(picture, larger)
    mask = np.zeros(image.shape, bool)
    mask[part] = resize(found.astype(float), shape, order=1, anti_aliasing=True) >= 0.5
    return mask


def _scaled(shape: tuple[int, ...]) -> tuple[int, int]:
    return max(2, round(shape[0] * LONGEST / max(shape))), max(2, round(shape[1] * LONGEST / max(shape)))


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
