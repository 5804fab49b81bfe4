"""One object in 3D from clicks: alone, and for an object of a session."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_medtransformer.errors import InvalidPrompt, PointOutsideVolume, UnsupportedModel
from napari_medtransformer.models import find_card
from napari_medtransformer.models.initial import draw_weights
from napari_medtransformer.models.sam_med3d import SamMed3DModel
from napari_medtransformer.models.sam_med3d_network import SamMed3D, SamMed3DConfig
from napari_medtransformer.models.volume_model import VolumePrompts
from napari_medtransformer.progress import Progress, Result
from napari_medtransformer.prompting.object_3d import Turn, crop_spans, object_steps, segment_object
from napari_medtransformer.prompting.predictor import promptable
from napari_medtransformer.volumes.volume import Volume


@pytest.fixture(scope="module")
def model():
    config = SamMed3DConfig(
        size=64, width=48, depth=1, heads=4, global_blocks=(0,), decoder_width=48, decoder_heads=4, decoder_depth=1
    )
    return SamMed3DModel(find_card("sam-med3d"), draw_weights(SamMed3D(config), 0), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def volume():
    data = np.random.default_rng(0).normal(100, 40, size=(20, 90, 30)).astype(np.float32)
    return Volume.from_array(data, (2.0, 1.5, 1.5), "MR")


def test_an_object_is_found_around_its_clicks_and_nothing_beyond_the_crop(model, volume):
    steps = list(object_steps(model, volume, [(10, 20, 15), (9, 22, 14)], [1, 0]))
    assert all(isinstance(step, Progress) for step in steps[:-1])
    assert isinstance(steps[-1], Result)
    found = steps[-1].value
    assert found.mask.shape == volume.shape
    assert found.mask[:, 60:].sum() == 0  # the crop ends 32 voxels of 1.5 mm from the clicks
    assert np.array_equal(found.mask[found.answer.slices], found.answer.logits > 0)


def test_a_click_beyond_the_crop_is_answered_around_itself_and_the_mask_stays_beyond(model, volume):
    near = segment_object(model, volume, [(10, 5, 15)])
    both = segment_object(model, volume, [(10, 5, 15), (10, 85, 15)])
    rows = both.answer.slices[1]
    assert rows.start >= near.answer.slices[1].stop  # crops of 64 voxels of 1.5 mm
    assert np.array_equal(both.mask[:, : rows.start], near.mask[:, : rows.start])
    assert np.array_equal(both.mask[both.answer.slices], both.answer.logits > 0)
    alone = segment_object(model, volume, [(10, 85, 15)])
    assert np.array_equal(both.answer.logits, alone.answer.logits)


def test_where_crops_meet_the_next_refines_the_answer_before_and_clicks_outside_only_take_away(model, volume):
    near = segment_object(model, volume, [(10, 20, 15)])
    further = segment_object(model, volume, [(10, 20, 15), (10, 60, 15)])
    alone = segment_object(model, volume, [(10, 60, 15)])
    assert near.mask[further.answer.slices].any()
    assert not np.array_equal(further.answer.logits, alone.answer.logits)
    less = segment_object(model, volume, [(10, 20, 15), (10, 60, 15)], [1, 0])
    assert not (less.mask & ~near.mask).any()
    assert (near.mask & ~less.mask).any()


def test_an_earlier_answer_refines_the_next(model, volume):
    first = segment_object(model, volume, [(10, 20, 15)])
    again = segment_object(model, volume, [(10, 20, 15)], previous=first.answer)
    assert not np.array_equal(first.answer.logits, again.answer.logits)


def test_clicks_that_are_none_are_refused(model, volume):
    with pytest.raises(PointOutsideVolume, match=r"\(10, 20, 99\)"):
        object_steps(model, volume, [(10, 20, 99)])
    with pytest.raises(InvalidPrompt, match="0 clicks"):
        object_steps(model, volume, [])
    with pytest.raises(InvalidPrompt, match="1 clicks came with 2 labels"):
        object_steps(model, volume, [(10, 20, 15)], [1, 0])


def test_every_click_refines_the_answer_to_those_before(model, volume):
    one = segment_object(model, volume, [(10, 20, 15)])
    two = segment_object(model, volume, [(10, 20, 15), (9, 22, 14)], [1, 0])
    embedding = model.encode(volume.data, volume.spacing, (10, 20, 15), volume.modality)
    again = model.decode(embedding, VolumePrompts(np.array([(10, 20, 15), (9, 22, 14)]), np.array([1, 0]), one.answer))
    assert np.array_equal(two.answer.logits, again.logits)


def test_a_crop_serves_clicks_while_it_holds_them_all_and_the_next_begins_at_the_one_beyond(model, volume):
    def spans(points, labels):
        return crop_spans(model, volume, [Turn(np.array([p], float), np.array([s])) for p, s in zip(points, labels)])

    near, far = (10, 20, 15), (10, 85, 15)
    assert spans([near, (9, 40, 14)], [1, 1]) == [(2, near)]
    assert spans([near, (9, 40, 14)], [0, 1]) == [(2, (9, 40, 14))]
    assert spans([near, far, (9, 80, 15), near], [1, 1, 0, 1]) == [(1, near), (3, far), (4, near)]


def test_a_long_stroke_is_seen_from_its_middle_and_one_that_no_crop_holds_from_its_end(model, volume):
    rows = np.array([(10, y, 15) for y in (10, 40, 70)], float)
    assert crop_spans(model, volume, [Turn(rows, np.ones(3, int))]) == [(1, (10, 40, 15))]
    long = Volume.from_array(np.zeros((4, 400, 4), np.float32), (1.5, 1.5, 1.5), "MR")
    ends = np.array([(2, 5, 2), (2, 395, 2)], float)
    assert crop_spans(model, long, [Turn(ends, np.ones(2, int))]) == [(1, (2, 395, 2))]


def test_a_3d_model_says_how_it_is_used_when_given_for_slices(model):
    with pytest.raises(UnsupportedModel, match="answers clicks in 3D"):
        promptable(model)
