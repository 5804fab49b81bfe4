"""ImagePredictor: prompts in native pixels, checked, and the best of the candidates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_medtransformer.errors import InvalidPrompt, PointOutsideVolume, UnsupportedModel, UnsupportedVolume
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.prompting import ImagePredictor


def squares() -> np.ndarray:
    image = np.zeros((40, 30), np.int16)
    image[5:15, 4:12] = 100
    image[20:35, 10:25] = 60
    return image


@pytest.fixture
def predictor(region_model: PromptableModel) -> ImagePredictor:
    predictor = ImagePredictor(region_model)
    predictor.set_image(squares(), window=(0, 100))
    return predictor


def test_a_click_takes_the_object_and_a_negative_one_gives_it_back(predictor: ImagePredictor) -> None:
    image = squares()
    assert np.array_equal(predictor.predict([(10, 8)], [1]).mask, image == 100)
    both = predictor.predict([(10, 8), (25, 15)], [1, 1])
    assert np.array_equal(both.mask, image > 0)
    without = predictor.predict([(10, 8), (25, 15), (21, 11)], [1, 1, 0])
    assert np.array_equal(without.mask, image == 100)


def test_a_result_has_the_image_s_shape_and_the_best_score(predictor: ImagePredictor) -> None:
    result = predictor.predict(points=[(10, 8)])
    assert result.mask.shape == result.logits.shape == (40, 30)
    assert (result.mask.dtype, result.logits.dtype) == (np.dtype(bool), np.dtype(np.float32))
    assert isinstance(result.score, float)
    assert result.score == pytest.approx(0.9)
    assert result.candidates.shape == (3, 40, 30)
    other = result.choose(1)
    assert other.score == pytest.approx(0.6)
    assert other.mask.sum() > result.mask.sum()
    with pytest.raises(InvalidPrompt, match="0 to 2, not 3"):
        result.choose(3)


def test_a_box_is_half_open_and_cut_at_the_image(predictor: ImagePredictor) -> None:
    assert np.array_equal(predictor.predict(box=(5, 4, 15, 12)).mask, squares() == 100)
    assert np.array_equal(predictor.predict(box=(-3, -3, 15, 12)).mask, squares() == 100)
    assert predictor.predict(box=(5, 4, 14, 12)).mask.sum() == 9 * 8


def test_earlier_logits_can_be_refined(predictor: ImagePredictor) -> None:
    first = predictor.predict([(10, 8)])
    assert np.array_equal(predictor.predict(mask_logits=first.logits).mask, first.mask)


def test_a_real_network_answers_at_the_image_s_own_size(click_model: PromptableModel) -> None:
    predictor = ImagePredictor(click_model)
    predictor.set_image(squares())
    result = predictor.predict([(10, 8), (0, 0)], [1, 0], box=(5, 4, 15, 12))
    assert result.candidates.shape == (3, 40, 30)
    assert np.isfinite(result.logits).all()
    assert result.score == pytest.approx(result.scores.max())
    refined = predictor.predict([(10, 8)], mask_logits=result.logits)
    assert not np.array_equal(refined.logits, predictor.predict([(10, 8)]).logits)


def test_the_image_before_does_not_answer_for_the_next(click_model: PromptableModel) -> None:
    predictor = ImagePredictor(click_model)
    predictor.set_image(squares())
    first = predictor.predict([(10, 8)]).logits
    predictor.set_image(squares()[::-1])
    assert not np.array_equal(predictor.predict([(10, 8)]).logits, first)
    predictor.set_image(squares())
    assert np.array_equal(predictor.predict([(10, 8)]).logits, first)


@pytest.mark.parametrize("point", [(-0.6, 3), (39.5, 3), (3, 29.5), (3, -1), (1e9, 0)])
def test_a_point_outside_the_image_is_refused(predictor: ImagePredictor, point: tuple[float, float]) -> None:
    with pytest.raises(PointOutsideVolume, match="40 × 30"):
        predictor.predict([point])


@pytest.mark.parametrize("point", [(-0.5, -0.5), (39.4, 29.4), (0, 0), (39, 29)])
def test_a_point_anywhere_in_an_edge_pixel_is_taken(predictor: ImagePredictor, point: tuple[float, float]) -> None:
    assert predictor.predict([point]).mask.any()


@pytest.mark.parametrize(
    ("prompts", "reason"),
    [
        ({}, "nothing to predict from"),
        ({"points": []}, "nothing to predict from"),
        ({"points": [(1, 2)], "labels": [1, 0]}, "1 points came with 2 labels"),
        ({"points": [(1, 2)], "labels": [2]}, r"1 \(inside\) or 0"),
        ({"points": [(1, 2, 3)]}, r"\(y, x\)"),
        ({"points": [(1, float("nan"))]}, "finite"),
        ({"points": ["ab"]}, "numbers"),
        ({"box": (5, 5, 5, 9)}, "empty"),
        ({"box": (5, 5, 9)}, "four numbers"),
        ({"box": (5, 5, 9, float("inf"))}, "empty"),
        ({"mask_logits": np.zeros((3, 3))}, r"\(3, 3\); expected .*\(40, 30\)"),
    ],
)
def test_a_malformed_prompt_says_what_was_expected(
    predictor: ImagePredictor, prompts: dict[str, object], reason: str
) -> None:
    with pytest.raises(InvalidPrompt, match=reason) as caught:
        predictor.predict(**prompts)
    assert "\n" not in str(caught.value)


def test_a_box_beside_the_image_is_refused(predictor: ImagePredictor) -> None:
    with pytest.raises(PointOutsideVolume, match="outside the image"):
        predictor.predict(box=(50, 0, 60, 10))


def test_predicting_before_an_image_is_set_says_so(region_model: PromptableModel) -> None:
    with pytest.raises(InvalidPrompt, match="set_image"):
        ImagePredictor(region_model).predict([(0, 0)])


@pytest.mark.parametrize("image", [np.zeros((3, 4, 3)), np.zeros((0, 4)), np.zeros((3, 4), complex)])
def test_what_is_no_image_is_refused(region_model: PromptableModel, image: np.ndarray) -> None:
    with pytest.raises(UnsupportedVolume, match="one channel|real numbers"):
        ImagePredictor(region_model).set_image(image)


def test_an_upside_down_window_is_refused(region_model: PromptableModel) -> None:
    with pytest.raises(InvalidPrompt, match="low < high"):
        ImagePredictor(region_model).set_image(squares(), window=(100, 0))


def test_a_model_without_prompts_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="takes no prompts"):
        ImagePredictor(Path())  # type: ignore[arg-type]
