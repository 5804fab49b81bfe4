"""What an object of a session measures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from napari_medtransformer.volumes.geometry import apply_affine
from napari_medtransformer.volumes.volume import Volume

_FEW = 3000  # points of which every pair is measured, in 0.1 s


@dataclass(frozen=True)
class ObjectStatistics:
    """An object's size and values.

    volume_ml: voxels times their size. mean, std, low, high: the image's units (HU for CT); NaN for an empty object.
    diameter_mm: the longest distance between the centres of two of its voxels. axial_diameter_mm: the same within one
    slice across the first axis. slices: how many of those it is on.
    """

    object_id: int
    voxels: int
    volume_ml: float
    mean: float
    std: float
    low: float
    high: float
    diameter_mm: float
    axial_diameter_mm: float
    slices: int


def object_statistics(object_id: int, mask: np.ndarray, volume: Volume) -> ObjectStatistics:
    """Statistics of an object. mask: (z, y, x) bool on the volume's grid."""
    voxel_ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000
    count = int(np.count_nonzero(mask))
    if not count:
        nan = float("nan")
        return ObjectStatistics(object_id, 0, 0.0, nan, nan, nan, nan, 0.0, 0.0, 0)
    # Slice by slice: of a volume that lies in its file only what holds the object comes into memory.
    inside = np.flatnonzero(mask.any(axis=(1, 2)))
    values = np.concatenate([volume.data[int(z)][mask[z]].astype(np.float64) for z in inside])
    ends = row_ends(mask)
    places = apply_affine(volume.affine, ends.astype(np.float64))
    on_slices = [places[ends[:, 0] == z] for z in np.unique(ends[:, 0])]
    return ObjectStatistics(
        object_id,
        count,
        count * voxel_ml,
        float(values.mean()),
        float(values.std()),
        float(values.min()),
        float(values.max()),
        longest_distance(places),
        max(longest_distance(one) for one in on_slices),
        len(on_slices),
    )


def row_ends(mask: np.ndarray) -> np.ndarray:
    """(n, 3) voxels (z, y, x): the first and the last of every row along x, among which the farthest pair is."""
    rows = np.argwhere(mask.any(axis=2))
    lines = mask[rows[:, 0], rows[:, 1]]
    first = lines.argmax(axis=1)
    last = mask.shape[2] - 1 - lines[:, ::-1].argmax(axis=1)
    return np.concatenate([np.column_stack([rows, first]), np.column_stack([rows, last])])


def longest_distance(points: np.ndarray) -> float:
    """The longest distance between two of (n, 3) points."""
    points = np.unique(points, axis=0)
    if len(points) < 2:
        return 0.0
    if len(points) > _FEW:
        try:
            points = points[ConvexHull(points).vertices]
        except QhullError:  # all on one plane: lifted off it by rounding errors they have a hull
            points = points[ConvexHull(points, qhull_options="QJ").vertices]
    return float(pdist(points).max())
