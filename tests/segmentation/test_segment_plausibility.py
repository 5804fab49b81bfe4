"""Doubts about a volume that is unlike what a model was trained on."""

from __future__ import annotations

import numpy as np
import pytest
from automatic_models import make_card
from segmentation_run import run_segmentation

from napari_medtransformer.segmentation.plausibility import doubts
from napari_medtransformer.segmentation.region import values_within
from napari_medtransformer.volumes import Volume
from napari_medtransformer.volumes.lazy import LazyArray


def ct(shape=(64, 64, 64), spacing=(1.5, 1.5, 1.5), modality="CT") -> Volume:
    rng = np.random.default_rng(0)
    data = np.where(rng.random(shape) < 0.4, -1000, rng.normal(40, 30, shape)).astype(np.int16)
    return Volume.from_array(data, spacing, modality)


CT_CARD = make_card((64, 64, 64), spacing_mm=(1.5, 1.5, 1.5), modalities=("CT",), extent_mm=(400, 500, 500))


@pytest.mark.parametrize(
    "volume, words",
    [
        (ct(), None),
        (ct(modality="MR"), "this is MR"),
        (Volume.from_array(np.random.default_rng(0).random((64, 64, 64)), (1.5, 1.5, 1.5)), "Hounsfield"),
        (ct(spacing=(8, 1.5, 1.5)), "far from the 1.5"),
        (ct(shape=(10, 64, 64)), "much smaller"),
        (ct(shape=(64, 64, 640)), "choose a region"),
        (Volume.from_array(np.zeros((64, 64, 64)), (1.5, 1.5, 1.5), "CT"), "no image"),
    ],
)
def test_a_volume_unlike_the_cards_is_doubted(volume: Volume, words: str | None) -> None:
    found = doubts(volume, CT_CARD)
    assert len(found) == (0 if words is None else 1), found
    if words is not None:
        assert words in found[0]


def test_doubts_are_about_the_region_that_is_asked_for() -> None:
    large = ct(shape=(64, 64, 640))
    assert "choose a region" in doubts(large, CT_CARD)[0]
    assert doubts(large, CT_CARD, ((0, 0, 200), (64, 64, 264))) == []
    assert "much smaller" in doubts(ct(), CT_CARD, ((0, 0, 0), (64, 10, 64)))[0]


def test_a_segmentation_of_a_region_doubts_the_region(threshold_model) -> None:
    volume = Volume.from_array(np.random.default_rng(0).random((16, 16, 64)).astype(np.float32))
    small, large = ((0, 0, 8), (16, 16, 24)), ((0, 0, 0), (16, 16, 40))
    model = threshold_model(spacing_mm=(1.0, 1.0, 1.0), extent_mm=(16.0, 16.0, 20.0))
    assert run_segmentation(model, volume, region=small)[2] == []
    assert "much larger" in run_segmentation(model, volume, region=large)[2][0]


def test_a_region_of_a_file_is_looked_at_without_reading_all_of_it() -> None:
    read = []

    class Counted:
        shape, dtype, blocks = (400, 200, 200), np.dtype(np.int16), (1, 200, 200)

        def read(self, selection) -> np.ndarray:
            sizes = [len(range(*part.indices(n))) for part, n in zip(selection, self.shape)]
            read.append(int(np.prod(sizes)))
            return np.full(sizes, 7, np.int16)

    values = values_within(LazyArray(Counted()), ((0, 0, 0), (400, 200, 200)))
    assert set(values.ravel()) == {7}
    assert sum(read) < 400 * 200 * 200 / 4
    some = np.arange(27).reshape(3, 3, 3)
    np.testing.assert_array_equal(values_within(some, ((1, 0, 0), (3, 3, 2))), some[1:, :, :2])


def test_doubts_are_said_before_the_first_window(threshold_model) -> None:
    volume = Volume.from_array(np.random.default_rng(0).random((16, 16, 16)), modality="MR")
    found, progress, said = run_segmentation(threshold_model(modalities=("CT",)), volume)
    assert "this is MR" in said[0]
    assert progress[0].message == said[0] == found.messages[0]
    assert progress[0].done == 0
