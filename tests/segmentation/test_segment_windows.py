"""Sliding windows against MONAI's, and the sums behind them against numpy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import sliding_window_inference

import napari_medtransformer as nmt
from napari_medtransformer.segmentation import volume_logits
from napari_medtransformer.segmentation.overlap_add import OverlapAdd
from napari_medtransformer.segmentation.windows import weight_map, window_starts
from napari_medtransformer.volumes import Volume

# The tolerance asked for: sums of the same float32 products in another order differ by less.
MONAI_TOLERANCE = 1e-4


def monai_logits(model, volume: Volume, overlap: float, weights: str, window: tuple[int, ...]) -> np.ndarray:
    scaled = model.normalisation(volume.data, volume.modality)(volume.data)
    with torch.inference_mode():
        logits = sliding_window_inference(
            torch.from_numpy(scaled)[None], window, 2, model.logits, overlap=overlap, mode=weights
        )
    return logits[0].numpy()


@given(st.integers(1, 60), st.integers(1, 40), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.625, 0.9]))
def test_windows_lie_where_monai_lays_them(length: int, window: int, overlap: float) -> None:
    window = min(window, length)
    interval = max(1, int(window * (1 - overlap))) if window < length else window
    expected = [s[0].start for s in dense_patch_slices((length,), (window,), (interval,))]
    assert window_starts(length, window, overlap) == expected


@pytest.mark.parametrize("window", [(16, 16, 16), (8, 24, 40), (96, 96, 96), (1, 33, 64)])
def test_weights_are_monais(window: tuple[int, int, int]) -> None:
    expected = compute_importance_map(window, mode="gaussian", sigma_scale=0.125)
    torch.testing.assert_close(weight_map(window, "gaussian"), expected, rtol=1e-6, atol=0)


@settings(deadline=None)
@given(
    st.tuples(*[st.integers(3, 14)] * 3),
    st.tuples(*[st.integers(1, 8)] * 3),
    st.sampled_from([0.0, 0.3, 0.5, 0.8]),
)
def test_the_frontier_adds_up_what_a_whole_volume_would(shape, window, overlap) -> None:
    window = tuple(min(w, n) for w, n in zip(window, shape))
    starts = [window_starts(n, w, overlap) for n, w in zip(shape, window)]
    rng = np.random.default_rng(0)
    whole, found = np.zeros((2, *shape)), np.full((2, *shape), np.nan)
    sums = OverlapAdd(2, starts, window, torch.device("cpu"))
    for index in itertools.product(*(range(len(axis)) for axis in starts)):
        block = rng.integers(-9, 9, (2, *window)).astype(np.float32)
        start = [axis[n] for axis, n in zip(starts, index)]
        whole[(slice(None), *(slice(s, s + w) for s, w in zip(start, window)))] += block
        finished = sums.add(index, torch.from_numpy(block))
        place = (slice(None), *(slice(a, b) for a, b in zip(finished.start, finished.stop)))
        assert np.isnan(found[place]).all(), "a voxel was handed out twice"
        found[place] = finished.sums.numpy()
    np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize(
    "overlap, weights", [(0.25, "gaussian"), (0.5, "gaussian"), (0.6, "constant"), (0, "constant")]
)
def test_logits_and_labels_are_those_of_monais_sliding_window(swin_model, noise, overlap, weights) -> None:
    expected = monai_logits(swin_model, noise, overlap, weights, (16, 16, 16))
    found = volume_logits(swin_model, noise, overlap=overlap, weights=weights)
    np.testing.assert_allclose(found, expected, atol=MONAI_TOLERANCE, rtol=0)

    labels = nmt.segment(swin_model, noise, overlap=overlap, weights=weights)
    ordered = np.sort(expected, axis=0)
    decided = ordered[-1] - ordered[-2] > 2 * MONAI_TOLERANCE
    assert decided.mean() > 0.99
    np.testing.assert_array_equal(labels[decided], expected.argmax(0)[decided])
    assert labels.dtype == np.uint8


def test_windows_larger_than_the_volume_are_padded_as_monai_pads_them(unetr_model) -> None:
    rng = np.random.default_rng(0)
    volume = Volume.from_array(rng.normal(size=(11, 20, 9)).astype(np.float32))
    expected = monai_logits(unetr_model, volume, 0.25, "gaussian", (16, 16, 16))
    np.testing.assert_allclose(volume_logits(unetr_model, volume), expected, atol=MONAI_TOLERANCE, rtol=0)


def test_another_window_gives_what_monai_gives_with_it(unetr_model, noise) -> None:
    expected = monai_logits(unetr_model, noise, 0.25, "gaussian", (24, 16, 32))
    found = volume_logits(unetr_model, noise, window=(24, 16, 32))
    np.testing.assert_allclose(found, expected, atol=MONAI_TOLERANCE, rtol=0)


def test_the_whole_volume_in_one_pass_is_one_window(unetr_model, noise) -> None:
    """The window is the volume up to the next multiple of 8, padded as a window is."""
    window = tuple(8 * math.ceil(n / 8) for n in noise.shape)
    expected = monai_logits(unetr_model, noise, 0.0, "constant", window)
    found = volume_logits(unetr_model, noise, whole=True, weights="constant")
    np.testing.assert_allclose(found, expected, atol=MONAI_TOLERANCE, rtol=0)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_batches_change_nothing(swin_model, noise, batch: int) -> None:
    expected = volume_logits(swin_model, noise, batch=2)
    np.testing.assert_allclose(volume_logits(swin_model, noise, batch=batch), expected, atol=1e-5, rtol=0)


def test_mirrored_passes_are_the_mean_of_mirrored_volumes(swin_model) -> None:
    volume = Volume.from_array(np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32))
    plain = volume_logits(swin_model, volume)
    turned = volume_logits(swin_model, Volume.from_array(volume.data[:, ::-1].copy()))[:, :, ::-1]
    found = volume_logits(swin_model, volume, mirror=(1,))
    np.testing.assert_allclose(found, (plain + turned) / 2, atol=1e-4, rtol=0)


def test_half_precision_says_nearly_the_same(swin_model, noise) -> None:
    exact = volume_logits(swin_model, noise)
    rounded = volume_logits(swin_model, noise, dtype="bfloat16")
    assert not np.array_equal(exact, rounded)
    # bfloat16 keeps 8 bits; a dozen layers let the error grow to a few per cent of the logits' range
    assert np.abs(exact - rounded).max() < 0.1 * np.ptp(exact)
