"""Spoilt masks are wrong in the ways a first look is, and stay near the object."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medtransformer.training.spoiling import spoilt_logits

SIZE = 128
ROWS, COLUMNS = np.ogrid[:SIZE, :SIZE]
OBJECT = (ROWS - 60) ** 2 + (COLUMNS - 50) ** 2 < 14**2
LABELS = OBJECT.astype(np.int32) + 2 * ((ROWS - 60) ** 2 + (COLUMNS - 78) ** 2 < 13**2)
PICTURE = (0.2 + 0.4 * OBJECT).astype(np.float32)


def spoilt(seed: int) -> np.ndarray:
    return spoilt_logits(OBJECT, LABELS, PICTURE, (60.0, 50.0), np.random.default_rng(seed))


def test_the_same_seed_spoils_alike() -> None:
    np.testing.assert_array_equal(spoilt(3), spoilt(3))


def test_guesses_are_logits_around_the_object_some_good_some_bad() -> None:
    overlaps = []
    for seed in range(60):
        logits = spoilt(seed)
        assert logits.dtype == np.float32
        assert np.abs(logits).max() <= 8
        guess = logits > 0
        overlaps.append((guess & OBJECT).sum() / max(1, (guess | OBJECT).sum()))
        far = (ROWS - 60) ** 2 + (COLUMNS - 50) ** 2 > (14 * 6) ** 2
        assert not (guess & far).any()
    assert np.quantile(overlaps, 0.2) < 0.5
    assert np.quantile(overlaps, 0.8) > 0.7


@pytest.mark.parametrize("place", [(0, 0), (SIZE - 3, SIZE - 3)])
def test_an_object_in_the_corner_can_be_spoilt(place: tuple[int, int]) -> None:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[place[0] : place[0] + 3, place[1] : place[1] + 3] = True
    for seed in range(20):
        click = (place[0] + 1.0, place[1] + 1.0)
        logits = spoilt_logits(mask, mask.astype(np.int32), PICTURE, click, np.random.default_rng(seed))
        assert logits.shape == mask.shape
        assert np.isfinite(logits).all()
