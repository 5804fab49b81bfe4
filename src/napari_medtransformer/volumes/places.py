"""Where labels lie in a volume: the box around each, and a voxel at its heart to jump to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

Zyx = tuple[int, int, int]


@dataclass(frozen=True)
class LabelPlace:
    """start, stop: the bounding box in voxels (z, y, x), half-open.

    heart: a voxel of the label near its centroid, on the axial slice that is nearest to it.
    """

    start: Zyx
    stop: Zyx
    heart: Zyx

    @property
    def extent(self) -> Zyx:
        """Voxels along z, y, x."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x


def label_places(labels: np.ndarray) -> dict[int, LabelPlace]:
    """The place of every label that occurs, by number. labels: (z, y, x) unsigned integers, 0 is background."""
    found: dict[int, LabelPlace] = {}
    for i, box in enumerate(ndimage.find_objects(labels)):
        if box is None:
            continue
        start = _zyx([part.start for part in box])
        heart = np.add(_heart(labels[box] == i + 1), start)
        found[i + 1] = LabelPlace(start, _zyx([part.stop for part in box]), _zyx(heart))
    return found


def _heart(mask: np.ndarray) -> np.ndarray:
    """The voxel (z, y, x); slice by slice, so that a large organ needs no list of all its voxels."""
    profiles = [np.count_nonzero(mask, axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    centre = [float(np.average(np.arange(len(profile)), weights=profile)) for profile in profiles]
    slices = np.flatnonzero(profiles[0])
    z = int(slices[np.argmin(np.abs(slices - centre[0]))])
    pixels = np.argwhere(mask[z])
    y, x = pixels[np.argmin(((pixels - centre[1:]) ** 2).sum(axis=1))]
    return np.array([z, y, x])


def _zyx(values: list[int] | np.ndarray) -> Zyx:
    z, y, x = (int(v) for v in values)
    return z, y, x
