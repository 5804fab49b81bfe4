"""A session whose model answers in 3D: prompts on any slice, one mask, undo, objects, files, change of model."""

from __future__ import annotations

import json
import random
import zipfile

import numpy as np
import pytest
import torch

from napari_medtransformer.errors import InvalidSession, PointOutsideVolume, UnsupportedModel
from napari_medtransformer.models import find_card
from napari_medtransformer.models.initial import draw_weights
from napari_medtransformer.models.sam_med3d import SamMed3DModel
from napari_medtransformer.models.sam_med3d_network import SamMed3D, SamMed3DConfig
from napari_medtransformer.prompting import PromptSession
from napari_medtransformer.prompting.journal import Journal, Moment
from napari_medtransformer.prompting.object_3d import segment_object
from napari_medtransformer.prompting.prompts import IN_3D, BoxPrompt, PointPrompt, SliceKey
from napari_medtransformer.volumes.volume import Volume

CLICK, OTHER = (10, 40, 15), (8, 44, 14)


@pytest.fixture(scope="module")
def model():
    config = SamMed3DConfig(
        size=32, width=48, depth=1, heads=4, global_blocks=(0,), decoder_width=48, decoder_heads=4, decoder_depth=1
    )
    return SamMed3DModel(find_card("sam-med3d"), draw_weights(SamMed3D(config), 0), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def volume():
    data = np.random.default_rng(0).normal(100, 40, size=(20, 90, 30)).astype(np.float32)
    return Volume.from_array(data, (2.0, 1.5, 1.5), "MR")


@pytest.fixture
def session(model, volume):
    return PromptSession(model, volume)


def mask_of(session, object_id=1):
    return session.labels == object_id


def answer(model, volume, inside, outside=()):
    """What the model says to these clicks, with each as it was meant."""
    mask = segment_object(model, volume, [*inside, *outside], [1] * len(inside) + [0] * len(outside)).mask
    for place in inside:
        mask[place] = True
    for place in outside:
        mask[place] = False
    return mask


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_click_on_any_plane_is_answered_with_the_model_s_mask_in_3d(session, model, volume, axis):
    assert session.in_3d
    session.add_point(CLICK, axis=axis)
    assert np.array_equal(mask_of(session), answer(model, volume, [CLICK]))
    assert mask_of(session).any(axis=(1, 2)).sum() > 1


def test_clicks_of_several_planes_are_answered_together(session, model, volume):
    session.add_point(CLICK, axis=0)
    session.add_point(OTHER, positive=False, axis=2)
    assert np.array_equal(mask_of(session), answer(model, volume, [CLICK], [OTHER]))


def test_strokes_and_lassos_speak_in_3d_and_boxes_are_refused(session):
    stroke = np.zeros((90, 30), bool)
    stroke[36:44, 15] = True
    session.add_scribble(stroke, axis=0, index=10)
    assert mask_of(session)[10][stroke].all()
    session.add_lasso([(10, 50, 5), (10, 50, 12), (10, 55, 12), (10, 55, 5)], positive=False)
    assert not mask_of(session)[10, 51:55, 6:12].any()
    session.add_lasso([(7, 38, 12), (7, 38, 18), (7, 43, 18), (7, 43, 12)], object_id=2)
    assert mask_of(session, 2).any()
    before = session.state
    with pytest.raises(UnsupportedModel, match=r"answers in 3D and takes no boxes.*points, strokes or lassos"):
        session.add_box((10, 30, 10), (10, 50, 20))
    with pytest.raises(PointOutsideVolume):
        session.add_point((10, 20, 99))
    assert session.state is before


def test_far_clicks_keep_the_mask_and_every_click_is_on_its_side_through_undo_and_files(
    session, model, volume, tmp_path
):
    steps = [((10, 5, 15), True), ((10, 45, 15), True), ((10, 85, 15), True), ((10, 60, 15), False), ((10, 5, 9), True)]
    masks = []
    for place, positive in steps:
        session.add_point(place, positive)
        masks.append(mask_of(session))
        for given, inside in steps[: len(masks)]:
            assert masks[-1][given] == inside
    assert np.array_equal(masks[0][:, :20], masks[1][:, :20])  # a crop of 32 voxels of 1.5 mm
    assert np.array_equal(masks[1][:, :60], masks[2][:, :60])
    for before in masks[-2::-1]:
        session.undo()
        assert np.array_equal(mask_of(session), before)
    for after in masks[1:]:
        assert session.redo() == []
        assert np.array_equal(mask_of(session), after)
    anew = PromptSession(model, volume)
    for prompt in session.prompts.values():
        anew.add_prompt(prompt)
    anew.predict_pending()  # all at once, in a session that remembers nothing
    assert np.array_equal(anew.labels, session.labels)
    session.save(tmp_path / "work.medt")
    loaded = PromptSession.load(tmp_path / "work.medt", model, volume)
    assert np.array_equal(loaded.labels, session.labels)
    loaded.add_point((10, 84, 20))
    session.add_point((10, 84, 20))
    assert np.array_equal(loaded.labels, session.labels)


def test_a_stroke_longer_than_the_crop_is_inside_from_end_to_end(session):
    stroke = np.zeros((90, 30), bool)
    stroke[2:88, 15] = True
    session.add_scribble(stroke, axis=0, index=10)
    assert mask_of(session)[10][stroke].all()
    upright = np.zeros((20, 90), bool)
    upright[1:19, 4] = True
    session.add_scribble(upright, axis=2, index=15)
    assert mask_of(session)[:, :, 15][upright].all()
    session.add_scribble(upright, axis=2, index=15, positive=False)
    assert not mask_of(session)[:, :, 15][upright].any()
    assert mask_of(session)[10, 5:88, 15].all()


def test_what_was_imported_stays_beyond_the_crop(session, volume):
    label = np.zeros(volume.shape, bool)
    label[2:18, 5:85, 10:20] = True
    session.import_mask(label)
    session.add_point(CLICK)
    assert np.array_equal(mask_of(session)[:, 60:], label[:, 60:])
    assert not np.array_equal(mask_of(session), label)


def test_moving_and_removing_a_click_predicts_anew(session, model, volume):
    first = session.add_point(CLICK)
    second = session.add_point(OTHER, positive=False, axis=1)
    session.accept(session.predict(session.move_prompt(second, PointPrompt((9, 45, 16), False, 1, 1))))
    assert np.array_equal(mask_of(session), answer(model, volume, [CLICK], [(9, 45, 16)]))
    session.accept(session.predict(session.remove_prompt(second)))
    assert np.array_equal(mask_of(session), answer(model, volume, [CLICK]))
    assert session.remove_prompt(first) is None
    assert not session.labels.any()


def test_the_upper_of_two_objects_lies_over_the_lower(session):
    session.add_point(CLICK, object_id=1)
    session.add_point((12, 41, 17), object_id=2, axis=2)
    one, two = session.object_mask(1), session.object_mask(2)
    assert (one & two).any()
    assert np.array_equal(session.labels == 2, two)
    assert np.array_equal(session.labels == 1, one & ~two)
    session.move_object(1, by=1)
    assert np.array_equal(session.labels == 1, one)


def test_an_answer_that_comes_late_is_dropped_and_found_again_by_redo(session):
    request = session.add_prompt(PointPrompt(CLICK))
    session.undo()
    assert not session.accept(session.predict(request))
    assert not session.labels.any()
    assert session.redo() == []
    assert session.labels.any()


def test_undo_gives_the_starting_state_and_redo_the_final_one(session):
    chance = random.Random(0)
    for _ in range(30):
        act, there = chance.random(), list(session.prompts)
        place = (chance.randrange(5, 15), chance.randrange(35, 50), chance.randrange(8, 22))
        if act < 0.6 or not there:
            session.add_point(place, chance.random() < 0.7, chance.choice((1, 2)), chance.randrange(3))
        elif act < 0.75:
            request = session.remove_prompt(chance.choice(there))
            if request is not None:
                session.accept(session.predict(request))
        elif act < 0.9:
            number = chance.choice(there)
            moved = PointPrompt(place, True, session.prompts[number].object_id, chance.randrange(3))
            session.accept(session.predict(session.move_prompt(number, moved)))
        elif session.object_mask(1).any():
            session.smooth(1)
    end, labels = session.state, session.labels
    while session.can_undo:
        session.undo()
    assert session.state.slices == {}
    assert not session.labels.any()
    while session.can_redo:
        assert session.redo() == []
    assert session.state == end
    assert np.array_equal(session.labels, labels)


def test_what_was_imported_is_what_the_next_click_corrects(session, model, volume):
    label = np.zeros(volume.shape, bool)
    label[6:14, 36:46, 10:20] = True
    session.import_mask(label)
    assert np.array_equal(mask_of(session), label)
    session.add_point(CLICK)
    assert not np.array_equal(mask_of(session), answer(model, volume, [CLICK]))  # it began with the label
    session.undo()
    assert np.array_equal(mask_of(session), label)


def test_a_smoothed_answer_is_shown_and_the_next_click_goes_on_from_it(session, model, volume):
    session.add_point(CLICK)
    assert session.smooth(1) > 0
    smoothed = mask_of(session)
    assert not np.array_equal(smoothed, answer(model, volume, [CLICK]))
    session.add_point(OTHER, positive=False)
    assert not np.array_equal(mask_of(session), answer(model, volume, [CLICK], [OTHER]))
    session.undo()
    assert np.array_equal(mask_of(session), smoothed)


def test_a_saved_session_comes_back_with_its_answers(session, model, volume, tmp_path):
    session.add_point(CLICK)
    session.add_point(OTHER, positive=False, axis=2)
    session.add_point((12, 41, 17), object_id=2, axis=1)
    session.smooth(2)
    session.add_point((11, 42, 16), object_id=2, axis=0)
    session.save(tmp_path / "work.medt")
    loaded = PromptSession.load(tmp_path / "work.medt", model, volume)
    Journal(tmp_path / "journal").write(Moment(session.facts, session.state, session.known_predictions()))
    kept = PromptSession.recover(tmp_path / "journal", model, volume)
    for again in (loaded, kept):
        assert again.state == session.state
        assert again.pending() == []
        assert np.array_equal(again.labels, session.labels)


def test_an_answer_that_does_not_fit_the_volume_is_damage(session, model, volume, tmp_path):
    session.add_point(CLICK)
    whole, damaged = tmp_path / "work.medt", tmp_path / "damaged.medt"
    session.save(whole)
    with zipfile.ZipFile(whole) as given, zipfile.ZipFile(damaged, "w") as changed:
        said = json.loads(given.read("session.json"))
        said["slices"][0]["prediction"]["masks"][0]["start"] = volume.shape[0] - 1
        changed.writestr("session.json", json.dumps(said))
        changed.writestr("masks.npz", given.read("masks.npz"))
    with pytest.raises(InvalidSession, match="do not fit a volume"):
        PromptSession.load(damaged, model, volume)


def test_a_model_of_slices_corrects_what_was_found_in_3d(session, click_model):
    number = session.add_point(CLICK)
    found = mask_of(session)
    assert session.switch_model(click_model) == []
    assert np.array_equal(mask_of(session), found)
    session.add_point(OTHER, positive=False, axis=0)
    assert np.flatnonzero((mask_of(session) != found).any(axis=(1, 2))).tolist() in ([], [OTHER[0]])
    assert not mask_of(session)[OTHER]
    session.add_point(OTHER, positive=False, axis=0)
    request = session.move_prompt(number, PointPrompt((11, 40, 15)))
    assert request.key == SliceKey(1, 0, 11)  # it is a click on a slice from now on


def test_a_prompt_that_the_present_model_cannot_answer_says_so(session, click_model):
    session.add_point(CLICK)
    second = session.add_point(OTHER, positive=False)
    session.switch_model(click_model)
    request = session.remove_prompt(second)
    with pytest.raises(UnsupportedModel, match="were given in 3D, and medt-click-tiny works on slices; choose"):
        session.predict(request)
    assert session.pending() == []


def test_a_model_in_3d_follows_no_object_through_slices(session):
    session.add_point(CLICK)
    with pytest.raises(UnsupportedModel, match="there is nothing to propagate"):
        session.propagation_steps(1)
    assert list(session.prefetch_around(0, 10)) == []


def test_a_model_in_3d_takes_the_clicks_of_slices_over_as_one_step(click_model, model, volume):
    session = PromptSession(click_model, volume)
    session.add_point(CLICK, axis=0)
    session.add_point((12, 41, 17), axis=1)
    box = session.add_box((1, 10, 5), (1, 20, 15), object_id=2)
    before, labels = session.state, session.labels
    requests = session.switch_model(model)
    assert [request.key for request in requests] == [SliceKey(1, IN_3D, 0)]
    session.predict_pending()
    assert np.array_equal(session.object_mask(1), answer(model, volume, [CLICK, (12, 41, 17)]))
    assert isinstance(session.prompts[box], BoxPrompt)
    assert np.array_equal(session.labels[1] == 2, labels[1] == 2)
    session.undo()
    assert session.state == before
    assert np.array_equal(session.labels, labels)
