"""Windows: presets, percentiles, the guess of a CT, and what is given to a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_medtransformer.errors import InvalidOption
from napari_medtransformer.volumes import CT_PRESETS, Window, apply_window, default_window, read_labels, read_volume
from napari_medtransformer.volumes.intensity import guess_modality, preset, robust_window, sample_values
from napari_medtransformer.volumes.sample_data import sample_path


def test_a_ct_is_shown_in_the_soft_tissue_window_and_an_mr_between_its_percentiles() -> None:
    assert read_volume(sample_path("example_ct.nii.gz")).window == Window(-160, 240, "soft tissue")
    mr = read_volume(sample_path("example_mr_sm.nii.gz"))
    foreground = mr.data[mr.data > mr.data.min()]
    assert (mr.window.low, mr.window.high) == pytest.approx(np.percentile(foreground, [0.5, 99.5]))


def test_cts_and_nothing_else_are_taken_for_cts(shared_data: Path) -> None:
    cts = sorted(shared_data.glob("totalsegmentator/example_ct*.nii.gz"))
    others = [
        *shared_data.glob("sct/*.nii.gz"),
        *shared_data.glob("torchio_brain/*.nii.gz"),
        *shared_data.glob("totalsegmentator/*_mr*.nii.gz"),
        *shared_data.glob("totalsegmentator/example_seg*.nii.gz"),
        *shared_data.glob("msd_hippocampus/*/*.nii.gz"),
    ]
    assert len(cts) == 2
    assert {read_volume(path).modality for path in cts} == {"CT"}
    assert {read_volume(path).modality for path in others} == {"unknown"}


def test_a_crop_of_the_liver_without_air_and_a_single_slice_are_still_cts() -> None:
    ct = read_volume(sample_path("example_ct.nii.gz")).data
    assert guess_modality(ct[56]) == "CT"
    kidney = read_labels(sample_path("example_seg_fast_force_split.nii.gz")).data == 3
    z, y, x = np.argwhere(kidney).mean(axis=0).astype(int)
    crop = ct[z - 8 : z + 8, y - 8 : y + 8, x - 8 : x + 8]
    assert crop.min() > -850  # no air
    assert guess_modality(crop) == "CT"


def test_presets_are_found_by_name_and_stated_as_level_and_width() -> None:
    assert [(w.name, w.level, w.width) for w in CT_PRESETS] == [
        ("soft tissue", 40, 400),
        ("lung", -600, 1500),
        ("bone", 400, 1800),
        ("brain", 40, 80),
        ("liver", 60, 160),
    ]
    assert preset("lung") is CT_PRESETS[1]
    with pytest.raises(InvalidOption, match="soft tissue, lung"):
        preset("lungs")


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (np.nan, 1), (0, np.inf)])
def test_a_window_needs_finite_ends_in_order(low: float, high: float) -> None:
    with pytest.raises(InvalidOption, match="low < high|finite numbers"):
        Window(low, high)


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.int32, np.float32, np.float64]),
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=6),
    )
)
def test_every_image_has_a_window_and_fits_in_it(image: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        window = default_window(image)
        shown = apply_window(image, window)
    assert shown.dtype == np.float32
    assert shown.shape == image.shape
    assert np.isfinite(shown).all()
    assert shown.min() >= 0
    assert shown.max() <= 1


def test_a_window_maps_its_ends_to_0_and_1_and_clips_beyond() -> None:
    image = np.array([-2000, -160, 40, 240, 3000, np.nan], np.float32)
    np.testing.assert_allclose(apply_window(image, preset("soft tissue")), [0, 0, 0.5, 1, 1, 0])
    np.testing.assert_allclose(apply_window(image, (-160, 240)), [0, 0, 0.5, 1, 1, 0])


def test_a_constant_image_gets_a_window_one_unit_wide() -> None:
    assert robust_window(np.full((3, 3), 7)) == Window(7, 8, "constant")


def test_a_sample_of_a_large_image_is_bounded_and_keeps_its_percentiles() -> None:
    image = np.random.default_rng(0).normal(100, 20, (300, 200, 100)).astype(np.float32)
    values = sample_values(image)
    assert values.size <= 500_000
    np.testing.assert_allclose(np.percentile(values, [1, 50, 99]), np.percentile(image, [1, 50, 99]), atol=0.5)
