"""A segmentation against a reference: overlap and distance of surfaces, label by label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_medtransformer.errors import UnsupportedVolume
from napari_medtransformer.volumes.label_table import Label, LabelNames, label_table


@dataclass(frozen=True)
class Agreement:
    """How well one label fits its reference.

    dice: 2|A∩B| / (|A|+|B|). hd95_mm: the 95th percentile of distances between the surfaces, the worse direction
    (Huttenlocher et al. 1993, robust form). surface_dice: the share of both surfaces that lies within the tolerance of
    the other (Nikolov et al. 2018, on voxel surfaces). Where only one of the two has the label, dice and surface_dice
    are 0 and hd95_mm is infinite.
    """

    label: Label
    dice: float
    hd95_mm: float
    surface_dice: float


def agreement(
    labels: np.ndarray,
    reference: np.ndarray,
    spacing: Sequence[float],
    *,
    tolerance_mm: float = 1.0,
    names: LabelNames | None = None,
) -> list[Agreement]:
    """Every label that occurs in either array, by number.

    labels, reference: (z, y, x) integers on one grid. spacing: (dz, dy, dx) mm. Definitions are MONAI's: a surface is
    the voxels of a label that touch something else by a face, or the end of the volume; in one slice, its outline.
    Raises UnsupportedVolume for different shapes.
    """
    if labels.shape != reference.shape:
        raise UnsupportedVolume(
            f"labels of {labels.shape} (z, y, x) voxels do not fit a reference of {reference.shape}; resample one onto "
            "the other first."
        )
    axes = [axis for axis, length in enumerate(labels.shape) if length > 1] or [0]
    shape, spacing = [labels.shape[axis] for axis in axes], [spacing[axis] for axis in axes]
    labels, reference = labels.reshape(shape), reference.reshape(shape)
    numbers = np.union1d(np.unique(labels), np.unique(reference))
    table = label_table((int(number) for number in numbers if number), names)
    return [_one(label, labels == label.number, reference == label.number, spacing, tolerance_mm) for label in table]


def _one(
    label: Label, found: np.ndarray, truth: np.ndarray, spacing: Sequence[float], tolerance_mm: float
) -> Agreement:
    voxels = np.count_nonzero(found), np.count_nonzero(truth)
    if min(voxels) == 0:
        return Agreement(label, 0.0, math.inf, 0.0)
    dice = 2 * np.count_nonzero(found & truth) / sum(voxels)
    # Distances are needed near the two alone: everything else is cut away, with a rim in which surfaces show.
    both = found | truth
    box = []
    for axis in range(both.ndim):
        at = np.flatnonzero(both.any(axis=tuple(other for other in range(both.ndim) if other != axis)))
        box.append(slice(int(at[0]), int(at[-1]) + 1))
    found, truth = (np.pad(mask[tuple(box)], 1) for mask in (found, truth))
    edges = _surface(found), _surface(truth)
    there, back = _distances(edges[0], edges[1], spacing), _distances(edges[1], edges[0], spacing)
    hd95 = max(float(np.percentile(there, 95)), float(np.percentile(back, 95)))
    near = np.count_nonzero(there <= tolerance_mm) + np.count_nonzero(back <= tolerance_mm)
    return Agreement(label, float(dice), hd95, near / (len(there) + len(back)))


def _surface(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    inner: np.ndarray = ndimage.binary_erosion(mask)
    return mask & ~inner


def _distances(surface: np.ndarray, to: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Millimetres from each voxel of a surface to the nearest one of another."""
    from scipy import ndimage

    distance: np.ndarray = ndimage.distance_transform_edt(~to, sampling=tuple(spacing))
    return distance[surface]
