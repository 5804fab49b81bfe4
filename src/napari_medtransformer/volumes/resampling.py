"""Volumes on other grids: isotropic and upright, or the grid of another volume."""

from __future__ import annotations

import itertools
import math

import numpy as np

from napari_medtransformer.errors import UnsupportedVolume
from napari_medtransformer.given import flag, real
from napari_medtransformer.volumes import geometry
from napari_medtransformer.volumes.guard import size
from napari_medtransformer.volumes.volume import Volume, check_volume

# Grids above this are a mistake in the spacing sooner than a wish (1000³ voxels are 1e9).
_MOST_VOXELS = 4_000_000_000


def resample_onto(source: Volume, target: Volume, *, labels: bool = False) -> Volume:
    """`source` on the grid of `target`, by the affines: voxels at one place in the patient get one value.

    labels: nearest neighbour, so that no label is invented; otherwise trilinear. Outside the source: 0 for labels, its
    lowest value for images. The result has the target's grid and is written onto the target's file.
    Raises UnsupportedVolume, InvalidOption.
    """
    check_volume(source)
    check_volume(target)
    labels = flag(labels, "whether labels are resampled")
    data = _resampled(source, target.affine, target.shape, labels=labels)
    return Volume(data, target.affine, source.modality, target.source, source.requested_window)


def resample_isotropic(volume: Volume, spacing_mm: float | None = None, *, labels: bool = False) -> Volume:
    """The volume on cubic voxels, upright in the patient (an oblique or sheared grid is straightened).

    spacing_mm: the voxels' edge; None takes the smallest of the input. The new grid covers the whole input and belongs
    to no file. Raises UnsupportedVolume if it would be too large, InvalidOption.
    """
    check_volume(volume)
    labels = flag(labels, "whether labels are resampled")
    step = min(volume.spacing)
    if spacing_mm is not None:
        step = real(spacing_mm, "a spacing in millimetres", UnsupportedVolume, above=0)
    # Corners of the outermost voxels, not their centres, in the canonical directions S, P, L.
    corners = volume.mm_from_zyx(list(itertools.product(*((-0.5, n - 0.5) for n in volume.shape))))
    directions = geometry.upright_affine((1, 1, 1), (1, 1, 1))[:3, :3]
    along = corners @ directions
    low, high = along.min(axis=0), along.max(axis=0)
    # A tolerance of a thousandth of a voxel, so that rounding adds no slice.
    counts = np.maximum(np.ceil((high - low) / step - 1e-3).astype(int), 1)
    voxels = math.prod(int(n) for n in counts)
    if voxels > _MOST_VOXELS:
        raise UnsupportedVolume(
            f"{volume.name} at {step:g} mm has {' × '.join(map(str, counts))} voxels ({size(4 * voxels)}). "
            f"Choose a larger spacing."
        )
    affine = np.eye(4)
    affine[:3, :3] = directions * step
    affine[:3, 3] = directions @ (low + ((high - low) - (counts - 1) * step) / 2)
    z, y, x = (int(n) for n in counts)
    data = _resampled(volume, affine, (z, y, x), labels=labels)
    return Volume(data, affine, volume.modality, None, volume.requested_window)


def _resampled(source: Volume, affine: np.ndarray, shape: tuple[int, int, int], *, labels: bool) -> np.ndarray:
    """The source's values at the voxels of a grid: its own type for labels, float32 for images."""
    from scipy import ndimage  # a second of imports that opening a volume must not pay

    matrix = np.linalg.inv(source.affine) @ affine
    # Exactly on the source's voxels up to rounding: keep it so, or values a voxel's edge apart would be interpolated.
    rounded = np.round(matrix)
    if np.abs(matrix - rounded).max() < 1e-6:
        matrix = rounded
    data = np.asarray(source.data)
    background = 0 if labels else float(data.min())
    resampled = ndimage.affine_transform(
        data if labels else data.astype(np.float32),
        matrix[:3, :3],
        offset=matrix[:3, 3],
        output_shape=shape,
        order=0 if labels else 1,
        mode="nearest",
    )
    # The outermost voxels reach half a voxel beyond their centres, and nothing lies beyond that (as in ITK).
    y, x = np.arange(shape[1])[:, None], np.arange(shape[2])[None, :]
    for z in range(shape[0]):
        outside = np.zeros(shape[1:], bool)
        for axis, count in enumerate(source.shape):
            at = matrix[axis, 0] * z + matrix[axis, 1] * y + matrix[axis, 2] * x + matrix[axis, 3]
            outside |= (at < -0.5) | (at > count - 0.5)
        resampled[z][outside] = background
    return resampled
