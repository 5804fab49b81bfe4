"""Prompt after prompt on a slice: what the model is given, and that the mask follows from the prompts alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from region_model import RegionModel

from napari_medtransformer.models.base import PromptableModel, Prompts
from napari_medtransformer.prompting import ImagePredictor, PromptSession
from napari_medtransformer.prompting import refining as module
from napari_medtransformer.prompting.masks import PackedMask
from napari_medtransformer.prompting.model_prompts import lasso_logits, lasso_mask, refines, stroke_logits
from napari_medtransformer.prompting.predictor import make_prompts
from napari_medtransformer.prompting.prompts import (
    BoxPrompt,
    LassoPrompt,
    MaskPrompt,
    PointPrompt,
    Prompt,
    ScribblePrompt,
    SliceKey,
)
from napari_medtransformer.prompting.refining import Answers, refined_logits
from napari_medtransformer.prompting.slice_model import Request, SliceModel
from napari_medtransformer.volumes import Volume

_KEY = SliceKey(1, 0, 5)
_INSIDE, _ABOVE, _BESIDE = (5.0, 7.0, 9.0), (5.0, 2.0, 9.0), (5.0, 7.0, 16.0)
_POINT, _AGAIN = PointPrompt(_INSIDE), PointPrompt(_ABOVE)
_OUTSIDE = PointPrompt((5.0, 8.0, 10.0), positive=False)  # within what the others give
_BOX = BoxPrompt((5.0, 4.0, 5.0), (5.0, 12.0, 15.0))


class Listening(RegionModel):
    """Remembers what it was asked; every answer has one more row than the mask it is given to refine."""

    def __init__(self, refines: bool = True) -> None:
        super().__init__()
        self.refines = refines
        self.asked: list[Prompts] = []

    def decode(self, embedding: Any, prompts: Prompts) -> Any:
        self.asked.append(prompts)
        found = super().decode(embedding, replace(prompts, mask_logits=None) if len(prompts.points_yx) else prompts)
        if prompts.mask_logits is not None:
            found.logits[0] = np.where(np.roll(prompts.mask_logits, 1, axis=0) > 0, 4.0, found.logits[0])
        return found


_PAINTED = np.zeros((20, 26), bool)
_PAINTED[6:8, 6:12] = True
_STROKE = ScribblePrompt(PackedMask.pack(_PAINTED), 5)


def _to_refine(asked: Prompts) -> np.ndarray:
    assert asked.mask_logits is not None
    return asked.mask_logits


def _mask(model: SliceModel, *prompts: Prompt) -> np.ndarray:
    return model.predict(Request(_KEY, prompts)).prediction.mask


@pytest.fixture
def listening() -> Listening:
    return Listening()


@pytest.fixture
def slices(listening: Listening, blocks: Volume) -> SliceModel:
    return SliceModel(listening, blocks, None, 10**8)


def test_a_click_is_asked_with_the_mask_of_those_before_it(slices: SliceModel, listening: Listening) -> None:
    first = _mask(slices, _POINT)
    second = _mask(slices, _POINT, _AGAIN)
    _mask(slices, _POINT, _AGAIN, _OUTSIDE)

    assert listening.asked[0].mask_logits is None
    assert np.array_equal(_to_refine(listening.asked[1]), refined_logits(first))
    assert np.array_equal(_to_refine(listening.asked[2]), refined_logits(second))
    assert len(listening.asked[2].points_yx) == 3


def test_the_mask_follows_from_the_prompts_whether_they_came_one_by_one_or_at_once(
    listening: Listening, blocks: Volume, slices: SliceModel
) -> None:
    prompts = (_POINT, _AGAIN, _OUTSIDE)
    for count in (1, 2, 3):
        one_by_one = _mask(slices, *prompts[:count])
    asked_one_by_one = len(listening.asked)

    at_once = _mask(SliceModel(listening, blocks, None, 10**8), *prompts)

    assert np.array_equal(at_once, one_by_one)
    assert asked_one_by_one == 3
    assert len(listening.asked) == 6
    # without the prompt in the middle it is as if that had never been given
    assert np.array_equal(
        _mask(slices, _POINT, _OUTSIDE), _mask(SliceModel(listening, blocks, None, 10**8), _POINT, _OUTSIDE)
    )


def test_a_real_network_answers_as_a_predictor_that_is_given_the_mask_before(
    click_model: PromptableModel, blocks: Volume
) -> None:
    session = PromptSession(click_model, blocks)
    session.add_point(_INSIDE)
    first = session.slice_mask(_KEY)
    assert first.sum() > 1
    y, x = next((int(y), int(x)) for y, x in np.argwhere(first) if (y, x) != (7, 9))
    session.add_point((5, y, x), positive=False)

    predictor = ImagePredictor(click_model)
    predictor._embedding, predictor._shape = session._slices.embedding(0, 5), (20, 26)  # type: ignore[union-attr]
    expected = predictor.predict([(7, 9), (y, x)], [1, 0], mask_logits=refined_logits(first)).mask
    # a predictor that is given the points alone answers them in turn, too
    assert np.array_equal(predictor.predict([(7, 9), (y, x)], [1, 0]).mask, expected)
    expected[7, 9], expected[y, x] = True, False  # what was clicked is so, whatever the network says
    assert np.array_equal(session.slice_mask(_KEY), expected)
    at_once = click_model.decode(predictor._embedding, make_prompts((20, 26), [(7, 9), (y, x)], [1, 0]))
    assert not np.array_equal(expected, at_once.logits[int(at_once.scores.argmax())] > 0)


def test_a_predictor_refines_point_after_point_and_asks_once_for_each(listening: Listening) -> None:
    predictor = ImagePredictor(listening)
    image = np.zeros((20, 26), np.float32)
    image[4:12, 5:15] = 1
    predictor.set_image(image, window=(0, 1))
    points, labels = [(7, 9), (2, 9), (8, 10)], [1, 1, 0]
    first, second, third = (predictor.predict(points[:count], labels[:count]).mask for count in (1, 2, 3))
    assert len(listening.asked) == 3
    assert listening.asked[0].mask_logits is None
    for asked, before in zip(listening.asked[1:], (first, second), strict=True):
        assert np.array_equal(_to_refine(asked), refined_logits(before))

    predictor.set_image(image, window=(0, 1))  # nothing of the image before is known any more
    assert np.array_equal(predictor.predict(points, labels).mask, third)
    assert len(listening.asked) == 6
    own = np.full(image.shape, 2.0, np.float32)
    predictor.predict(points, labels, mask_logits=own)  # who gives a mask says what is refined
    assert np.array_equal(_to_refine(listening.asked[6]), own)


def test_a_predictor_takes_points_on_the_last_pixels_of_its_image(click_model: PromptableModel) -> None:
    predictor = ImagePredictor(click_model)
    predictor.set_image(np.ones((20, 26), np.float32), window=(0, 1))
    edge = (19.499999999, 25.499999999)  # 19.5 and 25.5 in float32
    assert predictor.predict([(3, 3), edge], [1, 1]).mask.shape == (20, 26)
    assert predictor.predict([edge, (-0.5, -0.5)], [1, 0]).mask.shape == (20, 26)


def test_a_point_that_agrees_with_the_answer_to_a_predictor_s_box_joins_it(listening: Listening) -> None:
    predictor = ImagePredictor(listening)
    image = np.zeros((20, 26), np.float32)
    image[4:12, 5:15] = 1
    predictor.set_image(image, window=(0, 1))
    boxed = predictor.predict(box=(4, 5, 12, 15)).mask
    assert boxed[7, 9]
    predictor.predict([(7, 9)], box=(4, 5, 12, 15))
    assert listening.asked[-1].mask_logits is None
    predictor.predict([(7, 9)], [0], box=(4, 5, 12, 15))
    assert np.array_equal(_to_refine(listening.asked[-1]), refined_logits(boxed))


def test_a_click_that_agrees_joins_those_before_it(slices: SliceModel, listening: Listening) -> None:
    inside = PointPrompt((5.0, 6.0, 8.0))
    assert _mask(slices, _BOX)[6, 8]
    _mask(slices, _BOX, inside)
    joint = listening.asked[-1]
    assert joint.mask_logits is None  # both say together what is meant
    assert joint.box is not None
    assert len(joint.points_yx) == 1

    corrected = _mask(slices, _BOX, inside, _OUTSIDE)
    refined = _to_refine(listening.asked[-1])
    agrees = PointPrompt((5.0, 18.0, 2.0), positive=False)
    assert not corrected[18, 2]
    _mask(slices, _BOX, inside, _OUTSIDE, agrees)
    assert np.array_equal(_to_refine(listening.asked[-1]), refined)


def test_a_box_a_lasso_or_a_mask_says_anew_what_is_meant(slices: SliceModel, listening: Listening) -> None:
    boxed = _mask(slices, _POINT, _BOX)
    alone = listening.asked[-1]
    assert alone.mask_logits is None
    assert alone.box is not None
    asked = len(listening.asked)

    _mask(slices, _POINT, _BOX, _OUTSIDE)

    assert len(listening.asked) == asked + 1
    assert np.array_equal(_to_refine(listening.asked[-1]), refined_logits(boxed))
    lasso = LassoPrompt(((5, 4, 5), (5, 4, 15), (5, 12, 15), (5, 12, 5)))
    _mask(slices, _POINT, lasso)
    assert np.array_equal(_to_refine(listening.asked[-1]), lasso_logits(lasso_mask(lasso, (20, 26))))
    assert listening.asked[-1].box is None  # the mask says it more exactly
    assert [refines(one) for one in (_POINT, _BOX, lasso)] == [True, False, False]
    assert refines(LassoPrompt(lasso.vertices_zyx, positive=False))
    stroke = np.zeros((20, 26), bool)
    stroke[3, 3:8] = True
    assert refines(ScribblePrompt(PackedMask.pack(stroke), 5, True, 1, 0))


def test_the_first_prompt_on_a_mask_is_given_the_mask_and_the_next_its_answer(
    slices: SliceModel, listening: Listening
) -> None:
    shape = np.zeros((20, 26), bool)
    shape[4:12, 5:10] = True
    base = MaskPrompt(PackedMask.pack(shape), 5, 1, 0)

    corrected = _mask(slices, base, _AGAIN)
    assert corrected[15, 2]
    _mask(slices, base, _AGAIN, PointPrompt((5.0, 15.0, 2.0), positive=False))

    assert [len(one.points_yx) for one in listening.asked] == [1, 2]
    assert np.array_equal(_to_refine(listening.asked[0]) > 0, shape)
    assert _to_refine(listening.asked[0]).max() == 6
    assert np.array_equal(_to_refine(listening.asked[1]), refined_logits(corrected))


def test_a_correction_of_an_edited_mask_is_given_that_mask_and_not_what_its_prompts_once_gave(
    listening: Listening, blocks: Volume
) -> None:
    session = PromptSession(listening, blocks)
    session.add_point(_INSIDE)
    session.add_point((5, 5, 6))
    session.smooth(1)
    edited = session.slice_mask(_KEY)
    y, x = (int(n) for n in np.argwhere(edited)[0])
    session.add_point((5, y, x), positive=False)

    last = listening.asked[-1]
    assert len(last.points_yx) == 3
    assert np.array_equal(_to_refine(last) > 0, edited)
    assert len(listening.asked) == 3  # the first two are not answered again


def test_other_models_are_asked_with_all_prompts_and_nothing_else(blocks: Volume) -> None:
    model = Listening(refines=False)
    slices = SliceModel(model, blocks, None, 10**8)
    _mask(slices, _POINT)
    _mask(slices, _POINT, _AGAIN)
    _mask(slices, _STROKE)
    assert [one.mask_logits for one in model.asked] == [None, None, None]


def test_a_stroke_is_given_with_what_it_covers_until_it_corrects_something(
    slices: SliceModel, listening: Listening
) -> None:
    answer = _mask(slices, _STROKE)
    assert np.array_equal(listening.asked[-1].mask_logits, stroke_logits((20, 26), [_STROKE]))
    assert len(listening.asked[-1].points_yx) >= 1
    y, x = (int(n) for n in np.argwhere(answer)[0])
    _mask(slices, _STROKE, PointPrompt((5.0, y, x), positive=False))
    assert np.array_equal(_to_refine(listening.asked[-1]), refined_logits(answer))


def test_what_the_model_was_given_is_told_as_it_was(listening: Listening, blocks: Volume) -> None:
    session = PromptSession(listening, blocks)
    assert session.asked_of_model(_KEY) is None
    session.add_point(_INSIDE)
    session.add_point(_ABOVE)
    asked = session.asked_of_model(_KEY)
    last = listening.asked[-1]
    session.add_point(_BESIDE, positive=False)  # it stays what it was when it was fetched

    assert asked is not None
    told = asked()
    assert np.array_equal(told.points_yx, last.points_yx)
    assert np.array_equal(_to_refine(told), _to_refine(last))


def test_the_answers_that_are_of_use_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    answers, mask = Answers(), np.eye(4, dtype=bool)
    answers.keep((_KEY, (_POINT,)), mask)
    for preview in (_AGAIN, _OUTSIDE, _BOX):  # as many as a hand makes, all of which refine the one answer
        found = answers.get((_KEY, (_POINT,)))
        assert found is not None
        assert np.array_equal(found, mask)
        answers.keep((_KEY, (_POINT, preview)), ~mask)
    assert answers.get((_KEY, (_POINT, _OUTSIDE))) is None
    assert answers.get((SliceKey(1, 0, 6), (_POINT,))) is None


def test_a_click_after_another_mask_was_chosen_refines_that_one(listening: Listening, blocks: Volume) -> None:
    session = PromptSession(listening, blocks)
    session.add_point(_INSIDE)
    session.choose_candidate(_KEY, 1)
    chosen = session.slice_mask(_KEY)
    second = session.add_point(_ABOVE)
    assert np.array_equal(_to_refine(listening.asked[-1]) > 0, chosen)
    session.add_point(_BESIDE, positive=False)
    answer = session.slice_mask(_KEY)

    session.undo()
    session.undo()
    assert np.array_equal(session.slice_mask(_KEY), chosen)
    session.redo()
    session.redo()
    assert np.array_equal(session.slice_mask(_KEY), answer)
    assert session.pending() == []

    # taken back one by one, what was chosen goes with the prompts that it answered
    session.predict_pending()
    for number in (second, second + 1):
        request = session.remove_prompt(number)
        assert request is not None
        session.accept(session.predict(request))
    assert session.state.slices[_KEY].picked is None
    assert listening.asked[-1].mask_logits is None
    session.remove_prompt(1)
    assert not session.labels.any()


def test_a_prompt_that_was_moved_takes_the_choice_of_its_masks_along(listening: Listening, blocks: Volume) -> None:
    session = PromptSession(listening, blocks)
    first = session.add_point(_INSIDE)
    session.choose_candidate(_KEY, 2)
    second = session.add_point(_ABOVE)
    session.accept(session.predict(session.move_prompt(second, PointPrompt((5.0, 3.0, 9.0)))))
    assert session.state.slices[_KEY].picked is not None
    session.accept(session.predict(session.move_prompt(first, PointPrompt((5.0, 8.0, 9.0)))))
    assert session.state.slices[_KEY].picked is None


def test_a_preview_asks_what_the_click_would(listening: Listening, blocks: Volume) -> None:
    session = PromptSession(listening, blocks)
    session.import_mask(blocks.data == 100, 1, 0)  # a mask that the click corrects
    revision = session.revision
    preview = session.request_with(_POINT)
    assert session.revision == revision
    assert session.prompts == {}
    assert preview.prompts == session.add_prompt(_POINT).prompts
    assert [type(one) for one in preview.prompts] == [MaskPrompt, PointPrompt]
