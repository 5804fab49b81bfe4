"""The data engine: deterministic, aligned, and in the range the network expects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from napari_medtransformer.training.cases import CaseSource, LabelledCase, read_case, tissue_classes
from napari_medtransformer.training.slices import (
    SliceShares,
    TrainingSlice,
    bright_regions,
    draw_plane,
    draw_slice,
    random_shapes,
    smooth_field,
    synthetic_contrast,
    warp,
)
from napari_medtransformer.volumes.sample_data import sample_path


@pytest.fixture(scope="module")
def ct() -> LabelledCase:
    names = ("example_ct.nii.gz", "example_seg_fast_force_split.nii.gz")
    return read_case(sample_path(names[0]), sample_path(names[1]), CaseSource(*names, "CT", 1.0, 0.25))


@pytest.mark.parametrize("seed", range(6))
def test_the_same_seed_draws_the_same_slice(ct: LabelledCase, seed: int) -> None:
    one, two = (draw_slice([ct], 96, SliceShares(), np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.labels, two.labels)


@pytest.mark.parametrize("seed", range(12))
def test_images_are_within_0_and_1_and_finite(ct: LabelledCase, seed: int) -> None:
    drawn = draw_slice([ct], 96, SliceShares(), np.random.default_rng(seed))
    assert drawn.image.shape == drawn.labels.shape == (96, 96)
    assert drawn.image.dtype == np.float32
    assert drawn.image.min() >= 0
    assert drawn.image.max() <= 1


@pytest.mark.parametrize("seed", range(8))
def test_image_and_labels_are_warped_alike(ct: LabelledCase, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = (ct.labels[50] == 5).astype(np.float32)  # the liver itself as an image
    moved, labels, _, inside = warp(image, ct.labels[50], ct.tissues[50], 128, 0.4, rng)
    liver = (labels == 5) & (inside > 0)
    if liver.sum() > 50:
        assert moved[liver].mean() > 0.85
        assert moved[~liver & (inside > 0)].mean() < 0.1


def test_slices_are_made_of_what_the_shares_say(ct: LabelledCase) -> None:
    def draw(shares: SliceShares) -> list[TrainingSlice]:
        return [draw_slice([ct], 64, shares, np.random.default_rng(seed)) for seed in range(6)]

    real, whole = SliceShares(0, 0, 0, 0), SliceShares(0, 0, 0, 1)
    own = set(np.unique(ct.labels))
    assert all(set(np.unique(drawn.labels)) <= own for drawn in draw(whole))
    bare = LabelledCase(ct.name, ct.image, np.zeros_like(ct.labels), ct.tissues, "CT", 1.0, ct.held_out)
    for seed in range(3):  # shapes need no labels
        assert draw_slice([bare], 64, SliceShares(shapes=1), np.random.default_rng(seed)).labels.any()
    for one, other in ((real, whole), (whole, replace(whole, synthetic=1)), (whole, replace(whole, regions=1))):
        pairs = zip(draw(one), draw(other), strict=True)
        assert all((a.image != b.image).any() or (a.labels != b.labels).any() for a, b in pairs)


def test_held_out_slices_are_never_drawn(ct: LabelledCase) -> None:
    marked = LabelledCase(
        ct.name,
        np.where(np.arange(ct.depth)[:, None, None] >= ct.held_out, 1e6, ct.image).astype(np.float32),
        ct.labels,
        ct.tissues,
        ct.modality,
        ct.weight,
        ct.held_out,
    )
    rng = np.random.default_rng(0)
    assert all(draw_plane(marked, rng)[0].max() < 1e6 for _ in range(60))


def test_a_synthetic_contrast_keeps_the_borders_of_labels() -> None:
    rng = np.random.default_rng(2)
    labels = np.zeros((96, 96), np.int32)
    labels[30:60, 30:60] = 1
    differences = []
    for _ in range(20):
        picture = synthetic_contrast(labels, np.ones((96, 96), np.uint8), rng)
        differences.append(abs(picture[35:55, 35:55].mean() - picture[:20].mean()))
    assert np.median(differences) > 0.1


@pytest.mark.parametrize("seed", range(5))
def test_random_shapes_have_labels_and_background(seed: int) -> None:
    labels, tissues = random_shapes(96, np.random.default_rng(seed))
    assert labels.max() >= 1
    assert tissues.max() <= 5
    assert labels.shape == tissues.shape == (96, 96)


def test_tissues_grow_with_intensity(ct: LabelledCase) -> None:
    means = [ct.image[ct.tissues == t].mean() for t in np.unique(tissue_classes(ct.image))]
    assert means == sorted(means)


@pytest.mark.parametrize("seed", range(8))
def test_bright_regions_find_what_has_a_plain_edge(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:128, :128]
    disc = (y - 60) ** 2 + (x - 70) ** 2 < 20**2
    picture = (0.3 + 0.5 * disc + 0.02 * rng.standard_normal((128, 128))).clip(0, 1).astype(np.float32)
    overlaps = []
    for _ in range(12):
        labels = bright_regions(picture, rng)
        overlaps += [(disc & (labels == k)).sum() / (disc | (labels == k)).sum() for k in np.unique(labels[labels > 0])]
    assert max(overlaps) > 0.9


def test_a_flat_picture_has_no_regions_or_none_larger_than_noise() -> None:
    labels = bright_regions(np.zeros((64, 64), np.float32), np.random.default_rng(0))
    assert not labels.any()


@pytest.mark.parametrize("shape", [(96, 96), (2, 96, 96), (5, 70), (3, 1)])
@pytest.mark.parametrize("knots", [3, 8, 32])
def test_smooth_noise_is_a_quadratic_spline_through_its_knots(shape: tuple[int, ...], knots: int) -> None:
    coarse = np.random.default_rng(1).standard_normal((*shape[:-2], knots, knots))
    factors = [1.0] * (len(shape) - 2) + [n / knots for n in shape[-2:]]
    expected = ndimage.zoom(coarse, factors, order=2, mode="nearest", grid_mode=True) * 1.2
    np.testing.assert_allclose(smooth_field(shape, knots, np.random.default_rng(1)), expected, atol=1e-12)
