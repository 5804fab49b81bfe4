"""The only place where axis orders and patient frames are converted.

File order: (i, j, k), the order of indices in the file as nibabel or ITK count them, with an affine to RAS+ mm.
Canonical order: (z, y, x), the same voxels permuted and flipped (never resampled) so that the axes grow toward
Superior, Posterior and Left as nearly as the grid allows.
Patient frames: RAS+ (NIfTI) everywhere in this project; LPS+ (DICOM, ITK) only at the border of a file format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike

from napari_medtransformer.volumes.lazy import as_array, lazy_of

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# The RAS axis toward which each canonical axis grows, and its sense: z to Superior, y to Posterior, x to Left.
_CANONICAL_RAS_AXIS = (2, 1, 0)
_CANONICAL_SENSE = (1, -1, -1)
# Rows z, y, x of a point in the canonical frame (S, P, L) from its RAS coordinates.
_SPL_FROM_RAS = np.array([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
# Sine of the tilt below which a grid counts as straight: half a millimetre over a field of view of 500 mm.
OBLIQUE_SINE = 1e-3
# A direction cosine smaller than this (about 6 degrees) adds no letter to an axis' name.
_LETTER_COSINE = 0.1


@dataclass(frozen=True)
class AxisOrder:
    """Which file axis each canonical axis (z, y, x) is, and whether it runs the other way."""

    permutation: tuple[int, int, int]
    flips: tuple[bool, bool, bool]


@dataclass(frozen=True)
class LayerPlacement:
    """Where a canonical array lies in a viewer's world of millimetres: axes z, y, x; scale and translate in mm."""

    scale: tuple[float, float, float]
    translate: tuple[float, float, float]


def geometry_fault(affine: np.ndarray) -> str | None:
    """What is wrong with `affine` as a map from voxels to millimetres, in words; None if it is usable."""
    if affine.shape != (4, 4):
        return f"its affine has shape {affine.shape} instead of (4, 4)"
    if not np.isfinite(affine).all():
        return "its affine holds values that are not finite"
    if not np.array_equal(affine[3], [0, 0, 0, 1]):
        return f"the last row of its affine is {affine[3].tolist()} instead of [0, 0, 0, 1]"
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if (spacing == 0).any():
        return f"its voxels have a size of {' × '.join(f'{s:g}' for s in spacing)} mm"
    # Of the unit directions, so that small voxels alone do not count as singular.
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-6:
        return "its axes do not span three directions (singular affine)"
    return None


def canonical_order(affine_ijk: np.ndarray) -> AxisOrder:
    """The permutation and flips that bring file order nearest to (z, y, x) growing toward S, P, L.

    affine_ijk: (4, 4), file index to RAS mm, not singular.
    """
    orientation = nib.orientations.io_orientation(affine_ijk)
    axis_of_ras = {int(ras): (axis, int(sense)) for axis, (ras, sense) in enumerate(orientation)}
    found = [axis_of_ras[ras] for ras in _CANONICAL_RAS_AXIS]
    z, y, x = (axis for axis, _ in found)
    flip_z, flip_y, flip_x = (sense != wanted for (_, sense), wanted in zip(found, _CANONICAL_SENSE))
    return AxisOrder((z, y, x), (flip_z, flip_y, flip_x))


def canonical_view(array_ijk: np.ndarray, order: AxisOrder) -> np.ndarray:
    """An array in file order as (z, y, x): a view, nothing is copied or read. Further axes stay last."""
    rest = range(3, array_ijk.ndim)
    lazy = lazy_of(array_ijk)
    if lazy is not None:
        return as_array(lazy.transpose(*order.permutation, *rest).flipped(order.flips))
    return array_ijk.transpose(*order.permutation, *rest)[_flip_slices(order.flips)]


def file_view(array_zyx: np.ndarray, order: AxisOrder) -> np.ndarray:
    """The inverse of canonical_view: (z, y, x, ...) as a view in file order."""
    inverse = tuple(int(axis) for axis in np.argsort(order.permutation))
    rest = range(3, array_zyx.ndim)
    lazy = lazy_of(array_zyx)
    if lazy is not None:
        return as_array(lazy.flipped(order.flips).transpose(*inverse, *rest))
    return array_zyx[_flip_slices(order.flips)].transpose(*inverse, *rest)


def canonical_affine(affine_ijk: np.ndarray, shape_ijk: Sequence[int], order: AxisOrder) -> np.ndarray:
    """The (4, 4) affine from (z, y, x, 1) to RAS mm. shape_ijk: voxels per file axis."""
    ijk_from_zyx = np.zeros((4, 4))
    ijk_from_zyx[3, 3] = 1
    for axis, (file_axis, flip) in enumerate(zip(order.permutation, order.flips)):
        ijk_from_zyx[file_axis, axis] = -1 if flip else 1
        ijk_from_zyx[file_axis, 3] = shape_ijk[file_axis] - 1 if flip else 0
    return affine_ijk @ ijk_from_zyx


def upright_affine(shape_zyx: Sequence[int], spacing_zyx_mm: ArrayLike) -> np.ndarray:
    """The (4, 4) affine to RAS mm of a straight canonical grid whose centre is the patient's origin."""
    affine = np.eye(4)
    affine[:3, :3] = _SPL_FROM_RAS.T * np.asarray(spacing_zyx_mm, dtype=np.float64)
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape_zyx) - 1) / 2)
    return affine


def file_index(zyx: np.ndarray, shape_ijk: Sequence[int], order: AxisOrder) -> np.ndarray:
    """Canonical coordinates (..., 3) as file coordinates (..., 3); integers stay integers."""
    ijk = np.empty_like(zyx)
    for axis, (file_axis, flip) in enumerate(zip(order.permutation, order.flips)):
        ijk[..., file_axis] = shape_ijk[file_axis] - 1 - zyx[..., axis] if flip else zyx[..., axis]
    return ijk


def zyx_index(ijk: np.ndarray, shape_ijk: Sequence[int], order: AxisOrder) -> np.ndarray:
    """File coordinates (..., 3) as canonical coordinates (..., 3); integers stay integers."""
    zyx = np.empty_like(ijk)
    for axis, (file_axis, flip) in enumerate(zip(order.permutation, order.flips)):
        zyx[..., axis] = shape_ijk[file_axis] - 1 - ijk[..., file_axis] if flip else ijk[..., file_axis]
    return zyx


def apply_affine(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., 3) through a (4, 4) affine."""
    return np.asarray(points, dtype=np.float64) @ affine[:3, :3].T + affine[:3, 3]


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Millimetres between voxel centres along each index axis of a (4, 4) affine, in its own axis order."""
    a, b, c = (float(s) for s in np.linalg.norm(affine[:3, :3], axis=0))
    return a, b, c


def ras_from_lps(affine_lps: np.ndarray) -> np.ndarray:
    """A (4, 4) affine to LPS mm as one to RAS mm; the same call turns RAS into LPS."""
    return LPS_FROM_RAS @ affine_lps


def affine_from_itk(spacing: ArrayLike, origin: ArrayLike, direction: ArrayLike) -> np.ndarray:
    """The (4, 4) affine from ITK indices (i, j, k) to RAS mm, of ITK's spacing, origin and direction (LPS, 3D)."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(direction, (3, 3)) * np.asarray(spacing, dtype=np.float64)
    affine[:3, 3] = origin
    return ras_from_lps(affine)


def itk_from_affine(affine_ijk: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """The inverse of affine_from_itk: spacing, origin and direction (row by row), LPS."""
    affine = ras_from_lps(affine_ijk)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = affine[:3, :3] / spacing
    return tuple(spacing.tolist()), tuple(affine[:3, 3].tolist()), tuple(direction.ravel().tolist())


def is_oblique(affine_zyx: np.ndarray) -> bool:
    """Whether a canonical grid is tilted against the patient's axes by more than OBLIQUE_SINE."""
    directions = _SPL_FROM_RAS @ (affine_zyx[:3, :3] / np.linalg.norm(affine_zyx[:3, :3], axis=0))
    return bool(np.abs(directions - np.diag(np.diag(directions))).max() > OBLIQUE_SINE)


def layer_placement(affine_zyx: np.ndarray) -> LayerPlacement:
    """Scale and translate that show a canonical grid upright, in millimetres.

    A straight grid lies in the world (S, P, L) in mm, so that volumes of one patient overlay. An oblique grid is
    shown on its own axes: the world is then turned about the scanner's origin into the grid's directions, so volumes
    with the same tilt still overlay exactly. A viewer's rotation or shear is never used (napari cannot slice those).
    """
    spacing = np.linalg.norm(affine_zyx[:3, :3], axis=0)
    directions = _SPL_FROM_RAS @ (affine_zyx[:3, :3] / spacing)
    translate = np.linalg.solve(directions, _SPL_FROM_RAS @ affine_zyx[:3, 3])
    sz, sy, sx = (float(s) for s in spacing)
    tz, ty, tx = (float(t) for t in translate)
    return LayerPlacement((sz, sy, sx), (tz, ty, tx))


def direction_letters(affine_zyx: np.ndarray) -> tuple[tuple[str, str], tuple[str, str], tuple[str, str]]:
    """The patient directions at the start and the end of the axes z, y, x: (('I', 'S'), ('A', 'P'), ('R', 'L')).

    An oblique axis gets up to three letters, the strongest first ('PL'), as in DICOM's Patient Orientation.
    """
    directions = affine_zyx[:3, :3] / np.linalg.norm(affine_zyx[:3, :3], axis=0)
    z, y, x = ((_letters(-directions[:, axis]), _letters(directions[:, axis])) for axis in range(3))
    return z, y, x


def _letters(direction_ras: np.ndarray) -> str:
    """Up to three letters for a unit direction in RAS, strongest component first."""
    strongest_first = np.argsort(-np.abs(direction_ras), kind="stable")
    return "".join(
        ("RAS" if direction_ras[axis] > 0 else "LPI")[axis]
        for axis in strongest_first
        if abs(direction_ras[axis]) > _LETTER_COSINE
    )


def _flip_slices(flips: Sequence[bool]) -> tuple[slice, ...]:
    return tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)
