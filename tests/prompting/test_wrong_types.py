"""Whatever a session or a predictor is given of another type is one error of this package, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from region_model import RegionModel
from wrong_values import WRONG, assert_refused

from napari_medtransformer.errors import MedTransformerError
from napari_medtransformer.prompting import (
    BoxPrompt,
    EmbeddingStore,
    ImagePredictor,
    LassoPrompt,
    MaskPrompt,
    PointPrompt,
    PromptSession,
    ScribblePrompt,
    SliceKey,
)
from napari_medtransformer.prompting.masks import PackedMask
from napari_medtransformer.prompting.prompts import check_slice

STROKE = np.eye(20, 26, dtype=bool)
KEY = SliceKey(1, 0, 5)
OUTLINE = [(5, 2, 3), (5, 9, 3), (5, 9, 12)]

# Each takes a session with an object 1 on slices 5 and 7, and something wrong. Which of WRONG is right there: after it.
CALLS = {
    "point": (lambda s, x: s.add_point(x), ""),
    "point's sign": (lambda s, x: s.add_point((5, 8, 10), positive=x), ""),
    "point's object": (lambda s, x: s.add_point((5, 8, 10), object_id=x), ""),
    "point's axis": (lambda s, x: s.add_point((5, 8, 10), axis=x), ""),
    "box's start": (lambda s, x: s.add_box(x, (5, 9, 9)), ""),
    "box's stop": (lambda s, x: s.add_box((5, 2, 2), x), ""),
    "scribble": (lambda s, x: s.add_scribble(x, axis=0, index=5), ""),
    "scribble's slice": (lambda s, x: s.add_scribble(STROKE, axis=0, index=x), ""),
    "scribble's sign": (lambda s, x: s.add_scribble(STROKE, axis=0, index=5, positive=x), ""),
    "lasso": (lambda s, x: s.add_lasso(x), ""),
    "lasso's sign": (lambda s, x: s.add_lasso(OUTLINE, positive=x), ""),
    "mask": (lambda s, x: s.add_mask(x, axis=0, index=5), ""),
    "mask's axis": (lambda s, x: s.add_mask(STROKE, axis=x, index=5), ""),
    "prompt": (lambda s, x: s.add_prompt(x), ""),
    "prompt removed": (lambda s, x: s.remove_prompt(x), ""),
    "prompt moved": (lambda s, x: s.move_prompt(x, PointPrompt((5, 8, 9))), ""),
    "prompt moved to": (lambda s, x: s.move_prompt(1, x), ""),
    "prompt shifted": (lambda s, x: s.shift_prompt(1, x), ""),
    "where a prompt is": (lambda s, x: s.key_of(x), ""),
    "request": (lambda s, x: s.predict(x), ""),
    "outcome": (lambda s, x: s.accept(x), ""),
    "prompts on a slice": (lambda s, x: s.prompts_at(x), ""),
    "mask on a slice": (lambda s, x: s.slice_mask(x), ""),
    "candidates": (lambda s, x: s.candidates(x), ""),
    "candidate": (lambda s, x: s.choose_candidate(KEY, x), ""),
    "candidate's slice": (lambda s, x: s.choose_candidate(x, 0), ""),
    "next candidate": (lambda s, x: s.cycle_candidate(x), ""),
    "listener": (lambda s, x: s.subscribe(x), "type"),
    "new object": (lambda s, x: s.new_object(x), "None text"),
    "new object's class": (lambda s, x: s.new_object(class_name=x), "text"),
    "object": (lambda s, x: s.object(x), ""),
    "name": (lambda s, x: s.rename_object(1, x), "text"),
    "class": (lambda s, x: s.class_object(1, x), "text"),
    "colour": (lambda s, x: s.colour_object(1, x), ""),
    "order": (lambda s, x: s.order_objects(x), ""),
    "object that moves": (lambda s, x: s.move_object(x, 1), ""),
    "how far it moves": (lambda s, x: s.move_object(1, x), ""),
    "object cleared": (lambda s, x: s.clear_object(x), ""),
    "object removed": (lambda s, x: s.remove_object(x), ""),
    "object's mask": (lambda s, x: s.object_mask(x), ""),
    "measured object": (lambda s, x: s.statistics(x), "None"),
    "edit": (lambda s, x: s.edit(x), ""),
    "edit that is taken in": (lambda s, x: s.accept_edit(x), ""),
    "filled across": (lambda s, x: s.fill_between(1, axis=x), "None"),
    "smoothed object": (lambda s, x: s.smooth(x), ""),
    "smoothing": (lambda s, x: s.smooth(sigma_mm=x), "None"),
    "largest part": (lambda s, x: s.keep_largest(x), ""),
    "holes across": (lambda s, x: s.close_holes(1, axis=x), "None"),
    "imported mask": (lambda s, x: s.import_mask(x), ""),
    "imported object": (lambda s, x: s.import_mask(s.volume.data > 80, x), ""),
    "imported across": (lambda s, x: s.import_mask(s.volume.data > 80, 1, x), ""),
    "slices encoded": (lambda s, x: list(s.prefetch(0, x)), "bytes"),
    "encoded across": (lambda s, x: list(s.prefetch(x, [3])), ""),
    "encoded around": (lambda s, x: list(s.prefetch_around(0, x)), ""),
    "encoded as far as": (lambda s, x: list(s.prefetch_around(0, 5, x)), "None"),
    "encoded slice": (lambda s, x: s.is_encoded(0, x), ""),
    "followed object": (lambda s, x: list(s.propagate(x)), ""),
    "followed across": (lambda s, x: list(s.propagate(1, x)), "None"),
    "followed afresh": (lambda s, x: list(s.propagate(1, 0, x)), ""),
    "propagation": (lambda s, x: s.accept_propagation(x), ""),
    "model": (lambda s, x: s.switch_model(x), ""),
    "window": (lambda s, x: s.set_window(x), ""),
    "predicted anew": (lambda s, x: s.switch_model(s.model, repredict=x), ""),
    "cluster": (lambda s, x: s.use(x), "None"),
    "saved as": (lambda s, x: s.save(x), "text"),
}

MADE = {
    "session's model": (lambda v, x: PromptSession(x, v), ""),
    "session's volume": (lambda v, x: PromptSession(RegionModel(), x), ""),
    "session's window": (lambda v, x: PromptSession(RegionModel(), v, window=x), "None"),
    "session's memory": (lambda v, x: PromptSession(RegionModel(), v, embeddings_bytes=x), ""),
    "session's store": (lambda v, x: PromptSession(RegionModel(), v, store=x), "None"),
    "session's part": (lambda v, x: PromptSession(RegionModel(), v, part=x), "text"),
    "saved session": (lambda v, x: PromptSession.load(x, RegionModel(), v), ""),
    "kept session": (lambda v, x: PromptSession.recover(x, RegionModel(), v), ""),
    "store's folder": (lambda v, x: EmbeddingStore(x), "None text"),
    "store's size": (lambda v, x: EmbeddingStore(budget_bytes=x), ""),
    "predictor's model": (lambda v, x: ImagePredictor(x), ""),
    "point": (lambda v, x: PointPrompt(x), ""),
    "box": (lambda v, x: BoxPrompt((1, 2, 3), x), ""),
    "outline": (lambda v, x: LassoPrompt(x), ""),
    "mask": (lambda v, x: MaskPrompt(x, 5), ""),
    "mask's slice": (lambda v, x: MaskPrompt(PackedMask.pack(STROKE), x), ""),
    "stroke": (lambda v, x: ScribblePrompt(x, 5), ""),
    "stroke's sign": (lambda v, x: ScribblePrompt(PackedMask.pack(STROKE), 5, x), ""),
    "slice of an object": (lambda v, x: SliceKey(x, 0, 5), ""),
    "slice across": (lambda v, x: SliceKey(1, x, 5), ""),
    "slice's index": (lambda v, x: SliceKey(1, 0, x), ""),
}


@pytest.mark.parametrize("called", CALLS)
def test_a_session_refuses_what_is_of_another_type(called: str, blocks, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    session = PromptSession(RegionModel(), blocks, window=(0.0, 100.0))
    session.add_point((5, 8, 10))
    session.add_point((7, 8, 10))
    before = session.state, session.revision
    call, right = CALLS[called]
    assert_refused(lambda x: call(session, x), right)
    assert (session.state, session.revision) == before


@pytest.mark.parametrize("made", MADE)
def test_nothing_is_made_of_what_is_of_another_type(made: str, blocks) -> None:
    make, right = MADE[made]
    assert_refused(lambda x: make(blocks, x), right)


@pytest.mark.parametrize("candidate", [*WRONG.values(), -1, 3])
def test_a_prediction_has_no_other_candidates(blocks, candidate) -> None:
    predictor = ImagePredictor(RegionModel())
    predictor.set_image(blocks.data[5], window=(0, 100))
    prediction = predictor.predict(points=[(8, 10)])
    assert len(prediction.scores) == 3
    with pytest.raises(MedTransformerError, match=r"a candidate's number is a whole number from 0 to 2, not"):
        prediction.choose(candidate)


@pytest.mark.parametrize("axis, index", [(0, -1), (0, 12), (1, 20), (2, -26), (3, 0), (-1, 0)])
def test_a_slice_beside_the_volume_has_no_mask(blocks, axis: int, index: int) -> None:
    with pytest.raises(MedTransformerError, match="outside the volume|slices lie across"):
        check_slice(SliceKey(1, axis, index), blocks.shape)
    with pytest.raises(MedTransformerError):
        PromptSession(RegionModel(), blocks).slice_mask(SliceKey(1, axis, index))


def test_numbers_of_other_libraries_are_numbers(blocks) -> None:
    session = PromptSession(RegionModel(), blocks, window=(0.0, 100.0))
    session.add_point(torch.tensor([5, 8, 10]), positive=np.True_, object_id=np.int64(1), axis=torch.tensor(0))
    session.add_lasso(np.array(OUTLINE), positive=np.bool_(False))
    session.choose_candidate(SliceKey(np.uint8(1), torch.tensor(0), 5), np.int8(2))
    session.smooth(np.int16(1), sigma_mm=torch.tensor(1.5))
    assert [prompt.positive for prompt in session.prompts.values()] == [True, False]
    assert session.prompts[1] == PointPrompt((5.0, 8.0, 10.0))
