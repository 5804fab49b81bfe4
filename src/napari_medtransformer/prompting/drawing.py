"""Where prompts run on their slice, for eyes and hands: strokes as pixels, shapes as lines, the nearest to a place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from skimage.measure import approximate_polygon, find_contours

from napari_medtransformer.prompting.appearance import bounding_box
from napari_medtransformer.prompting.masks import PackedMask, unpacked
from napari_medtransformer.prompting.prompts import (
    BoxPrompt,
    LassoPrompt,
    PointPrompt,
    Prompt,
    ScribblePrompt,
    nearest_voxel,
)

_TOLERANCE = 0.4  # pixels by which an outline may be simplified: less than anybody sees


def stroke_pixels(shape: tuple[int, int], path_yx: Sequence[Sequence[float]], radius: float) -> PackedMask:
    """The pixels whose centre lies within `radius` pixels of a path, and those under it, on a slice of `shape` (H, W).

    path_yx: at least one (row, column). Empty if the path lies outside.
    """
    mask = np.zeros(shape, bool)
    path = np.atleast_2d(np.asarray(path_yx, np.float64))
    for a, b in zip(path, path[1:] if len(path) > 1 else path):
        low = np.maximum(np.floor(np.minimum(a, b) - radius).astype(int), 0)
        high = np.minimum(np.ceil(np.maximum(a, b) + radius).astype(int) + 1, shape)
        if np.any(low >= high):
            continue
        rows, columns = np.mgrid[low[0] : high[0], low[1] : high[1]]
        near = _distance_to_segment(np.stack([rows, columns], axis=-1), a, b) <= radius
        mask[low[0] : high[0], low[1] : high[1]] |= near
    for point in path:
        y, x = (nearest_voxel(float(p)) for p in point)
        if 0 <= y < shape[0] and 0 <= x < shape[1]:
            mask[y, x] = True
    return PackedMask.pack(mask)


def mask_outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Closed lines (n, 2) in rows and columns around the parts of a (H, W) bool mask, and around its holes."""
    if not mask.any():
        return []
    y0, x0, y1, x1 = bounding_box(mask)  # tracing looks at every pixel it is given
    lines = find_contours(np.pad(mask[y0:y1, x0:x1], 1).astype(np.float32), 0.5)
    simple = (approximate_polygon(line + np.array([y0 - 1, x0 - 1]), _TOLERANCE)[:-1] for line in lines)
    return [line for line in simple if len(line) >= 3]


def prompt_outlines(prompt: Prompt) -> list[np.ndarray]:
    """The closed lines (n, 2), in rows and columns of its slice, that draw a prompt; a point is a line of one place."""
    if isinstance(prompt, PointPrompt):
        return [np.array([prompt.on_slice()])]
    if isinstance(prompt, BoxPrompt):
        y0, x0, y1, x1 = (edge - 0.5 for edge in prompt.on_slice())  # a voxel's cell begins half a voxel before it
        return [np.array([(y0, x0), (y0, x1), (y1, x1), (y1, x0)])]
    if isinstance(prompt, LassoPrompt):
        return [np.array(prompt.on_slice())]
    return list(_packed_outlines(prompt.pixels if isinstance(prompt, ScribblePrompt) else prompt.mask))


def nearest_prompt(prompts: Mapping[int, Prompt], position_yx: Sequence[float], within: float) -> int | None:
    """The number of the prompt whose line is nearest to a place on their slice; None if all are farther than `within`.

    A stroke is near everywhere on it; points go before lines, as they are harder to hit. within: pixels.
    """
    place = np.asarray(position_yx, np.float64)
    best: tuple[int, float, int] | None = None
    for number, prompt in prompts.items():
        distance = 0.0 if _is_on(prompt, place) else _distance(prompt_outlines(prompt), place)
        rank = (0 if isinstance(prompt, PointPrompt) else 1, distance, -number)
        if distance <= within and (best is None or rank < best):
            best = rank
    return None if best is None else -best[2]


def in_volume(line_yx: np.ndarray, axis: int, index: int) -> np.ndarray:
    """Rows and columns (n, 2) of a slice as voxel coordinates (n, 3), (z, y, x)."""
    return np.insert(np.asarray(line_yx, np.float64), axis, float(index), axis=1)


def on_slice(position_zyx: Sequence[float], axis: int) -> tuple[float, float]:
    """The (row, column) of a voxel position within slices across `axis`."""
    row, column = (float(p) for a, p in enumerate(position_zyx) if a != axis)
    return row, column


@lru_cache(maxsize=256)
def _packed_outlines(mask: PackedMask) -> tuple[np.ndarray, ...]:
    return tuple(mask_outlines(unpacked(mask)))


def _is_on(prompt: Prompt, place: np.ndarray) -> bool:
    if not isinstance(prompt, ScribblePrompt):
        return False
    y, x = (nearest_voxel(float(p)) for p in place)
    rows, columns = prompt.pixels.shape
    return 0 <= y < rows and 0 <= x < columns and bool(unpacked(prompt.pixels)[y, x])


def _distance(lines: Iterable[np.ndarray], place: np.ndarray) -> float:
    nearest = float("inf")
    for line in lines:
        ends = np.roll(line, -1, axis=0)
        nearest = min(nearest, *(float(_distance_to_segment(place, a, b)) for a, b in zip(line, ends)))
    return nearest


def _distance_to_segment(places: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance of places (..., 2) to the line from a to b."""
    along = b - a
    length = float(along @ along)
    share = np.clip((places - a) @ along / length, 0, 1) if length > 0 else np.zeros(places.shape[:-1])
    distance: np.ndarray = np.linalg.norm(places - (a + share[..., None] * along), axis=-1)
    return distance
