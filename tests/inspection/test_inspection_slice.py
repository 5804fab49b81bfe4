"""A slice inspected: heatmaps in the volume's frame, attention per label, heads switched off."""

from __future__ import annotations

import numpy as np
import pytest
from token_blocks import native_slices

from napari_medtransformer.errors import PointOutsideVolume, UnknownSite
from napari_medtransformer.inspection import inspect_slice
from napari_medtransformer.inspection.ablation import dice, head_effects
from napari_medtransformer.inspection.place import place_in_volume
from napari_medtransformer.models import load_model
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.progress import Partial, run_to_end
from napari_medtransformer.volumes import Volume

CLICK = Prompts(np.array([[5.0, 9.0]], np.float32), np.array([1]))
SHAPE, SPACING = (12, 20, 30), (4.0, 1.5, 0.8)


@pytest.fixture(scope="module")
def model():
    return load_model("medt-click-tiny", weights="random", device="cpu")


@pytest.fixture(scope="module")
def volume():
    data = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    return Volume.from_array(data, SPACING, "MR")


@pytest.mark.parametrize("axis, index", [(0, 3), (1, 15), (2, 29)])
def test_tokens_lie_in_millimetres_where_their_voxels_are(model, volume, axis, index):
    inspection = inspect_slice(model, volume, axis, index)
    query = [6.0, 7.0, 8.0]
    query[axis] = index
    placed = inspection.heatmap("encoder.2", tuple(query))
    grid = inspection.probe.site("encoder.2").key_grid
    assert placed.values.shape[axis + 1] == 1
    # the token of a voxel, found by where it is drawn, is the token that voxel belongs to
    for voxel in [(0, 0, 0), (5, 10, 15), (11, 19, 29)]:
        voxel = list(voxel)
        voxel[axis] = index
        world = np.asarray(volume.placement.translate) + np.asarray(volume.placement.scale) * voxel
        drawn = (world - placed.translate_mm) / placed.scale_mm
        token = grid.token_of([v for a, v in enumerate(voxel) if a != axis])
        assert np.round(np.delete(drawn, axis) - 1e-9).astype(int).tolist() == list(grid.grid_index(token))
        assert drawn[axis] == pytest.approx(0)


def test_a_heatmap_on_the_volume_is_the_slice_and_zero_elsewhere(model, volume):
    inspection = inspect_slice(model, volume, 1, 15)
    placed = inspection.heatmap("encoder.0", (6, 15, 8))
    full = placed.on_volume(smooth=False)
    assert full.shape == (placed.heads, *SHAPE)
    assert np.array_equal(full[:, :, 15], placed.on_slice(smooth=False))
    assert not np.delete(full, 15, axis=2).any()


@pytest.mark.parametrize("make", ["row", "mean", "rollout", "received"])
def test_shares_of_labels_add_up_and_follow_the_pixels(model, volume, make):
    inspection = inspect_slice(model, volume, 0, 3)
    labels = np.zeros(SHAPE, np.uint16)
    labels[3, 4:11, 5:21] = 7
    labels[3, 12:, :9] = 300
    placed = {
        "row": lambda: inspection.heatmap("encoder.1", (3, 6, 8)),
        "mean": lambda: place_in_volume(
            inspection.probe.mean_row("encoder.1", labels[3] == 7), inspection.plane, volume
        ),
        "rollout": lambda: inspection.rollout((3, 6, 8)),
        "received": lambda: inspection.received("encoder.1"),
    }[make]()
    shares = inspection.shares(placed, labels)
    assert shares.labels == (0, 7, 300)
    total = placed.values.sum((1, 2, 3)) + placed.heatmap.padding_mass
    assert np.allclose(shares.shares.sum(1) + shares.outside, 1, rtol=1e-5)
    assert np.allclose(shares.extent, [(labels[3] == v).mean() for v in (0, 7, 300)])
    # pixel by pixel: each pixel of a token has an equal part of its attention
    grid = placed.heatmap.grid
    expected = np.zeros((placed.heads, 3))
    for token in range(grid.n_tokens):
        block = labels[3][native_slices(grid, token)]
        for i, value in enumerate((0, 7, 300)):
            if block.size:
                expected[:, i] += placed.heatmap.values.reshape(placed.heads, -1)[:, token] * (block == value).mean()
    assert np.allclose(shares.shares, expected / total[:, None], rtol=1e-4, atol=1e-6)


def test_prompts_bring_the_decoder_sites_and_a_mask(model, volume):
    without = inspect_slice(model, volume, 0, 3)
    given = inspect_slice(model, volume, 0, 3, prompts=CLICK)
    assert without.prediction is None
    assert not any(site.name.startswith("decoder") for site in without.sites)
    assert given.prediction.logits.shape[1:] == (20, 30)
    token = given.probe.heatmap("decoder.0.prompt-to-image", 4)
    assert np.allclose(token.values.sum((1, 2)), 1, atol=1e-5)


def test_distances_are_in_the_slices_millimetres(model, volume):
    """The mean of all distances between tokens is what even attention gives; real attention stays near it here."""
    inspection = inspect_slice(model, volume, 2, 4)
    assert inspection.spacing_mm == (4.0, 1.5)
    summary = inspection.summary()[0]
    pixels = inspection.probe.summary()[0]
    assert (summary.distance_unit, pixels.distance_unit) == ("mm", "pixels")
    grid = summary.site.query_grid
    centres = np.array([grid.native_centre(t) for t in range(grid.n_tokens)]) * (4.0, 1.5)
    longest = np.linalg.norm(centres[-1] - centres[0])
    assert (summary.distance > 0).all()
    assert (summary.distance < longest).all()


def test_wrong_slices_and_queries_are_refused_in_words(model, volume):
    for axis, index in ((0, 12), (3, 0), (1, -1)):
        with pytest.raises(PointOutsideVolume, match="slice"):
            inspect_slice(model, volume, axis, index)
    inspection = inspect_slice(model, volume, 0, 3)
    with pytest.raises(PointOutsideVolume, match="slice 4"):
        inspection.heatmap("encoder.0", (4, 5, 6))
    with pytest.raises(PointOutsideVolume, match="shape"):
        inspection.shares(inspection.received("encoder.0"), np.ones((3, 3), int))


def test_head_effects_compare_with_the_whole_models_mask(model, volume):
    sites = ["encoder.5", "decoder.0.prompt-to-image"]
    steps = list(head_effects(model, volume, 0, 3, CLICK, sites=sites))
    effects = run_to_end(iter(steps))
    assert [(e.site, e.head) for e in effects] == [(s, h) for s, n in zip(sites, (6, 4)) for h in range(n)]
    assert [p.value[0] for p in steps if isinstance(p, Partial)] == effects
    assert all(0 <= e.dice <= 1 for e in effects)
    with pytest.raises(UnknownSite):
        next(head_effects(model, volume, 0, 3, CLICK, sites=["encoder.77"]))


def test_dice_of_masks():
    a, b = np.zeros(10, bool), np.zeros(10, bool)
    assert dice(a, b) == 1
    a[:4], b[2:8] = True, True
    assert dice(a, b) == pytest.approx(2 * 2 / (4 + 6))
