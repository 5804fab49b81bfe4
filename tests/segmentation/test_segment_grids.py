"""Whatever the grid of the input, labels come back on it, in place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from automatic_models import make_card, make_model, swin_network

import napari_medtransformer as nmt
from napari_medtransformer.progress import Partial
from napari_medtransformer.segmentation import landing
from napari_medtransformer.segmentation.model_grid import AxisMap, between, model_grid
from napari_medtransformer.volumes import Volume


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def soft_organ(shape: tuple[int, int, int], spacing=(1.0, 1.0, 1.0)) -> np.ndarray:
    """An uneven body with a soft edge, 0 to 1, that fills much of the volume; 0.5 is its surface."""
    grid = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing)], indexing="ij")
    radii = [0.36 * n * s for n, s in zip(shape, spacing)]
    distance = np.sqrt(sum((g / r) ** 2 for g, r in zip(grid, radii)))
    bumps = 0.05 * np.sin(grid[0] / 7) * np.cos(grid[1] / 9 + 1) * np.sin(grid[2] / 8 + 2)
    return (1 / (1 + np.exp((distance - 1 + bumps) * min(radii) / 3))).astype(np.float32)


AFFINES = {
    "RAS": np.diag([1.0, 1.0, 1.5, 1.0]),
    "LPS": np.diag([-1.0, -1.0, 1.5, 1.0]),
    "permuted": np.array([[0, 0, 1.2, -30], [1.0, 0, 0, 5], [0, -0.9, 0, 8], [0, 0, 0, 1]]),
    "oblique": np.array([[0.94, -0.3, 0.1, 3], [0.3, 0.9, -0.25, 1], [-0.02, 0.28, 1.2, 7], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("spacing_mm", [None, (0.8, 0.8, 0.8), (1.4, 1.4, 1.4)], ids=["same", "finer", "coarser"])
@pytest.mark.parametrize("orientation", AFFINES)
def test_a_known_label_comes_back_on_the_files_own_grid(
    tmp_path: Path, threshold_model, orientation: str, spacing_mm
) -> None:
    image = soft_organ((52, 60, 44))
    path = tmp_path / "image.nii.gz"
    nib.save(nib.Nifti1Image(image, AFFINES[orientation]), path)
    volume = nmt.read_volume(path, modality="MR")
    model = threshold_model((32, 32, 32), spacing_mm=spacing_mm)

    labels = nmt.segment(model, volume)
    assert labels.shape == volume.shape
    written = nib.load(nmt.write_labels(labels, volume, tmp_path / "labels.nii.gz"))
    assert written.shape == image.shape
    np.testing.assert_array_equal(written.affine, nib.load(path).affine)
    found = np.asarray(written.dataobj) == 1
    if spacing_mm is None:
        np.testing.assert_array_equal(found, image > 0.5)
    else:
        assert dice(found, image > 0.5) >= 0.999


def test_a_hard_edged_label_survives_a_finer_grid(threshold_model) -> None:
    """Each voxel's centre lies within a finer voxel of one that says the same."""
    truth = soft_organ((40, 44, 36)) > 0.5
    volume = Volume.from_array(truth.astype(np.float32))
    labels = nmt.segment(threshold_model(spacing_mm=(0.5, 0.7, 0.4)), volume)
    assert dice(labels == 1, truth) >= 0.999


def test_thick_slices_become_the_models_and_come_back(threshold_model) -> None:
    image = soft_organ((14, 60, 60), (5.0, 1.0, 1.0))
    volume = Volume.from_array(image, spacing=(5.0, 1.0, 1.0))
    labels = nmt.segment(threshold_model(spacing_mm=(1.5, 1.5, 1.5)), volume)
    assert dice(labels == 1, image > 0.5) >= 0.999


def test_slabs_arrive_complete_and_cover_the_volume_once(threshold_model, noise) -> None:
    for spacing in (None, (1.3, 1.3, 1.3), (0.7, 1.0, 0.9)):
        seen = np.zeros(noise.shape, int)
        result = None
        slabs = []
        for step in nmt.segment_steps(threshold_model(spacing_mm=spacing), noise):
            kind = type(step).__name__
            if kind == "Partial":
                slab = step.value
                slabs.append(slab)
                seen[tuple(slice(a, b) for a, b in zip(slab.start, slab.stop))] += 1
            elif kind == "Result":
                result = step.value
        assert len(slabs) > 1
        assert (seen == 1).all()
        for slab in slabs:
            place = tuple(slice(a, b) for a, b in zip(slab.start, slab.stop))
            np.testing.assert_array_equal(slab.labels, result.labels[place])


def test_a_row_that_takes_long_to_read_back_is_handed_out_some_planes_at_a_time(
    threshold_model, noise, monkeypatch
) -> None:
    model = threshold_model(spacing_mm=(1.3, 1.3, 1.3))
    whole = nmt.segment(model, noise)
    rows = sum(isinstance(step, Partial) for step in nmt.segment_steps(model, noise))
    monkeypatch.setattr(landing, "_CHUNK_BYTES", 1)  # a plane at a time
    slabs = [step.value for step in nmt.segment_steps(model, noise) if isinstance(step, Partial)]
    assert len(slabs) == max(noise.shape) > rows
    for slab in slabs:
        place = tuple(slice(a, b) for a, b in zip(slab.start, slab.stop))
        np.testing.assert_array_equal(slab.labels, whole[place])


@pytest.mark.parametrize("spacing_mm", [None, (1.5, 0.8, 1.0)])
def test_a_region_gets_labels_and_nothing_else_does(threshold_model, spacing_mm) -> None:
    image = soft_organ((40, 44, 36))
    start, stop = (10, 5, 9), (31, 38, 30)
    inside = np.zeros(image.shape, bool)
    inside[tuple(slice(a, b) for a, b in zip(start, stop))] = True
    model = threshold_model(spacing_mm=spacing_mm)
    labels = nmt.segment(model, Volume.from_array(image), region=(start, stop))
    assert not labels[~inside].any()
    assert dice(labels[inside] == 1, image[inside] > 0.5) >= (1.0 if spacing_mm is None else 0.999)


def test_a_region_smaller_than_a_window_is_seen_with_what_lies_around_it(noise) -> None:
    from napari_medtransformer.segmentation import volume_logits

    # a fixed range: each region's own mean would tell the two apart
    card = make_card((16, 16, 16))
    model = make_model(swin_network(), replace(card, input=replace(card.input, clip=(-300.0, 300.0))))
    found = volume_logits(model, noise, region=((0, 0, 0), (4, 5, 6)))
    expected = volume_logits(model, noise, region=((0, 0, 0), (16, 16, 16)))
    np.testing.assert_allclose(found[:, :4, :5, :6], expected[:, :4, :5, :6], atol=1e-5)
    assert not found[:, 4:].any()


def cubic_along_last(values: np.ndarray, length: int) -> np.ndarray:
    """torch's antialiased bicubic (a = -0.5) along one axis."""
    import torch.nn.functional as F

    lines = torch.from_numpy(np.ascontiguousarray(values)).reshape(1, 1, -1, values.shape[-1])
    resized = F.interpolate(lines, size=(lines.shape[2], length), mode="bicubic", antialias=True)
    return resized.reshape(*values.shape[:-1], length).numpy()


def test_windows_are_resampled_as_the_whole_volume_would_be(noise) -> None:
    """Keys' cubic at edge-aligned centres: torch's bicubic, axis by axis, is the oracle where voxels get finer."""
    grid = model_grid(noise.shape, (1, 1, 1), (0.6, 0.8, 0.5), (16, 16, 16))
    whole = noise.data.astype(np.float32)
    for axis, one in enumerate(grid.axes):
        whole = np.moveaxis(cubic_along_last(np.moveaxis(whole, axis, -1), one.model), -1, axis)
    for start in [(0, 0, 0), (7, 3, 20), tuple(n - 16 for n in grid.shape)]:
        window = grid.read(noise.data, start, lambda part: part[None].astype(np.float32))
        place = tuple(slice(s, s + 16) for s in start)
        np.testing.assert_allclose(window[0], whole[place], atol=1e-2)  # of values up to some hundreds


def test_coarser_windows_keep_the_mean(noise) -> None:
    grid = model_grid((40, 40, 40), (1, 1, 1), (4, 4, 4), (10, 10, 10))
    data = np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32)
    window = grid.read(data, (0, 0, 0), lambda part: part[None])[0]
    # taking every fourth voxel would keep the deviation of 1
    assert window.std() < 0.3
    assert abs(window.mean() - data.mean()) < 0.02


def test_nearly_equal_voxels_are_left_alone() -> None:
    grid = model_grid((100, 100, 100), (1.01, 0.99, 1.0), (1, 1, 1), (16, 16, 16))
    assert grid.is_same


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_reading_back_is_the_weighted_mean_of_four_voxels(axis: int) -> None:
    rng = np.random.default_rng(axis)
    along = AxisMap(native=150, model=97, start=3, stop=147, first=-2, length=101)
    taps = along.taps(np.arange(3, 147))  # more places than one matrix product takes
    shape = [3, 4, 5, 6]
    shape[axis] = 101
    values = rng.normal(size=shape).astype(np.float32)
    found = between(torch.from_numpy(values), axis, taps).numpy()
    gathered = np.moveaxis(values.astype(np.float64), axis, -1)[..., taps.index]
    expected = np.moveaxis((gathered * taps.weights).sum(-1), -1, axis)
    # four products of float32, of values up to about 5
    np.testing.assert_allclose(found, expected, atol=5e-6)


def test_reading_back_is_exact_for_parabolas() -> None:
    """What Keys' kernel promises, inside the ends."""
    grid = model_grid((50, 8, 8), (1, 1, 1), (0.6, 1, 1), (16, 8, 8))
    axis = grid.axes[0]
    centres = (np.arange(axis.model) + 0.5) * axis.native / axis.model - 0.5
    values = torch.from_numpy((centres**2).astype(np.float32)).reshape(1, -1, 1, 1)
    found = between(values, 1, axis.taps(np.arange(50))).flatten().numpy()
    np.testing.assert_allclose(found[2:-2], np.arange(50.0)[2:-2] ** 2, rtol=1e-4, atol=1e-3)
