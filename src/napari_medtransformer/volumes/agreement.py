"""How well labels agree with a reference: Dice, the 95th percentile of surface distances, and surface Dice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_medtransformer.errors import UnsupportedVolume


@dataclass(frozen=True)
class LabelAgreement:
    """One label against its reference.

    dice: 1 for the same voxels, 0 for none in common. hd95_mm: the 95th percentile of the distances between the two
    surfaces, the larger of both directions; inf where only one of the two has the label. surface_dice: the share of
    both surfaces that lies within tolerance_mm of the other (Nikolov et al. 2021).
    """

    number: int
    dice: float
    hd95_mm: float
    surface_dice: float
    tolerance_mm: float


def label_agreement(
    labels: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Sequence[float],
    numbers: Sequence[int] | None = None,
    *,
    tolerance_mm: float = 1.0,
) -> Iterator[LabelAgreement]:
    """The agreement of every label, one at a time, by number.

    labels, reference: (z, y, x) integers on one grid. spacing_mm: (dz, dy, dx). numbers: those to compare; None for
    all that occur in either. A surface is the labelled voxels with a face to the outside; distances are between their
    centres. Raises UnsupportedVolume if the shapes differ.
    """
    if labels.shape != reference.shape:
        raise UnsupportedVolume(
            f"labels of {labels.shape} voxels (z, y, x) and a reference of {reference.shape} do not lie on one grid; "
            "resample one onto the other."
        )
    if numbers is None:
        numbers = sorted({int(n) for n in np.union1d(np.unique(labels), np.unique(reference))} - {0})
    for number in numbers:
        found, wanted = labels == number, reference == number
        dice, distance, share = _agreement(found, wanted, tuple(float(s) for s in spacing_mm), tolerance_mm)
        yield LabelAgreement(number, dice, distance, share, tolerance_mm)


def _agreement(
    found: np.ndarray, wanted: np.ndarray, spacing: tuple[float, ...], tolerance: float
) -> tuple[float, float, float]:
    """Dice, 95th percentile of surface distances, surface Dice of two masks."""
    either = found | wanted
    if not either.any():
        return 1.0, 0.0, 1.0
    # Nothing outside their common box, one voxel wider, has to do with them.
    box = tuple(
        slice(max(0, int(at[0]) - 1), int(at[-1]) + 2)
        for at in (
            np.flatnonzero(either.any(axis=tuple(a for a in range(either.ndim) if a != axis)))
            for axis in range(either.ndim)
        )
    )
    found, wanted = found[box], wanted[box]
    sizes = np.count_nonzero(found), np.count_nonzero(wanted)
    dice = 2 * np.count_nonzero(found & wanted) / sum(sizes)
    if not all(sizes):
        return dice, math.inf, 0.0
    a, b = _surface(found), _surface(wanted)
    to_b = ndimage.distance_transform_edt(~b, sampling=spacing)[a]
    to_a = ndimage.distance_transform_edt(~a, sampling=spacing)[b]
    distance = max(float(np.percentile(to_b, 95)), float(np.percentile(to_a, 95)))
    near = np.count_nonzero(to_b <= tolerance) + np.count_nonzero(to_a <= tolerance)
    return dice, distance, near / (to_a.size + to_b.size)


def _surface(mask: np.ndarray) -> np.ndarray:
    """The voxels of a mask with a neighbour outside it; beyond the array is outside."""
    return np.asarray(mask & ~ndimage.binary_erosion(mask))
