"""Undo: any sequence of steps and as many undos give the beginning, redo the end, bit for bit."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_medtransformer.errors import InvalidPrompt, PointOutsideVolume
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.progress import run_to_end
from napari_medtransformer.prompting import BoxPrompt, PointPrompt, PromptSession
from napari_medtransformer.prompting.history import History
from napari_medtransformer.prompting.timeline import Timeline
from napari_medtransformer.volumes import Volume

SHAPE = (12, 20, 26)


@given(st.lists(st.integers(), max_size=30), st.data())
def test_a_history_is_a_line_one_walks_along(values: list[int], data: st.DataObject) -> None:
    history = History(-1)
    for value in values:
        history.push(value)
    line, at = [-1, *values], len(values)
    for step in data.draw(st.lists(st.sampled_from([-1, 1]), max_size=60)):
        moved = history.undo() if step < 0 else history.redo()
        assert moved is (0 <= at + step < len(line))
        at = min(max(at + step, 0), len(line) - 1)
        assert history.present == line[at]
        assert (history.can_undo, history.can_redo) == (at > 0, at < len(values))


def position(number: int) -> tuple[float, float, float]:
    z, y, x = np.unravel_index(number % int(np.prod(SHAPE)), SHAPE)
    return float(z), float(y), float(x)


def act(session: PromptSession, kind: int, a: int, b: int) -> None:
    """One change of a session, chosen by three numbers; what cannot be done in its state is left."""
    object_id, axis = 1 + a % 3, b % 3
    prompts = session.prompts
    chosen = sorted(prompts)[a % len(prompts)] if prompts else None
    if kind == 0:
        session.add_point(position(a), positive=bool(b % 4), object_id=object_id, axis=axis)
    elif kind == 1:
        start = np.array(position(a))
        stop = np.minimum(start + 1 + b % 9, SHAPE)
        start[axis] = stop[axis] = min(start[axis], SHAPE[axis] - 1)
        session.add_box(tuple(start), tuple(stop), object_id=object_id, axis=axis)
    elif kind == 2 and chosen is not None:
        request = session.remove_prompt(chosen)
        if request is not None:
            session.accept(session.predict(request))
    elif kind == 3 and chosen is not None:
        request = session.move_prompt(chosen, PointPrompt(position(b), object_id=object_id, axis=axis))
        session.accept(session.predict(request))
        session.predict_pending()
    elif kind == 4 and prompts:
        key = list(prompts.values())[b % len(prompts)].key
        session.cycle_candidate(key)
    elif kind == 5 and session.objects:
        one = session.objects[a % len(session.objects)].object_id
        [session.remove_object, session.clear_object, lambda n: session.rename_object(n, f"object {b}")][b % 3](one)
    elif kind == 6:
        session.new_object(f"object {a}")
    elif kind == 7 and any(prompt.object_id == object_id for prompt in prompts.values()):
        run_to_end(session.propagate(object_id))
    elif kind == 8:
        shape = tuple(n for i, n in enumerate(SHAPE) if i != axis)
        stroke = np.zeros(shape, bool)
        y, x = a % shape[0], b % shape[1]
        stroke[y : y + 2, x : x + 1 + a % 7] = True
        index = a % SHAPE[axis]
        session.add_scribble(stroke, axis=axis, index=index, positive=bool(b % 4), object_id=object_id)
    elif kind == 9:
        corners = np.array([position(a)] * 4)
        rows, columns = (i for i in range(3) if i != axis)
        corners[:, rows] += (0, 0, 4, 4)
        corners[:, columns] += (0, 5, 5, 0)
        session.add_lasso([tuple(c) for c in corners], positive=bool(b % 3), object_id=object_id, axis=axis)
    elif kind == 10 and session.objects:
        one = session.objects[a % len(session.objects)].object_id
        steps = [session.smooth, session.keep_largest, session.close_holes, session.fill_between]
        with contextlib.suppress(InvalidPrompt):  # no mask, or no two prompted slices
            steps[b % 4](one)
    elif kind == 11:
        mask = np.zeros(SHAPE, bool)
        z, y, x = (int(p) for p in position(a))
        mask[z : z + 3, y : y + 5, x : x + 4] = True
        session.import_mask(mask, object_id, axis)
    elif kind == 12 and session.objects:
        one = session.objects[a % len(session.objects)].object_id
        steps = [lambda n: session.move_object(n, 1 - b % 3), lambda n: session.class_object(n, f"class {b % 5}")]
        steps[b % 2](one)
    elif kind == 13 and chosen is not None:
        with contextlib.suppress(PointOutsideVolume, InvalidPrompt):  # moved out of the volume
            request = session.shift_prompt(chosen, (a % 3 - 1, b % 5 - 2, a % 5 - 2))
            session.accept(session.predict(request))
            session.predict_pending()


def seen(session: PromptSession) -> tuple[Any, ...]:
    return session.state, session.prompts, session.objects, session.labels.tobytes()


def counted_ml(session: PromptSession) -> dict[int, float]:
    """What counting all voxels gives."""
    numbers, counts = np.unique(session.labels, return_counts=True)
    voxel = float(np.prod(session.volume.spacing)) / 1000
    return {int(number): voxel * int(count) for number, count in zip(numbers, counts, strict=True) if number}


STEPS = st.tuples(st.integers(0, 13), st.integers(0, 10**6), st.integers(0, 10**6))


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_any_steps_and_as_many_undos_give_the_beginning_and_redos_the_end(
    make_region_model: Callable[[], PromptableModel], blocks: Volume, steps: list[tuple[int, int, int]]
) -> None:
    walk(PromptSession(make_region_model(), blocks, window=(0, 100)), steps)


def walk(session: PromptSession, steps: list[tuple[int, int, int]]) -> int:
    """Do the steps, take all of them back and do them again, comparing every moment; returns how many there were."""
    moments = [seen(session)]
    for step in steps:
        painted, before = session.painted, session.labels
        act(session, *step)
        assert session.volumes_ml == counted_ml(session)
        assert (session.painted != painted) or np.array_equal(session.labels, before)
        if session.state != moments[-1][0]:
            moments.append(seen(session))
    for moment in reversed(moments[:-1]):
        session.undo()
        assert seen(session) == moment
        assert session.volumes_ml == counted_ml(session)
    assert not session.can_undo
    assert session.undo() == []
    for moment in moments[1:]:
        session.redo()
        assert seen(session) == moment
    assert not session.can_redo
    return len(moments) - 1


def test_a_thousand_random_steps_are_undone_and_redone(region_model: PromptableModel, blocks: Volume) -> None:
    dice = random.Random(11)
    kinds = (0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 10, 10, 11, 12, 13)
    steps = [(dice.choice(kinds), dice.randrange(10**6), dice.randrange(10**6)) for _ in range(1000)]
    assert walk(PromptSession(region_model, blocks, window=(0, 100)), steps) > 800


def test_the_labels_after_many_steps_are_those_of_a_session_that_only_has_the_end(
    region_model: PromptableModel, blocks: Volume
) -> None:
    """The repainted slices add up to what painting everything at once gives."""
    dice = random.Random(5)
    session = PromptSession(region_model, blocks, window=(0, 100))
    for _ in range(60):
        act(
            session, dice.choice((0, 0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13)), dice.randrange(10**6), dice.randrange(10**6)
        )
    masks = session._timeline.masks()
    expected = np.zeros(SHAPE, np.uint16)
    for one in session.objects:
        own = np.zeros(SHAPE, bool)
        for key, (_, mask) in sorted(masks.items(), key=lambda item: (item[1][0], item[0])):
            if key.object_id == one.object_id:
                own[(slice(None),) * key.axis + (key.index,)] = mask.unpack()
        expected[own] = one.object_id
    assert np.array_equal(session.labels, expected)


def test_a_new_step_after_undo_forgets_what_was_undone(region_model: PromptableModel, blocks: Volume) -> None:
    session = PromptSession(region_model, blocks, window=(0, 100))
    session.add_point((5, 8, 10))
    session.undo()
    session.add_point((5, 8, 20))
    assert not session.can_redo
    before = session.labels
    assert session.redo() == []
    assert np.array_equal(session.labels, before)


def test_boxes_and_points_keep_their_numbers_over_undo(region_model: PromptableModel, blocks: Volume) -> None:
    session = PromptSession(region_model, blocks, window=(0, 100))
    point = session.add_point((5, 8, 10))
    box = session.add_prompt(BoxPrompt((5.0, 4.0, 5.0), (5.0, 12.0, 15.0))).prompt_id
    session.undo()
    session.redo()
    assert list(session.prompts) == [point, box]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_undo_of_a_propagation_is_one_step(region_model: PromptableModel, blocks: Volume, axis: int) -> None:
    session = PromptSession(region_model, blocks, window=(0, 100))
    session.add_point((5, 8, 10), axis=axis)
    before = session.labels
    run_to_end(session.propagate(1))
    assert session.labels.sum() > before.sum()
    session.undo()
    assert np.array_equal(session.labels, before)


def test_old_steps_lie_on_disk_when_memory_is_short_and_come_back_bit_for_bit(
    region_model: PromptableModel, blocks: Volume
) -> None:
    dice = random.Random(7)
    session = PromptSession(region_model, blocks, window=(0, 100))
    session._timeline = Timeline(blocks.shape, budget_bytes=20_000)
    steps = [(dice.choice((0, 0, 1, 8, 10, 11, 13)), dice.randrange(10**6), dice.randrange(10**6)) for _ in range(150)]
    assert walk(session, steps) > 100
    assert session._timeline.bytes_in_memory < 2 * 20_000 + 20_000  # two budgets, and one step may be larger


def test_a_thousand_steps_cost_megabytes_not_gigabytes(region_model: PromptableModel) -> None:
    volume = Volume(np.zeros((1, 512, 512), np.int16), np.eye(4))
    session = PromptSession(region_model, volume, window=(0, 100))
    rng = np.random.default_rng(0)
    for _ in range(60):
        mask = ndimage.gaussian_filter(rng.normal(size=(512, 512)), 40) > 0
        session.import_mask(mask[None])
    assert session._timeline.bytes_in_memory / 60 < 20_000  # bytes a step: 20 MB per thousand, of 262 MB as arrays


def test_a_prompt_without_an_answer_paints_nothing(region_model: PromptableModel, blocks: Volume) -> None:
    session = PromptSession(region_model, blocks, window=(0, 100))
    session.add_point((5, 8, 10))
    revision, painted = session.revision, session.painted
    request = session.add_prompt(PointPrompt((5.0, 8.0, 20.0)))
    assert session.revision > revision
    assert session.painted == painted
    session.accept(session.predict(request))
    assert session.painted > painted
