"""Edits of objects in a session: each one step that undoes, compared with what anybody can compute by hand."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from napari_medtransformer.errors import InvalidPrompt
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.progress import run_to_end
from napari_medtransformer.prompting import PointPrompt, PromptSession, SliceKey
from napari_medtransformer.prompting.shapes import fill_between, smoothed
from napari_medtransformer.volumes import Volume, read_volume
from napari_medtransformer.volumes.lazy import lazy_of

WINDOW = (0.0, 100.0)


@pytest.fixture
def session(region_model: PromptableModel, blocks: Volume) -> PromptSession:
    return PromptSession(region_model, blocks, window=WINDOW)


def ball(shape: tuple[int, int, int], middle: tuple[float, float, float], radius: float) -> np.ndarray:
    grid = np.indices(shape) - np.reshape(middle, (3, 1, 1, 1))
    return np.asarray((grid**2).sum(axis=0) <= radius**2)


def of_mask(region_model: PromptableModel, mask: np.ndarray, axis: int = 0) -> PromptSession:
    session = PromptSession(region_model, Volume.from_array(mask.astype(np.float32), (2.0, 1.0, 1.0)), window=(0, 1))
    assert session.import_mask(mask, axis=axis) == mask.any(axis=tuple(a for a in range(3) if a != axis)).sum()
    return session


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_between_two_prompted_ones_are_filled_with_the_shape_between(
    session: PromptSession, blocks: Volume, axis: int
) -> None:
    low, high = [5, 8, 7], [5, 8, 12]
    low[axis], high[axis] = {0: (3, 8), 1: (4, 11), 2: (5, 14)}[axis]
    session.add_point(tuple(low), axis=axis)  # type: ignore[arg-type]
    session.add_point(tuple(high), axis=axis)  # type: ignore[arg-type]
    before = session.labels
    assert session.fill_between() == high[axis] - low[axis] - 1
    assert np.array_equal(session.labels == 1, blocks.data == 100)
    session.undo()
    assert np.array_equal(session.labels, before)
    session.redo()
    assert np.array_equal(session.labels == 1, blocks.data == 100)


def test_filling_follows_an_object_that_moves_and_grows() -> None:
    y, x = np.indices((60, 60))
    disc = {z: (y - 15 - 2 * z) ** 2 + (x - 40 + 2 * z) ** 2 <= (6 + z / 2) ** 2 for z in range(11)}
    filled = fill_between({0: disc[0], 10: disc[10]})
    overlaps = [2 * (filled[z] & disc[z]).sum() / (filled[z].sum() + disc[z].sum()) for z in range(1, 10)]
    assert min(overlaps) > 0.9  # a ring of pixels is a tenth of the smallest disc
    assert np.mean(overlaps) > 0.97
    assert fill_between({0: disc[0], 5: np.zeros((60, 60), bool)}) == {}


def test_filling_needs_two_prompted_slices(session: PromptSession) -> None:
    session.add_point((5, 8, 10))
    with pytest.raises(InvalidPrompt, match="prompts on 1 slice across axis 0; filling between needs two"):
        session.fill_between()
    with pytest.raises(InvalidPrompt, match="no object 2"):
        session.fill_between(2)


def test_smoothing_removes_a_spike_and_keeps_the_volume(region_model: PromptableModel) -> None:
    mask = ball((30, 40, 40), (15, 20, 20), 9)
    spiked = mask.copy()
    spiked[15, 20, 29:39] = True
    session = of_mask(region_model, spiked)
    assert session.smooth() > 0
    after = session.object_mask(1)
    assert not after[15, 20, 33:].any()
    assert after.sum() == pytest.approx(spiked.sum(), rel=0.02)
    assert (after & mask).sum() / (after | mask).sum() > 0.93
    session.undo()
    assert np.array_equal(session.labels == 1, spiked)
    with pytest.raises(InvalidPrompt, match="in millimetres is a finite number above 0"):
        session.smooth(sigma_mm=-1.0)


def test_smoothing_paints_on_no_slice_that_was_empty() -> None:
    mask = np.zeros((9, 20, 20), bool)
    mask[4, 5:15, 5:15] = True
    after = smoothed(mask, (1.5, 1.5, 1.5))
    assert after[4].sum() == 100
    assert after.sum() == 100
    assert not smoothed(np.zeros((3, 4, 5), bool), (1, 1, 1)).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_largest_part_is_kept_and_holes_are_closed(region_model: PromptableModel, axis: int) -> None:
    solid = ball((20, 24, 28), (9, 11, 12), 7)
    mask = solid.copy()
    mask[9, 11, 12] = False
    mask[17:19, 20:22, 24:26] = True
    session = of_mask(region_model, mask, axis)
    session.keep_largest()
    parts, _ = ndimage.label(mask)
    assert np.array_equal(session.labels == 1, parts == parts[9, 11, 8])
    session.close_holes()
    assert np.array_equal(session.labels == 1, solid)
    session.undo()
    session.undo()
    assert np.array_equal(session.labels == 1, mask)


def test_an_edit_that_changes_nothing_is_no_step(session: PromptSession) -> None:
    session.add_point((5, 8, 10))
    before = session.state
    assert session.keep_largest() == 0
    assert session.state is before
    with pytest.raises(InvalidPrompt, match="has no mask yet"):
        session.edit("smooth", session.new_object())


def test_an_edit_made_from_older_masks_is_dropped(session: PromptSession) -> None:
    session.add_point((5, 8, 10))
    session.add_point((5, 8, 20))
    edit = session.edit("largest")
    assert edit.masks
    session.add_point((6, 8, 10))
    before = session.labels
    assert session.accept_edit(edit) is False
    assert np.array_equal(session.labels, before)


def test_a_prompt_on_an_edited_slice_corrects_the_edit(session: PromptSession, blocks: Volume) -> None:
    mask = blocks.data == 100
    mask[5, 4:6, 5:7] = False
    session.import_mask(mask)
    request = session.add_prompt(PointPrompt((5.0, 8.0, 20.0)))
    assert np.array_equal(session.labels == 1, mask)
    hint = session._slices.prompts_for_model(request.key, request.prompts).mask_logits
    assert hint is not None
    assert np.array_equal(hint > 0, mask[5])
    session.accept(session.predict(request))
    assert session.labels[5, 8, 20] == 1
    removed = session.remove_prompt(request.prompt_id or 0)
    assert removed is None
    assert np.array_equal(session.labels == 1, mask)


def test_an_imported_label_must_fit_and_hold_something(session: PromptSession, blocks: Volume) -> None:
    with pytest.raises(InvalidPrompt, match="does not fit"):
        session.import_mask(np.ones((2, 3, 4), bool))
    with pytest.raises(InvalidPrompt, match="is empty"):
        session.import_mask(np.zeros(blocks.shape, bool))


def test_the_order_of_objects_decides_where_they_overlap(session: PromptSession, blocks: Volume) -> None:
    cuboid = blocks.data == 100
    for object_id in (4, 2, 9):
        session.import_mask(cuboid, object_id)
    assert [one.object_id for one in session.objects] == [4, 2, 9]
    assert set(np.unique(session.labels)) == {0, 9}
    session.move_object(9, -1)
    assert set(np.unique(session.labels)) == {0, 2}
    session.order_objects([9, 2, 4])
    assert np.array_equal(session.labels == 4, cuboid)
    assert np.array_equal(session.object_mask(2), cuboid)
    session.move_object(4, 5)  # already on top
    session.undo()
    session.undo()
    assert np.array_equal(session.labels == 9, cuboid)
    with pytest.raises(InvalidPrompt, match="names every object once"):
        session.order_objects([9, 2])


def test_classes_and_colours_are_steps_too(session: PromptSession) -> None:
    number = session.new_object("first", class_name="lesion")
    session.colour_object(number, "#FF8800")
    session.class_object(number, "cyst")
    assert session.object(number).class_name == "cyst"
    assert session.object(number).colour == "#ff8800"
    session.undo()
    assert session.object(number).class_name == "lesion"
    with pytest.raises(InvalidPrompt, match="#rrggbb"):
        session.colour_object(number, "orange")


def test_statistics_of_a_ball_are_those_of_a_ball(region_model: PromptableModel) -> None:
    mask = ball((40, 50, 60), (20, 25, 30), 12)
    data = np.where(mask, 60.0, -5.0).astype(np.float32)
    volume = Volume.from_array(data, (1.0, 1.0, 1.0))
    session = PromptSession(region_model, volume)
    session.import_mask(mask)
    measured = session.statistics(1)
    assert measured.volume_ml == pytest.approx(mask.sum() / 1000)
    assert measured.volume_ml == pytest.approx(4 / 3 * np.pi * 12**3 / 1000, rel=0.02)
    assert (measured.mean, measured.std, measured.low) == (60, 0, 60)
    assert measured.diameter_mm == pytest.approx(24, abs=1e-6)
    assert measured.axial_diameter_mm == pytest.approx(24, abs=1e-6)
    assert measured.slices == 25


def test_the_longest_diameter_counts_the_spacing_and_the_oblique_affine(region_model: PromptableModel) -> None:
    mask = np.zeros((5, 6, 7), bool)
    mask[0, 0, 0] = mask[4, 5, 6] = mask[2, 3, 3] = True
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([3.0, 0.5, 0.8])
    session = PromptSession(region_model, Volume(mask.astype(np.float32), affine), window=(0, 1))
    session.import_mask(mask)
    measured = session.statistics(1)
    assert measured.diameter_mm == pytest.approx(np.hypot(np.hypot(12, 2.5), 4.8))
    assert measured.axial_diameter_mm == 0
    empty = session.statistics(session.new_object())
    assert (empty.voxels, empty.diameter_mm) == (0, 0)
    assert np.isnan(empty.mean)


def test_a_correction_follows_anew_only_what_depends_on_it(region_model: PromptableModel) -> None:
    data = np.zeros((40, 30, 30), np.int16)
    data[2:38, 8:20, 8:20] = 100
    session = PromptSession(region_model, Volume(data, np.eye(4)), window=WINDOW)
    for z in (10, 20, 30):
        session.add_point((z, 10, 10))
    first = run_to_end(session.propagate())
    assert first.spans == (range(10), range(11, 20), range(21, 30), range(31, 40))
    again = run_to_end(session.propagation_steps())
    assert again.spans == ()
    session.add_point((15, 8, 8))
    second = run_to_end(session.propagate())
    assert second.spans == (range(11, 15), range(16, 20))
    assert np.array_equal(session.labels == 1, data == 100)
    session.add_point((35, 8, 8))
    third = run_to_end(session.propagate())
    assert third.spans == (range(31, 35), range(36, 40))
    session.clear_object(1)
    session.add_point((5, 8, 8))
    assert run_to_end(session.propagate()).spans == (range(5), range(6, 40))
    assert len(run_to_end(session.propagation_steps(afresh=True)).spans) == 2


def test_another_model_keeps_prompts_masks_and_history(
    session: PromptSession, click_model: PromptableModel, region_model: PromptableModel, blocks: Volume
) -> None:
    session.add_point((5, 8, 10))
    session.add_point((6, 8, 20), object_id=2)
    before, prompts = session.labels, session.prompts
    requests = session.switch_model(click_model)
    assert [request.key.index for request in requests] == [5, 6]
    assert session.prompts == prompts
    assert np.array_equal(session.labels, before)  # until the new model has answered
    session.predict_pending()
    candidates = session.candidates(SliceKey(1, 0, 5))
    assert candidates is not None
    assert (
        len(candidates.masks)
        == session.model.decode(
            session._slices.embedding(0, 5), session._slices.prompts_for_model(SliceKey(1, 0, 5), requests[0].prompts)
        ).logits.shape[0]
    )
    changed = session.labels
    assert session.undo() == []
    assert np.array_equal(session.labels, before)
    session.undo()
    assert list(session.prompts) == [1]
    session.redo()
    session.redo()
    assert np.array_equal(session.labels, changed)
    session.switch_model(region_model, repredict=False)
    assert session.pending() == []
    session.add_point((5, 8, 20))
    assert np.array_equal(session.labels[5] == 1, blocks.data[5] > 0)


def test_statistics_of_a_volume_that_stays_in_its_file_are_those_in_memory(
    region_model: PromptableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.random.default_rng(0).normal(40, 9, (12, 20, 30)).astype(np.float32)
    nib.save(nib.Nifti1Image(data.transpose(2, 1, 0), np.diag([-1.0, -1.0, 2.0, 1.0])), tmp_path / "large.nii")
    monkeypatch.setattr("napari_medtransformer.volumes.file_values.LAZY_BYTES", 1)
    volume = read_volume(tmp_path / "large.nii")
    assert lazy_of(volume.data) is not None
    mask = ball(volume.shape, (6, 10, 15), 4)
    session = PromptSession(region_model, volume)
    session.import_mask(mask)
    measured, inside = session.statistics(1), np.asarray(volume.data)[mask].astype(np.float64)
    assert measured.voxels == inside.size
    assert measured.mean == pytest.approx(inside.mean())
    assert (measured.low, measured.high) == (inside.min(), inside.max())
