"""Propagation: from prompted slices to the end of the object on both sides, and no further."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import ndimage

from napari_medtransformer.errors import InvalidPrompt
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.progress import Partial, Progress, Result, run_to_end
from napari_medtransformer.prompting import PointPrompt, PromptSession
from napari_medtransformer.prompting.propagation import Propagation
from napari_medtransformer.volumes import Volume

WINDOW = (0.0, 100.0)


@pytest.fixture
def session(region_model: PromptableModel, blocks: Volume) -> PromptSession:
    return PromptSession(region_model, blocks, window=WINDOW)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("where", [(3, 4, 5), (5, 8, 10), (8, 11, 14)])
def test_a_cuboid_is_followed_to_its_ends_across_each_axis(
    session: PromptSession, blocks: Volume, axis: int, where: tuple[int, int, int]
) -> None:
    session.add_point(where, axis=axis)
    run_to_end(session.propagate())
    assert np.array_equal(session.labels == 1, blocks.data == 100)


def test_an_object_that_moves_from_slice_to_slice_is_followed(region_model: PromptableModel) -> None:
    data = np.zeros((30, 60, 60), np.int16)
    for z in range(4, 25):
        data[z, 2 + z : 14 + z, 30 - z // 2 : 42 - z // 2] = 100
    data[:, 50:58, 2:10] = 100  # the same intensity elsewhere
    session = PromptSession(region_model, Volume(data, np.eye(4)), window=WINDOW)
    session.add_point((4, 10, 33))
    run_to_end(session.propagate())
    assert np.array_equal(session.labels == 1, ndimage.label(data)[0] == ndimage.label(data)[0][4, 10, 33])


def test_every_slice_is_told_and_the_result_comes_last(session: PromptSession) -> None:
    session.add_point((5, 8, 10))
    steps = list(session.propagate())
    reached = [step.value.key.index for step in steps if isinstance(step, Partial)]
    assert sorted(reached) == [3, 4, 6, 7, 8]
    assert isinstance(steps[-1], Result)
    assert sorted(steps[-1].value.masks) == [3, 4, 6, 7, 8]
    done = [step.done for step in steps if isinstance(step, Progress)]
    assert done == sorted(done)


def test_between_two_prompted_slices_a_gap_is_filled_by_both_sides(region_model: PromptableModel) -> None:
    data = np.zeros((20, 30, 30), np.int16)
    data[2:18, 8:20, 8:20] = 100
    session = PromptSession(region_model, Volume(data, np.eye(4)), window=WINDOW)
    session.add_point((4, 10, 10))
    session.add_point((15, 10, 10))
    run_to_end(session.propagate())
    assert np.array_equal(session.labels == 1, data == 100)


def test_prompted_slices_keep_their_own_mask(session: PromptSession) -> None:
    session.add_point((5, 8, 10))
    session.add_point((7, 8, 10))
    session.add_point((7, 8, 20))  # this slice takes the other cuboid as well
    seventh = session.labels[7]
    run_to_end(session.propagate())
    assert np.array_equal(session.labels[7], seventh)


def test_a_correction_and_a_second_propagation_replace_the_first(session: PromptSession, blocks: Volume) -> None:
    session.add_point((5, 8, 20))
    run_to_end(session.propagate())
    assert np.array_equal(session.labels == 1, blocks.data == 60)
    session.add_point((5, 8, 10))
    session.add_point((5, 8, 20), positive=False)
    run_to_end(session.propagate())
    assert np.array_equal(session.labels == 1, blocks.data == 100)


def test_steps_change_nothing_and_a_stale_result_is_dropped(session: PromptSession) -> None:
    session.add_point((5, 8, 10))
    before = session.state
    value = run_to_end(session.propagation_steps(1))
    assert isinstance(value, Propagation)
    assert session.state is before
    assert session.accept_propagation(value)
    session.undo()
    session.add_point((6, 8, 10))
    labels = session.labels
    assert session.accept_propagation(value) is False
    assert np.array_equal(session.labels, labels)


def test_a_propagation_predicts_what_was_pending(session: PromptSession, blocks: Volume) -> None:
    session.add_prompt(PointPrompt((5.0, 8.0, 10.0)))
    run_to_end(session.propagate())
    assert session.pending() == []
    assert np.array_equal(session.labels == 1, blocks.data == 100)


def test_a_propagation_that_is_closed_leaves_no_trace(session: PromptSession) -> None:
    session.add_point((5, 8, 10))
    before = session.labels
    steps = session.propagate()
    next(steps)
    steps.close()
    assert np.array_equal(session.labels, before)


def test_an_object_without_prompts_cannot_be_propagated(session: PromptSession) -> None:
    with pytest.raises(InvalidPrompt, match="object 1 has no prompts"):
        session.propagate()
    session.add_point((5, 8, 10), axis=1)
    with pytest.raises(InvalidPrompt, match="object 1 has no prompts"):
        session.propagate(axis=0)


def test_a_volume_without_the_object_elsewhere_stays_empty_elsewhere(region_model: PromptableModel) -> None:
    data = np.zeros((9, 20, 20), np.int16)
    data[4, 5:15, 5:15] = 100
    session = PromptSession(region_model, Volume(data, np.eye(4)), window=WINDOW)
    session.add_point((4, 10, 10))
    run_to_end(session.propagate())
    assert np.array_equal(session.labels == 1, data == 100)


def test_a_real_network_is_followed_slice_by_slice_in_time(click_model: PromptableModel, blocks: Volume) -> None:
    session = PromptSession(click_model, blocks)
    session.add_box((5, 4, 5), (5, 12, 15))
    begun = time.perf_counter()
    value = run_to_end(session.propagate())
    assert isinstance(value, Propagation)
    assert all(mask.shape == (20, 26) for mask in value.masks.values())
    assert time.perf_counter() - begun < 20  # twelve slices of a tiny network: only a runaway loop takes longer
