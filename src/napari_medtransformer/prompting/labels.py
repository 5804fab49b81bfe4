"""Many objects' masks on slices of three planes, composed into one label volume, repainted only where it changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from napari_medtransformer.prompting.masks import PackedMask, unpacked
from napari_medtransformer.prompting.prompts import SliceKey

Masks = Mapping[SliceKey, tuple[int, PackedMask]]
"""What is known of the objects: by slice, the step in which the mask was made, and the mask."""


def plane(array: np.ndarray, axis: int, index: int) -> np.ndarray:
    """The slice of a (z, y, x) array at `index` along `axis`; a view."""
    view: np.ndarray = array[(slice(None),) * axis + (index,)]
    return view


def object_on_plane(masks: Masks, object_id: int, axis: int, index: int, shape: tuple[int, int]) -> np.ndarray:
    """One object's (H, W) bool mask on a slice: the slice's own mask, and lines of the slices that cross it.

    Where two of them disagree, the one made later wins.
    """
    own: list[tuple[int, SliceKey, PackedMask]] = [
        (made, key, mask)
        for key, (made, mask) in masks.items()
        if key.object_id == object_id and (key.axis != axis or key.index == index)
    ]
    result = np.zeros(shape, bool)
    for _, key, mask in sorted(own, key=lambda one: (one[0], one[1])):
        if key.axis == axis:
            result[:] = unpacked(mask)
            continue
        # The axes of a plane are the volume's without its normal; a crossing slice is a line in both planes.
        rows_are = 0 if axis else 1
        crossing_rows_are = 0 if key.axis else 1
        line = plane(unpacked(mask), 0 if axis == crossing_rows_are else 1, index)
        plane(result, 0 if key.axis == rows_are else 1, key.index)[:] = line
    return result


def composed_object(masks: Masks, shape_zyx: tuple[int, int, int]) -> np.ndarray:
    """(z, y, x) bool: one object from its masks on slices; where they cross, the one made later wins."""
    composed = np.zeros(shape_zyx, bool)
    for key, (_, mask) in sorted(masks.items(), key=lambda item: (item[1][0], item[0])):
        plane(composed, key.axis, key.index)[:] = unpacked(mask)
    return composed


def repaint(
    labels: np.ndarray, masks: Masks, object_ids: Iterable[int], planes: Iterable[tuple[int, int]], voxels: Counter[int]
) -> bool:
    """Compose the objects anew on the given (axis, index) slices of `labels` (z, y, x); later objects lie on top.

    voxels: of every label, kept in step. Returns whether any voxel has another label than before.
    """
    order = list(object_ids)
    by_object = {number: {k: v for k, v in masks.items() if k.object_id == number} for number in order}
    changed = False
    for axis, index in planes:
        target = plane(labels, axis, index)
        rows, columns = target.shape
        composed = np.zeros((rows, columns), labels.dtype)
        for number in order:
            if by_object[number]:
                composed[object_on_plane(by_object[number], number, axis, index, (rows, columns))] = number
        differing = target != composed
        if differing.any():
            changed = True
            voxels.subtract(label_voxels(target[differing]))
            voxels.update(label_voxels(composed[differing]))
            target[:] = composed
    return changed


def label_voxels(labels: np.ndarray) -> dict[int, int]:
    """How many voxels have each label; 0, the background, is left out."""
    counts = np.bincount(labels.ravel())
    return {int(number): int(counts[number]) for number in np.flatnonzero(counts) if number}
