"""Simulated strokes run through their objects, simulated lassos around them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_medtransformer.training.drawn import drawn_lasso, drawn_stroke


def _objects() -> dict[str, np.ndarray]:
    y, x = np.mgrid[:200, :200]
    away = np.hypot(y - 100, x - 90)
    single = np.zeros((200, 200), bool)
    single[7, 9] = True
    return {
        "disc": away < 8,
        "large": away < 85,
        "bent": (away > 40) & (away < 60) & (x > 60),
        "line": (np.abs(y - x) < 2) & (y > 20) & (y < 170),
        "two parts": (away < 12) | (np.hypot(y - 30, x - 160) < 12),
        "at the edge": (y < 9) & (x > 150),
        "one pixel": single,
    }


@pytest.mark.parametrize("name", list(_objects()))
def test_a_stroke_keeps_to_its_object(name: str) -> None:
    mask = _objects()[name]
    for seed in range(15):
        stroke = drawn_stroke(mask, np.random.default_rng(seed))
        assert stroke.any()
        assert (stroke & ~mask).sum() <= 0.2 * stroke.sum()


def test_a_stroke_is_one_line_by_the_middle_of_its_object() -> None:
    mask = _objects()["bent"]
    depth = ndimage.distance_transform_edt(mask)
    lengths = []
    for seed in range(15):
        stroke = drawn_stroke(mask, np.random.default_rng(seed))
        assert ndimage.label(stroke, np.ones((3, 3)))[1] == 1
        assert depth[stroke].mean() > 0.5 * depth.max()
        lengths.append(np.ptp(np.argwhere(stroke), axis=0).max() + 1)
    assert max(lengths) > 70
    assert min(lengths) < 60


@pytest.mark.parametrize("name", list(_objects()))
def test_a_lasso_encloses_most_of_its_object_and_little_else(name: str) -> None:
    mask = _objects()[name]
    for seed in range(15):
        lasso = drawn_lasso(mask, np.random.default_rng(seed))
        filled = ndimage.binary_fill_holes(mask)
        assert (lasso & mask).sum() >= 0.6 * mask.sum()
        extent = np.ptp(np.argwhere(mask), axis=0).max() + 1
        assert not (lasso & (ndimage.distance_transform_edt(~filled) > 0.3 * extent + 2)).any()


def test_lassos_differ_in_how_far_away_they_are_drawn() -> None:
    mask = _objects()["disc"]
    areas = [int(drawn_lasso(mask, np.random.default_rng(seed)).sum()) for seed in range(30)]
    assert min(areas) < 1.1 * mask.sum()
    assert max(areas) > 1.35 * mask.sum()


def test_the_same_seed_draws_the_same() -> None:
    mask = _objects()["bent"]
    for draw in (drawn_stroke, drawn_lasso):
        assert np.array_equal(draw(mask, np.random.default_rng(3)), draw(mask, np.random.default_rng(3)))
