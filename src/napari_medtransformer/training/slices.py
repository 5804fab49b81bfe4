"""The data engine: one random labelled slice at a time, real or in a synthetic contrast, warped and degraded.

Synthetic contrast after Billot et al. 2023 (SynthSeg): every region gets a random mean and texture, so that a network
learns shapes and edges rather than one scanner's intensities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from napari_medtransformer.training.cases import LabelledCase

# Hounsfield windows (low, high) that readers use, and how often: soft tissue, wide, lung, bone, liver, brain.
CT_WINDOWS = (((-160, 240), 0.5), ((-500, 1000), 0.15), ((-1350, 150), 0.12), ((-400, 1400), 0.13), ((0, 150), 0.1))


@dataclass(frozen=True)
class SliceShares:
    """What slices are made of. shapes: share of random shapes. synthetic: of the others, those in a synthetic contrast.

    regions: of the real pictures, those asked for their own regions of like brightness instead of their labels. whole:
    share shown as at prediction, the whole slice, unbent.
    """

    shapes: float = 0.1
    synthetic: float = 0.4
    regions: float = 0.15
    whole: float = 0.4


@dataclass(frozen=True, eq=False)
class TrainingSlice:
    """image: (S, S) float32 in [0, 1]. labels: (S, S) int32, 0 background. Padding is 0 in both."""

    image: np.ndarray
    labels: np.ndarray


def draw_slice(
    cases: Sequence[LabelledCase], size: int, shares: SliceShares, rng: np.random.Generator
) -> TrainingSlice:
    """One training slice of (size, size), wholly determined by the state of `rng`."""
    if rng.random() < shares.shapes:
        labels, tissues = random_shapes(size, rng)
        return TrainingSlice(degrade(synthetic_contrast(labels, tissues, rng), rng), labels)
    weights = np.array([case.weight for case in cases])
    case = cases[rng.choice(len(cases), p=weights / weights.sum())]
    image, labels, tissues = draw_plane(case, rng)
    image, labels, tissues, inside = warp(image, labels, tissues, size, shares.whole, rng)
    if rng.random() < shares.synthetic:
        picture = synthetic_contrast(labels, tissues, rng)
    else:
        picture = real_contrast(image, case, rng)
        if rng.random() < shares.regions:
            regions = bright_regions(picture * inside, rng)
            labels = regions if regions.any() else labels
    return TrainingSlice(degrade(picture, rng) * inside, labels)


def draw_plane(case: LabelledCase, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, labels and tissues of one labelled slice in one of the three planes, held-out slices cut away."""
    volumes = [array[: case.held_out] for array in (case.image, case.labels, case.tissues)]
    if len(case.axes) == 1:
        axis = case.axes[0]
    else:
        axis = int(rng.choice(3, p=[0.6, 0.2, 0.2])) if min(volumes[0].shape) >= 24 else 0
    labelled = np.flatnonzero(volumes[1].any(axis=tuple(a for a in range(3) if a != axis)))
    index = int(rng.choice(labelled))
    image, labels, tissues = (np.take(array, index, axis=axis) for array in volumes)
    return image, labels, tissues


def warp(
    image: np.ndarray, labels: np.ndarray, tissues: np.ndarray, size: int, whole_share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Bring a slice to (size, size): sometimes as at prediction, mostly turned, scaled, flipped and bent.

    Returns image, labels, tissues and `inside`, 1 where the native slice is and 0 in the padding.
    """
    shape = np.array(image.shape, dtype=np.float64)
    scale = shape.max() / size
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij")).astype(np.float64)
    if rng.random() < whole_share:
        where = (grid + 0.5) * scale - 0.5
        if rng.random() < 0.3:
            where[1] = shape[1] - 1 - where[1]
    else:
        zoom = np.exp(rng.uniform(-0.25, 0.9))
        aspect = np.exp(rng.normal(0, 0.15))
        angle = np.deg2rad(rng.uniform(-180, 180) if rng.random() < 0.15 else rng.normal(0, 15))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turn = turn @ np.diag([scale / zoom * aspect, scale / zoom / aspect])
        turn = np.diag(rng.choice([1, -1], 2, p=[0.7, 0.3])) @ turn
        spots = np.argwhere(labels > 0)
        target = spots[rng.integers(len(spots))] if zoom > 1.2 else shape / 2
        centre = size / 2 + rng.normal(0, 0.12, 2) * size
        where = np.tensordot(turn, grid - centre[:, None, None], axes=1) + np.asarray(target)[:, None, None]
        if rng.random() < 0.7:
            where += smooth_field((2, size, size), rng.choice([6, 10]), rng) * rng.uniform(0, 7) * scale
    moved = ndimage.map_coordinates(image, where, order=1, mode="nearest", prefilter=False)
    nearest = [np.clip(np.rint(w), 0, n - 1).astype(np.intp) for w, n in zip(where, image.shape, strict=True)]
    inside = np.ones((size, size), bool)
    for w, n in zip(where, image.shape, strict=True):
        inside &= (w > -0.5) & (w < n - 0.5)
    return (
        moved.astype(np.float32),
        np.where(inside, labels[nearest[0], nearest[1]], 0).astype(np.int32),
        tissues[nearest[0], nearest[1]],
        inside.astype(np.float32),
    )


def real_contrast(image: np.ndarray, case: LabelledCase, rng: np.random.Generator) -> np.ndarray:
    """The real image through a random window of its modality, sometimes inverted or bent; in [0, 1]."""
    if case.modality == "CT":
        windows = [window for window, _ in CT_WINDOWS]
        usual = windows[rng.choice(len(windows), p=[share for _, share in CT_WINDOWS])]
        low, high = np.array(usual) + rng.normal(0, 0.06, 2) * (usual[1] - usual[0])
    else:
        low, high = np.percentile(image, [rng.uniform(0, 2), rng.uniform(98, 100)])
    picture = np.clip((image - low) / max(high - low, 1e-3), 0, 1)
    if rng.random() < 0.4:
        picture = picture ** np.exp(rng.normal(0, 0.35))
    if rng.random() < 0.08:
        picture = 1 - picture
    return picture.astype(np.float32)


def bright_regions(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Connected regions of like brightness in a real picture (S, S), as labels int32: what has a plain edge.

    Labels of anatomy are smooth and often coarser than the image; these teach to follow an edge wherever it is seen.
    """
    smooth = ndimage.gaussian_filter(picture, rng.uniform(0.8, 2.5))
    steep = ndimage.generic_gradient_magnitude(smooth, ndimage.sobel)
    inside = smooth[picture > 0.02]
    labels = np.zeros(picture.shape, np.int32)
    if inside.size < 100:
        return labels
    plain = np.quantile(steep[picture > 0.02], 0.7)
    count = int(rng.integers(1, 5))
    if rng.random() < 0.5:
        cuts = np.sort(np.quantile(inside, rng.uniform(0.08, 0.97, count)))
    else:  # quantiles alone would seldom fall between two plateaus
        low, high = np.quantile(inside, [0.02, 0.995])
        cuts = np.sort(rng.uniform(low, high, count))
    levels = np.digitize(smooth, cuts)
    for level in range(len(cuts) + 1):
        # Opening takes away the thin seams that every level leaves along the edges of the others.
        parts, _ = ndimage.label(ndimage.binary_opening(levels == level))
        areas = np.bincount(parts.ravel())
        areas[0] = 0
        for part in np.argsort(areas)[::-1][:12]:
            if not 0 < areas[part] < 0.3 * picture.size:
                continue
            region = parts == part
            if steep[region & ~ndimage.binary_erosion(region)].mean() > plain:
                labels[region] = labels.max() + 1
    return labels


def synthetic_contrast(labels: np.ndarray, tissues: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A contrast nobody acquired: a random mean and texture for every label and every unlabelled tissue; in [0, 1]."""
    regions = np.where(labels > 0, labels, -1 - tissues.astype(np.int32))
    names, index = np.unique(regions, return_inverse=True)
    index = index.reshape(regions.shape)
    means = rng.uniform(0.05, 1, len(names))
    if rng.random() < 0.5:  # neighbours of little contrast are what is hard in practice
        means = 0.5 + (means - 0.5) * rng.uniform(0.3, 0.8)
    if rng.random() < 0.75:
        means[names == -1] = rng.uniform(0, 0.05)
    spread = np.abs(rng.normal(0, 0.05, len(names)))
    coarse = smooth_field(labels.shape, int(rng.choice([4, 8, 16, 32])), rng)
    fine = ndimage.gaussian_filter(rng.standard_normal(labels.shape), rng.uniform(0.4, 1.5)) * 2
    picture = means[index] + spread[index] * (fine + 0.7 * coarse)
    picture = ndimage.gaussian_filter(picture, rng.uniform(0.3, 1.6))
    bias = np.exp(smooth_field(labels.shape, 3, rng) * rng.uniform(0, 0.25))
    return np.clip(picture * bias, 0, 1).astype(np.float32)


def degrade(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise, blur and loss of resolution, each sometimes; stays in [0, 1]."""
    if rng.random() < 0.3:
        factor = rng.uniform(1.5, 4, 2)
        small = ndimage.zoom(picture, 1 / factor, order=1)
        back = np.array(picture.shape) / np.array(small.shape)
        picture = ndimage.zoom(small, back, order=1)
    if rng.random() < 0.25:
        picture = ndimage.gaussian_filter(picture, rng.uniform(0.3, 1.2))
    if rng.random() < 0.5:
        picture = picture + rng.normal(0, rng.uniform(0, 0.06), picture.shape)
    if rng.random() < 0.3:
        picture = (picture - 0.5) * rng.uniform(0.7, 1.3) + 0.5 + rng.normal(0, 0.08)
    return np.clip(picture, 0, 1).astype(np.float32)


def random_shapes(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Organic shapes, nested and touching: (size, size) labels int32 and unlabelled tissues uint8."""
    labels = np.zeros((size, size), np.int32)
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij")).astype(np.float64)
    tissues = np.digitize(smooth_field((size, size), int(rng.choice([4, 8, 16])), rng), [-0.8, 0, 0.8])
    if rng.random() < 0.5:
        cuts = np.sort(rng.normal(0, 0.8, rng.integers(1, 4)))
        levels = np.digitize(smooth_field((size, size), int(rng.choice([4, 6, 10])), rng), cuts)
        for level in range(1, len(cuts) + 1):
            parts, count = ndimage.label(levels == level)
            labels[parts > 0] = parts[parts > 0] + labels.max()
            if count > 40:
                break
    if rng.random() < 0.3:  # ribbons: vessels, ribs and walls, as far as a level set resembles them
        ridge = np.abs(smooth_field((size, size), int(rng.choice([3, 4, 6])), rng)) < rng.uniform(0.04, 0.2)
        parts, count = ndimage.label(ridge)
        labels[parts > 0] = parts[parts > 0] + labels.max()
    for _ in range(rng.integers(2, 12)):
        centre = rng.uniform(0.1, 0.9, 2) * size
        radii = np.exp(rng.uniform(np.log(4), np.log(size * 0.35))) * np.exp(rng.normal(0, 0.5, 2))
        angle = rng.uniform(0, np.pi)
        offset = grid - centre[:, None, None] + smooth_field((2, size, size), 8, rng) * min(radii) * 0.35
        u = offset[0] * np.cos(angle) + offset[1] * np.sin(angle)
        v = offset[1] * np.cos(angle) - offset[0] * np.sin(angle)
        distance = (u / radii[0]) ** 2 + (v / radii[1]) ** 2
        ring = rng.random() < 0.15
        labels[(distance < 1) & (distance > 0.45) if ring else distance < 1] = labels.max() + 1
    return labels, tissues.astype(np.uint8)


def smooth_field(shape: tuple[int, ...], knots: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of about unit variance over the last two axes, drawn on knots x knots points."""
    coarse = rng.standard_normal((*shape[:-2], knots, knots))
    return np.asarray(_spread(shape[-2], knots) @ coarse @ _spread(shape[-1], knots).T * 1.2)


@lru_cache(maxsize=1024)
def _spread(size: int, knots: int) -> np.ndarray:
    """(size, knots): how much each of `knots` points has in each of `size` pixels, a quadratic spline; read-only.

    Once per size and axis, as splines in every pixel took two thirds of the time that a slice took.
    """
    each = [ndimage.zoom(knot, size / knots, order=2, mode="nearest", grid_mode=True) for knot in np.eye(knots)]
    spread = np.stack(each, axis=1)
    spread.setflags(write=False)
    return spread
