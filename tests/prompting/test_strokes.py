"""Scribbles and lassos: what models are given of them, and what no model may contradict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medtransformer.errors import InvalidPrompt
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.prompting import LassoPrompt, PromptSession, ScribblePrompt
from napari_medtransformer.prompting.masks import PackedMask
from napari_medtransformer.prompting.model_prompts import (
    MASK_LOGIT,
    honour,
    lasso_mask,
    model_prompts,
    stroke_logits,
    stroke_points,
)
from napari_medtransformer.prompting.prompts import BoxPrompt, MaskPrompt, PointPrompt, moved
from napari_medtransformer.prompting.refining import REFINED_LOGIT
from napari_medtransformer.volumes import Volume

SHAPE = (40, 50)


@given(st.lists(st.tuples(st.integers(0, 39), st.integers(0, 49)), min_size=1, max_size=60), st.integers(1, 8))
def test_points_of_a_stroke_lie_on_it_apart_from_each_other_and_are_few(
    pixels: list[tuple[int, int]], most: int
) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(np.transpose(pixels))] = True
    points = stroke_points(mask, most)
    assert 1 <= len(points) <= most
    assert all(mask[int(y), int(x)] for y, x in points)
    apart = [np.hypot(a[0] - b[0], a[1] - b[1]) for i, a in enumerate(points) for b in points[:i]]
    assert all(distance >= 6 for distance in apart)


def test_a_long_stroke_gives_points_along_its_middle() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[18:23, 4:46] = True
    points = stroke_points(mask)
    assert len(points) >= 4
    assert all(19 <= y <= 21 for y, _ in points)
    columns = sorted(x for _, x in points)
    assert columns[0] < 10
    assert columns[-1] > 40


def test_a_lasso_is_a_box_a_point_and_its_inside_as_a_hint() -> None:
    lasso = LassoPrompt(((3, 5, 10), (3, 5, 30), (3, 25, 30), (3, 25, 10)))
    prompts = model_prompts(SHAPE, [lasso])
    assert prompts.box == (5, 10, 26, 31)
    assert len(prompts.points_yx) == 1
    assert prompts.mask_logits is not None
    inside = lasso_mask(lasso, SHAPE)
    assert np.array_equal(prompts.mask_logits > 0, inside)
    assert inside.sum() == 21 * 21
    assert prompts.point_labels.tolist() == [1]
    without = model_prompts(SHAPE, [BoxPrompt((3, 0, 0), (3, 9, 9)), lasso], boxed_lassos=False)
    assert without.box is None
    assert without.mask_logits is not None
    assert np.array_equal(without.mask_logits, np.where(inside, REFINED_LOGIT, -MASK_LOGIT))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_painted_pixels_are_in_the_mask_or_out_of_it_in_every_plane(
    region_model: PromptableModel, blocks: Volume, axis: int
) -> None:
    session = PromptSession(region_model, blocks, window=(0, 100))
    shape = tuple(n for a, n in enumerate(blocks.shape) if a != axis)
    index = (5, 8, 10)[axis]
    painted, erased = np.zeros(shape, bool), np.zeros(shape, bool)
    painted[4:6, 6:16] = True
    erased[5:8, 8:10] = True
    session.add_scribble(painted, axis=axis, index=index)
    on_slice = np.take(session.labels, index, axis) == 1
    assert on_slice[painted].all()
    session.add_scribble(erased, axis=axis, index=index, positive=False)
    on_slice = np.take(session.labels, index, axis) == 1
    assert not on_slice[erased].any()
    session.undo()
    assert np.take(session.labels, index, axis)[painted].all()


def test_all_within_a_lasso_around_what_is_not_the_object_is_taken_out(
    region_model: PromptableModel, blocks: Volume
) -> None:
    session = PromptSession(region_model, blocks, window=(0, 100))
    session.add_point((5, 8, 10))
    lasso = [(5, 3, 9), (5, 3, 13), (5, 7, 13), (5, 7, 9)]
    number = session.add_lasso(lasso, positive=False)
    assert not session.labels[5, 4:7, 10:13].any()
    request = session.shift_prompt(number, (0, 4, 0))
    session.accept(session.predict(request))
    assert not session.labels[5, 8:11, 10:13].any()


@settings(max_examples=50)
@given(st.integers(0, 39), st.integers(0, 49), st.booleans(), st.floats(-9, 9))
def test_a_clicked_pixel_is_what_it_was_said_to_be(y: int, x: int, positive: bool, logit: float) -> None:
    logits = np.full((3, *SHAPE), np.float32(logit))
    after = honour(logits, [PointPrompt((0.0, float(y), float(x)), positive)])
    assert ((after[:, y, x] > 0) == positive).all()
    others = np.ones(SHAPE, bool)
    others[y, x] = False
    assert np.array_equal(after[:, others], logits[:, others])
    assert (logits == np.float32(logit)).all()


def test_prompts_of_every_kind_can_be_shifted() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[10:12, 20:25] = True
    packed = PackedMask.pack(mask)
    by = (2.0, -3.0, 4.0)
    assert moved(PointPrompt((1.0, 5.0, 5.0)), by) == PointPrompt((3.0, 2.0, 9.0))
    assert moved(BoxPrompt((1.0, 5.0, 5.0), (1.0, 8.0, 9.0)), by) == BoxPrompt((3.0, 2.0, 9.0), (3.0, 5.0, 13.0))
    stroke = moved(ScribblePrompt(packed, 1), by)
    assert isinstance(stroke, ScribblePrompt)
    assert stroke.index == 3
    assert np.array_equal(stroke.pixels.unpack(), np.roll(mask, (-3, 4), (0, 1)))
    away = moved(MaskPrompt(packed, 1), (0.0, 100.0, 0.0))
    assert isinstance(away, MaskPrompt)
    assert not away.mask.unpack().any()


def test_strokes_and_lassos_that_are_none_are_refused(region_model: PromptableModel, blocks: Volume) -> None:
    session = PromptSession(region_model, blocks)
    with pytest.raises(InvalidPrompt, match="no pixel"):
        session.add_scribble(np.zeros((20, 26), bool), axis=0, index=5)
    with pytest.raises(InvalidPrompt, match="at least three"):
        session.add_lasso([(5, 1, 1), (5, 2, 2)])
    with pytest.raises(InvalidPrompt, match="several slices"):
        session.add_lasso([(5, 1, 1), (5, 2, 2), (6, 3, 1)])
    with pytest.raises(InvalidPrompt, match="shape"):
        session.add_scribble(np.ones((3, 3), bool), axis=0, index=5)
    assert session.objects == ()


def test_a_mask_stays_within_the_lasso_around_it_until_something_is_said_beyond() -> None:
    lasso = LassoPrompt(((3, 5, 10), (3, 5, 30), (3, 25, 30), (3, 25, 10)))
    inside = lasso_mask(lasso, SHAPE)
    everything = np.full((2, *SHAPE), np.float32(4))
    assert np.array_equal(honour(everything, [lasso]) > 0, np.stack([inside] * 2))
    # what agrees with it changes nothing
    within, without = PointPrompt((3, 10, 20)), PointPrompt((3, 35, 40), positive=False)
    assert np.array_equal(honour(everything, [lasso, within, without]) > 0, np.stack([inside] * 2))

    beyond = PointPrompt((3, 35, 40))
    assert (honour(everything, [lasso, beyond]) > 0).all()
    assert not (honour(everything, [beyond, lasso]) > 0)[:, 35, 40].any()  # the lasso came later
    stroke = np.zeros(SHAPE, bool)
    stroke[30:32, 5:20] = True
    assert (honour(everything, [lasso, ScribblePrompt(PackedMask.pack(stroke), 3)]) > 0).all()
    assert (honour(everything, [lasso, BoxPrompt((3, 2, 2), (3, 30, 40))]) > 0).all()
    # a mask that was chosen among those within it is not beyond it
    chosen = MaskPrompt(PackedMask.pack(inside), 3)
    assert np.array_equal(honour(everything, [lasso, chosen, within])[0] > 0, inside)
    assert (honour(everything, [lasso, MaskPrompt(PackedMask.pack(~inside), 3)]) > 0).all()
    smaller = LassoPrompt(((3, 8, 12), (3, 8, 20), (3, 20, 20), (3, 20, 12)))
    assert np.array_equal(honour(everything, [lasso, smaller])[0] > 0, lasso_mask(smaller, SHAPE))


def test_what_was_painted_over_is_told_as_a_mask_with_a_pixel_around_it() -> None:
    stroke, away = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    stroke[10, 10:20] = True
    away[30, 10:20] = True
    given = [ScribblePrompt(PackedMask.pack(stroke), 3), ScribblePrompt(PackedMask.pack(away), 3, positive=False)]
    logits = stroke_logits(SHAPE, given)
    assert logits is not None
    expected = np.zeros(SHAPE, bool)
    expected[9:12, 10:20] = expected[10, 9:21] = True
    assert np.array_equal(logits > 0, expected)
    assert set(np.unique(logits)) == {-REFINED_LOGIT, MASK_LOGIT}  # of what is elsewhere a stroke says less
    assert stroke_logits(SHAPE, [PointPrompt((3, 10, 20)), given[1]]) is None
