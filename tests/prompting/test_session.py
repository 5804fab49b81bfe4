"""PromptSession: what a click does to the labels, in three planes, with many objects, at once and in a worker."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import small_sam

from napari_medtransformer.errors import InvalidPrompt, PointOutsideVolume, UnsupportedModel
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.prompting import BoxPrompt, PointPrompt, PromptSession, SliceKey
from napari_medtransformer.volumes import Volume

WINDOW = (0.0, 100.0)


@pytest.fixture
def session(region_model: PromptableModel, blocks: Volume) -> PromptSession:
    return PromptSession(region_model, blocks, window=WINDOW)


def expected(volume: Volume, value: int, where: tuple[Any, ...], label: int = 1) -> np.ndarray:
    """The labels when the object of `value` is painted on `where` only."""
    labels = np.zeros(volume.shape, np.uint16)
    labels[where] = np.where(volume.data[where] == value, label, 0)
    return labels


@pytest.mark.parametrize(
    ("axis", "where"),
    [(0, (5, slice(None), slice(None))), (1, (slice(None), 8, slice(None))), (2, (slice(None), slice(None), 10))],
)
def test_a_click_paints_the_object_on_that_slice_of_each_plane(
    session: PromptSession, blocks: Volume, axis: int, where: tuple[Any, ...]
) -> None:
    session.add_point((5, 8, 10), axis=axis)
    assert session.labels.dtype == np.uint16
    assert np.array_equal(session.labels, expected(blocks, 100, where))


def test_slices_are_encoded_once_in_their_true_proportions(session: PromptSession, region_model: Any) -> None:
    session.add_point((5, 8, 10))
    session.add_point((5, 8, 20))
    session.add_point((5, 8, 10), axis=2)
    assert region_model.encoded == [((20, 26), (1.0, 1.0)), ((12, 20), (2.0, 1.0))]


def test_a_second_click_corrects_the_first(session: PromptSession, blocks: Volume) -> None:
    session.add_point((5, 8, 10))
    session.add_point((5, 8, 20))
    assert np.array_equal(session.labels[5] > 0, blocks.data[5] > 0)
    session.add_point((5, 5, 22), positive=False)
    corrected = expected(blocks, 100, (5,))
    corrected[5, 8, 20] = 1  # what was clicked on stays, whatever the model makes of it
    assert np.array_equal(session.labels, corrected)


def test_a_box_and_a_mask_are_prompts_too(session: PromptSession, blocks: Volume) -> None:
    session.add_box((5, 4, 5), (5, 12, 15))
    assert np.array_equal(session.labels, expected(blocks, 100, (5,)))
    session.clear_object(1)
    session.add_mask(blocks.data[6] == 60, axis=0, index=6)
    assert np.array_equal(session.labels, expected(blocks, 60, (6,)))


def test_objects_lie_on_each_other_in_their_order(session: PromptSession, blocks: Volume) -> None:
    session.add_point((5, 8, 10), object_id=7)
    session.add_point((5, 8, 10), object_id=3)
    session.add_point((5, 8, 20), object_id=3)
    assert [one.object_id for one in session.objects] == [7, 3]
    assert np.array_equal(session.labels[5], np.where(blocks.data[5] > 0, 3, 0))
    session.remove_object(3)
    assert np.array_equal(session.labels, expected(blocks, 100, (5,), 7))
    assert np.array_equal(session.slice_mask(SliceKey(7, 0, 5)), blocks.data[5] == 100)


def test_where_planes_cross_the_later_prediction_wins(session: PromptSession, blocks: Volume) -> None:
    session.add_point((5, 8, 10), axis=0)
    session.add_point((5, 8, 20), axis=2)  # the other cuboid, on the sagittal slice x = 20
    session.add_point((0, 0, 10), axis=2)  # the background, on the sagittal slice x = 10, through the first
    labels = session.labels
    assert np.array_equal(labels[:, :, 10] > 0, blocks.data[:, :, 10] == 0)
    assert np.array_equal(labels[:, :, 20] > 0, blocks.data[:, :, 20] == 60)
    rest = np.delete(labels[5] > 0, [10, 20], axis=1)
    assert np.array_equal(rest, np.delete(blocks.data[5] == 100, [10, 20], axis=1))


def test_a_prompt_can_be_removed_and_moved(session: PromptSession, blocks: Volume) -> None:
    first = session.add_point((5, 8, 10))
    second = session.add_point((5, 8, 20))
    request = session.remove_prompt(first)
    assert request is not None
    assert session.accept(session.predict(request))
    assert np.array_equal(session.labels, expected(blocks, 60, (5,)))
    moved = session.move_prompt(second, PointPrompt((6.0, 8.0, 10.0)))
    session.accept(session.predict(moved))
    assert np.array_equal(session.labels, expected(blocks, 100, (6,)))
    assert session.remove_prompt(second) is None
    assert not session.labels.any()
    assert session.prompts == {}


def test_a_prompt_changes_nothing_before_its_outcome_is_accepted(session: PromptSession) -> None:
    session.add_point((5, 8, 10))
    before = session.labels
    request = session.add_prompt(PointPrompt((5.0, 8.0, 20.0)))
    assert np.array_equal(session.labels, before)
    assert [one.key for one in session.pending()] == [request.key]
    assert session.accept(session.predict(request))
    assert session.pending() == []
    assert not np.array_equal(session.labels, before)


def test_a_stale_outcome_is_dropped_and_found_again_by_undo(session: PromptSession, blocks: Volume) -> None:
    first = session.add_prompt(PointPrompt((5.0, 8.0, 10.0)))
    outcome = session.predict(first)
    second = session.add_prompt(PointPrompt((5.0, 8.0, 20.0)))
    assert session.accept(outcome) is False
    assert not session.labels.any()
    assert session.accept(session.predict(second))
    assert session.undo() == []
    assert np.array_equal(session.labels, expected(blocks, 100, (5,)))


def test_an_outcome_of_another_slice_is_not_stale(session: PromptSession) -> None:
    first = session.add_prompt(PointPrompt((5.0, 8.0, 10.0)))
    session.add_prompt(PointPrompt((6.0, 8.0, 10.0)))
    assert session.accept(session.predict(first))


def test_undo_of_a_prompt_never_predicted_asks_for_what_is_missing(session: PromptSession) -> None:
    first = session.add_prompt(PointPrompt((5.0, 8.0, 10.0)))
    session.add_prompt(PointPrompt((5.0, 8.0, 20.0)))
    (again,) = session.undo()
    assert again.prompts == first.prompts
    session.predict_pending()
    assert session.labels[5, 8, 10] == 1


def test_candidates_are_cycled_and_undone(session: PromptSession, blocks: Volume) -> None:
    session.add_point((5, 8, 10))
    key = SliceKey(1, 0, 5)
    candidates = session.candidates(key)
    assert candidates is not None
    assert candidates.chosen == 0
    assert np.allclose(candidates.scores, [0.9, 0.6, 0.3])
    session.cycle_candidate(key)
    assert np.array_equal(session.labels[5] == 1, candidates.masks[1])
    session.cycle_candidate(key)
    session.cycle_candidate(key)
    assert np.array_equal(session.labels, expected(blocks, 100, (5,)))
    session.undo()
    assert np.array_equal(session.labels[5] == 1, candidates.masks[2])
    with pytest.raises(InvalidPrompt, match="masks 0 to 2"):
        session.choose_candidate(key, 5)
    with pytest.raises(InvalidPrompt, match="nothing is predicted"):
        session.cycle_candidate(SliceKey(1, 0, 6))


def test_the_live_labels_follow_and_cannot_be_written(session: PromptSession) -> None:
    live, snapshot = session.live_labels, session.labels
    session.add_point((5, 8, 10))
    assert live[5, 8, 10] == 1
    assert snapshot[5, 8, 10] == 0
    for array in (live, snapshot, session.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0, 0] = 1


def test_listeners_hear_every_change_and_can_leave(session: PromptSession) -> None:
    revisions: list[int] = []
    leave = session.subscribe(lambda changed: revisions.append(changed.revision))
    session.add_point((5, 8, 10))
    assert revisions == sorted(set(revisions))
    heard = len(revisions)
    assert heard == 2  # the prompt, and its mask
    leave()
    leave()
    session.undo()
    assert len(revisions) == heard
    assert session.revision > revisions[-1]


@pytest.mark.parametrize(
    ("position", "axis"), [((-1, 8, 10), 0), ((12, 8, 10), 0), ((5, 20, 10), 0), ((5, 8, 25.5), 0), ((5, 8, 99), 2)]
)
def test_a_click_outside_the_volume_is_refused_and_changes_nothing(
    session: PromptSession, position: tuple[float, float, float], axis: int
) -> None:
    with pytest.raises(PointOutsideVolume, match=r"12, 20, 26"):
        session.add_point(position, axis=axis)
    assert (session.prompts, session.objects, session.can_undo) == ({}, (), False)


@pytest.mark.parametrize(
    ("start", "stop", "reason"),
    [((5, 4, 5), (6, 12, 15), "one slice"), ((5, 4, 5), (5, 4, 15), "empty"), ((5, 9, 5), (5, 4, 15), "empty")],
)
def test_a_malformed_box_is_refused(session: PromptSession, start: Any, stop: Any, reason: str) -> None:
    with pytest.raises(InvalidPrompt, match=reason):
        session.add_box(start, stop)


def test_malformed_prompts_say_what_was_expected(session: PromptSession) -> None:
    with pytest.raises(InvalidPrompt, match="voxel coordinates .z, y, x. are 3 finite numbers"):
        session.add_point((5, 8))  # type: ignore[arg-type]
    with pytest.raises(InvalidPrompt, match="3 finite numbers, not .5, 8, nan"):
        session.add_point((5, 8, float("nan")))
    with pytest.raises(InvalidPrompt, match="from 1 to 65535, not 0"):
        session.add_point((5, 8, 10), object_id=0)
    with pytest.raises(InvalidPrompt, match="from 0 to 2, not"):
        session.add_point((5, 8, 10), axis=3)
    with pytest.raises(InvalidPrompt, match=r"slices of \(20, 26\)"):
        session.add_mask(np.ones((3, 3), bool), axis=0, index=5)
    with pytest.raises(InvalidPrompt, match="no prompt number 4"):
        session.remove_prompt(4)
    with pytest.raises(InvalidPrompt, match="no object 9"):
        session.rename_object(9, "liver")
    with pytest.raises(PointOutsideVolume, match="outside the image"):
        session.add_box((5, 30, 5), (5, 40, 15))


def test_a_model_or_window_that_is_none_is_refused(region_model: PromptableModel, blocks: Volume) -> None:
    with pytest.raises(UnsupportedModel, match="takes no prompts"):
        PromptSession(Path(), blocks)  # type: ignore[arg-type]
    with pytest.raises(InvalidPrompt, match="low < high"):
        PromptSession(region_model, blocks, window=(3, 3))


def test_predictions_from_many_threads_are_the_same_as_from_one(click_model: PromptableModel, blocks: Volume) -> None:
    session = PromptSession(click_model, blocks)
    requests = [session.add_prompt(PointPrompt((float(z), 8.0, 10.0))) for z in range(12)]
    alone = PromptSession(click_model, blocks)
    wanted = [alone.predict(request).packed for request in requests]
    found: dict[int, Any] = {}

    def work(i: int) -> None:
        found[i] = session.predict(requests[i]).packed

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(12)] == wanted


def test_prefetched_slices_answer_without_encoding(session: PromptSession, region_model: Any) -> None:
    progress = list(session.prefetch(0, [4, 5, 99]))
    assert (progress[-1].done, progress[-1].total) == (2, 2)
    session.add_point((5, 8, 10))
    assert len(region_model.encoded) == 2


def test_memory_for_embeddings_is_bounded(region_model: Any, blocks: Volume) -> None:
    one_slice = 20 * 26 * 4
    session = PromptSession(region_model, blocks, window=WINDOW, embeddings_bytes=2 * one_slice)
    for z in (3, 4, 3, 5, 3, 4):
        list(session.prefetch(0, [z]))
    assert len(region_model.encoded) == 4  # 3, 4, 5, and 4 again: it was the least recently used


def test_a_box_and_points_work_together_on_a_real_network(click_model: PromptableModel, blocks: Volume) -> None:
    session = PromptSession(click_model, blocks)
    session.add_box((5, 4, 5), (5, 12, 15))
    session.add_point((5, 8, 10))
    request = session.add_prompt(BoxPrompt((5.0, 4.0, 5.0), (5.0, 12.0, 16.0)))
    assert len(request.prompts) == 3
    assert session.predict(request).prediction.logits.shape == (20, 26)


def test_sam_answers_clicks_boxes_and_undo_in_a_session(blocks: Volume) -> None:
    sam = small_sam(size=64, num_hidden_layers=2, num_attention_heads=2, window_size=2)
    session = PromptSession(sam, blocks)
    session.add_point((5, 8, 10), axis=1)
    candidates = session.candidates(SliceKey(1, 1, 8))
    assert candidates is not None
    assert candidates.masks.shape == (3, 12, 26)
    first = session.labels
    session.add_box((3, 8, 5), (9, 8, 15), axis=1)
    sharper = session.candidates(SliceKey(1, 1, 8))
    assert sharper is not None
    assert sharper.masks.shape == (1, 12, 26)  # a click with a box is not ambiguous
    assert session.undo() == []
    assert np.array_equal(session.labels, first)
