"""Simulated prompts lie where a person would put them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_medtransformer.prompting.model_prompts import MASK_LOGIT, lasso_logits
from napari_medtransformer.prompting.refining import REFINED_LOGIT
from napari_medtransformer.training.clicks import (
    ObjectPrompts,
    add_correction,
    as_refined,
    draw_targets,
    first_prompts,
    jittered_box,
    plausible_point,
)


@pytest.fixture
def disc() -> np.ndarray:
    y, x = np.mgrid[:64, :64]
    return np.asarray((y - 20) ** 2 + (x - 40) ** 2 < 100)


@pytest.mark.parametrize("seed", range(20))
def test_a_click_is_inside_its_target(disc: np.ndarray, seed: int) -> None:
    y, x = plausible_point(disc, np.random.default_rng(seed))
    assert disc[int(y), int(x)]


@pytest.mark.parametrize("seed", range(20))
def test_a_box_covers_most_of_its_target(disc: np.ndarray, seed: int) -> None:
    y0, x0, y1, x1 = jittered_box(disc, np.random.default_rng(seed))
    inside = np.zeros_like(disc)
    inside[round(y0) : round(y1), round(x0) : round(x1)] = True
    assert (inside & disc).sum() > 0.75 * disc.sum()
    assert inside.sum() < 2 * 400


def test_every_target_gets_a_box_a_click_a_stroke_or_a_lasso(disc: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    given = [first_prompts(disc, rng) for _ in range(400)]
    assert all(p.box is not None or p.points for p in given)
    assert all(p.labels == [1] * len(p.points) for p in given)
    assert 120 < sum(p.box is not None for p in given) < 220
    strokes = [p for p in given if p.drawn is not None and p.drawn.max() == MASK_LOGIT]
    lassos = [p for p in given if p.drawn is not None and p.drawn.max() == REFINED_LOGIT]
    assert len(strokes) > 25
    assert len(lassos) > 15
    assert len(strokes) + len(lassos) == sum(p.drawn is not None for p in given)
    assert all(p.box is None for p in (*strokes, *lassos))


def test_a_lasso_is_given_as_its_most_interior_point_and_what_it_encloses(disc: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    given = first_prompts(disc, rng)
    while given.drawn is None or given.drawn.max() != REFINED_LOGIT:
        given = first_prompts(disc, rng)
    assert np.array_equal(given.drawn, lasso_logits(given.drawn > 0))
    assert len(given.points) == 1


def test_a_correction_is_set_in_the_largest_error_with_the_right_sign(disc: np.ndarray) -> None:
    half = disc[::2, ::2]
    prompts = ObjectPrompts()
    rng = np.random.default_rng(0)
    assert add_correction(prompts, half, np.zeros_like(half), rng)
    assert prompts.labels == [1]
    y, x = prompts.points[0]
    assert half[int(y) // 2, int(x) // 2]
    assert add_correction(prompts, half, np.ones_like(half), rng)
    assert prompts.labels == [1, 0]
    y, x = prompts.points[1]
    assert not half[int(y) // 2, int(x) // 2]
    assert not add_correction(prompts, half, half, rng)


def test_targets_are_whole_components_of_labels_large_enough_to_see() -> None:
    labels = np.zeros((64, 64), np.int32)
    labels[4:20, 4:20] = 7
    labels[40:60, 40:60] = 7
    labels[30:33, 30:33] = 9
    drawn = draw_targets(labels, 12, np.random.default_rng(5))
    assert {int(mask.sum()) for mask in drawn} <= {256, 400, 656}
    assert not any(mask[31, 31] for mask in drawn)


def test_every_other_answer_comes_back_as_a_mask_to_be_refined() -> None:
    logits = torch.randn(400, 1, 3, 3, generator=torch.Generator().manual_seed(0)) * 5
    refined = as_refined(logits, np.random.default_rng(0))
    assert torch.equal(refined > 0, logits > 0)
    as_masks = (refined.abs() == REFINED_LOGIT).flatten(1).all(dim=1)
    assert 150 < int(as_masks.sum()) < 250
    assert torch.equal(refined[~as_masks], logits[~as_masks])
