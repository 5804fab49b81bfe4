"""Input as no interface would make it: every wrong one is one clear error, every unusual right one works."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_medtransformer.errors import CannotWrite, InvalidPrompt, MedTransformerError, UnsupportedVolume
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.prompting import ImagePredictor, PromptSession
from napari_medtransformer.volumes import Volume
from napari_medtransformer.volumes.intensity import Window

IMAGE = np.zeros((20, 26), np.float32)
IMAGE[4:12, 5:15] = 100


@pytest.fixture
def predictor(region_model: PromptableModel) -> ImagePredictor:
    predictor = ImagePredictor(region_model)
    predictor.set_image(IMAGE, window=(0, 100))
    return predictor


@pytest.mark.parametrize("image", [None, "image.png", [[1, 2], [3]], IMAGE.astype(complex), IMAGE[None], IMAGE[:0]])
def test_what_is_no_image_is_refused(predictor: ImagePredictor, image) -> None:
    with pytest.raises(UnsupportedVolume):
        predictor.set_image(image)


@pytest.mark.parametrize("window", [(5, 1), (1,), (1, 2, 3), "ct", 5, (np.nan, 1), (-np.inf, np.inf), [[0, 1], [1, 2]]])
def test_what_is_no_window_is_refused(predictor: ImagePredictor, region_model, blocks: Volume, window) -> None:
    with pytest.raises(InvalidPrompt, match="a window is"):
        predictor.set_image(IMAGE, window=window)
    with pytest.raises(InvalidPrompt, match="a window is"):
        PromptSession(region_model, blocks, window=window)


def test_windows_points_and_logits_come_in_many_forms(predictor: ImagePredictor) -> None:
    expected = predictor.predict(points=[(6, 7)])
    for window in (np.array([0.0, 100.0]), Window(0, 100), torch.tensor([0.0, 100.0])):
        predictor.set_image(torch.from_numpy(IMAGE).requires_grad_(), window=window)
        for points in (np.array([[6, 7]]), torch.tensor([[6.0, 7.0]]), iter([(6, 7)]), {(6, 7)}, [[np.int8(6), 7.0]]):
            np.testing.assert_array_equal(predictor.predict(points=points).mask, expected.mask)
    refined = predictor.predict(mask_logits=torch.from_numpy(expected.logits).requires_grad_())
    np.testing.assert_array_equal(
        refined.mask, predictor.predict(mask_logits=1e300 * expected.logits.astype(float)).mask
    )


@pytest.mark.parametrize(
    "prompts",
    [
        {"points": 5},
        {"points": "ab"},
        {"points": [(None, 1)]},
        {"points": [(1, 2), (3,)]},
        {"points": [(6, 7)], "labels": [[1], [2, 3]]},
        {"points": [(6, 7)], "labels": object()},
        {"points": [(6, 7)], "labels": [np.nan]},
        {"box": 5},
        {"box": [(1, 2), (5, 6)]},
        {"box": torch.zeros(2, 2)},
        {"mask_logits": "x"},
        {"mask_logits": [[1], [1, 2]]},
        {"mask_logits": np.full(IMAGE.shape, np.nan)},
        {"mask_logits": np.full(IMAGE.shape, np.inf)},
        {"mask_logits": np.full(IMAGE.shape, None)},
    ],
    ids=str,
)
def test_prompts_that_are_none_are_refused_in_one_line(predictor: ImagePredictor, prompts) -> None:
    with pytest.raises(InvalidPrompt) as told:
        predictor.predict(**prompts)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "act",
    [
        lambda s: s.add_point((5, 8, 10), axis=0.0),
        lambda s: s.add_point((5, 8, 10), object_id="a"),
        lambda s: s.add_point((5, 8, 10), object_id=1.5),
        lambda s: s.add_point(None),
        lambda s: s.add_box(None, None),
        lambda s: s.add_scribble(np.ones((20, 26)), axis=0, index=1.5),
        lambda s: s.add_scribble([[1], [1, 2]], axis=0, index=5),
        lambda s: s.add_mask(np.ones((20, 26)), axis=0, index="a"),
        lambda s: s.add_mask(None, axis=0, index=5),
        lambda s: s.add_lasso(None),
        lambda s: s.colour_object(s.new_object(), None),
        lambda s: s.colour_object(s.new_object(), (1, 0, 0)),
    ],
)
def test_what_a_session_cannot_take_is_one_error_and_changes_no_mask(region_model, blocks: Volume, act) -> None:
    session = PromptSession(region_model, blocks, window=(0.0, 100.0))
    with pytest.raises(MedTransformerError) as told:
        act(session)
    assert "\n" not in str(told.value)
    assert not session.prompts
    assert not session.labels.any()


@pytest.mark.parametrize(
    "act",
    [
        lambda s: s.rename_object(1, None),
        lambda s: s.class_object(1, 5),
        lambda s: s.new_object(name=5),
        lambda s: s.smooth(1, sigma_mm=1e9),  # would take for ever
        lambda s: s.import_mask(np.ones((12, 20, 26)), 1, axis=5),
        lambda s: s.import_mask(np.full((12, 20, 26), np.nan), 1),
        lambda s: s.import_mask([[1], [1, 2]], 1),
        lambda s: list(s.prefetch(9, [0])),
    ],
)
def test_what_an_object_cannot_be_is_refused(region_model, blocks: Volume, act) -> None:
    session = PromptSession(region_model, blocks, window=(0.0, 100.0))
    session.add_point((5, 8, 10))
    before = session.objects, session.labels
    with pytest.raises(InvalidPrompt):
        act(session)
    assert session.objects == before[0]
    np.testing.assert_array_equal(session.labels, before[1])


def test_numbers_of_numpy_are_kept_as_any_others(region_model, blocks: Volume, tmp_path) -> None:
    session = PromptSession(region_model, blocks, window=(0.0, 100.0))
    session.add_point(np.array([5, 8, 10]), object_id=np.uint8(3), axis=np.int64(1))
    session.add_scribble(blocks.data[6] > 50, axis=np.int8(0), index=np.uint16(6), object_id=np.int32(3))
    session.save(tmp_path / "session.medt")
    again = PromptSession.load(tmp_path / "session.medt", region_model, blocks)
    np.testing.assert_array_equal(again.labels, session.labels)
    assert [type(prompt.object_id) for prompt in again.prompts.values()] == [int, int]
    assert [type(one.object_id) for one in session.objects] == [int]


def test_a_session_works_on_a_volume(region_model, tmp_path) -> None:
    for given in (np.zeros((12, 20, 26)), "ct.nii.gz", None):
        with pytest.raises(UnsupportedVolume, match=r"is no Volume.*Volume\.from_array"):
            PromptSession(region_model, given)


def test_a_session_is_not_written_to_what_is_no_file(region_model, blocks: Volume, tmp_path) -> None:
    session = PromptSession(region_model, blocks, window=(0.0, 100.0))
    for path in (None, tmp_path, tmp_path / "no" / "s.medt", tmp_path / ("x" * 300)):
        with pytest.raises(CannotWrite):
            session.save(path)
    assert not list(tmp_path.iterdir())
