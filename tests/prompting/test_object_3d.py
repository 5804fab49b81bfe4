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
from napari_medtransformer.prompting.object_3d import crop_centre, object_steps, segment_object
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
    assert found.left_out == 0


def test_clicks_far_from_the_others_are_told(model, volume):
    found = segment_object(model, volume, [(10, 5, 15), (10, 8, 15), (10, 85, 15)], [1, 1, 0])
    assert found.left_out == 1


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


def test_the_crop_stays_at_the_first_click_while_it_holds_them_all(model, volume):
    near, far = [(10, 20, 15), (9, 40, 14)], [(10, 5, 15), (10, 85, 15)]
    assert crop_centre(model, volume, np.array(near), np.array([1, 1])) == (10, 20, 15)
    assert crop_centre(model, volume, np.array(far), np.array([1, 1])) == (10, 45, 15)
    assert crop_centre(model, volume, np.array(near), np.array([0, 1])) == (9, 40, 14)


def test_a_3d_model_says_how_it_is_used_when_given_for_slices(model):
    with pytest.raises(UnsupportedModel, match="answers clicks in 3D"):
        promptable(model)
