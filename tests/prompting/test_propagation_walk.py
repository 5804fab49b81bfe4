"""From one slice to the next: what hangs on by a neck, who is asked, and a real organ followed to its ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from region_model import RegionModel
from torch import nn

import napari_medtransformer as nmt
from napari_medtransformer.models import find_card
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.models.sam2 import build
from napari_medtransformer.progress import run_to_end
from napari_medtransformer.prompting import PromptSession
from napari_medtransformer.prompting.appearance import Appearance, without_noise
from napari_medtransformer.prompting.propagation_voice import Voice
from napari_medtransformer.prompting.propagation_walk import Marked, _depth, _hanging_together, marked_on
from napari_medtransformer.prompting.slice_model import SliceModel
from napari_medtransformer.volumes import Volume

WINDOW = (0.0, 100.0)


def test_a_neighbour_behind_a_neck_is_not_entered(region_model: PromptableModel) -> None:
    data = np.zeros((16, 70, 60), np.int16)
    data[2:14, 4:34, 10:40] = 100
    organ = data == 100
    data[8:14, 34:38, 24:26] = 100  # a neck …
    data[8:14, 38:64, 10:40] = 100  # … to something that looks the same
    session = PromptSession(region_model, Volume(data, np.eye(4)), window=WINDOW)
    session.add_point((4, 18, 24))
    run_to_end(session.propagate())
    found = session.labels == 1
    assert not found[:, 40:].any()
    assert np.count_nonzero(found & organ) > 0.97 * np.count_nonzero(organ)


def test_necks_are_cut_and_wide_links_kept() -> None:
    logits = np.full((40, 80), -2.0, np.float32)
    logits[5:35, 5:30] = 3.0
    before = logits > 0
    logits[5:35, 50:75] = 3.0
    logits[18:21, 30:50] = 1.0
    cut = _hanging_together(logits, before, neck=3.0) > 0
    assert np.count_nonzero(cut[:, :28] != before[:, :28]) <= 12  # corners are rounded
    assert not cut[:, 36:].any()
    assert np.array_equal(_hanging_together(logits, before, neck=0.5) > 0, logits > 0)
    logits[10:30, 30:50] = 1.0
    assert _hanging_together(logits, before, neck=3.0)[20, 60] > 0


def test_depth_of_a_large_mask_is_measured_to_within_a_step_of_three_pixels() -> None:
    rows, columns = np.mgrid[:400, :500]
    mask = np.hypot(rows - 210, columns - 240) < 150
    expected = np.where(mask, 150 - np.hypot(rows - 210, columns - 240), 0)
    assert np.abs(_depth(mask) - expected).max() < 3.5
    small = mask[::5, ::5]
    assert np.abs(_depth(small) - expected[::5, ::5] / 5).max() < 1.0


def test_the_bundled_network_encodes_no_slice_that_was_not_prompted(
    click_model: PromptableModel, blocks: Volume
) -> None:
    session = PromptSession(click_model, blocks)
    session.add_box((5, 4, 5), (5, 12, 15))
    run_to_end(session.propagate())
    assert [index for index in range(len(blocks.data)) if session.is_encoded(0, index)] == [5]


@pytest.fixture(scope="module")
def video_model() -> PromptableModel:
    """SAM 2.1 with its memory, at a size for tests, with random weights."""
    card = find_card("medsam2")
    card = replace(card, input=replace(card.input, size=(128, 128)))
    model = build(card, None, seed=0, device=torch.device("cpu"), dtype=torch.float32)
    nn.init.constant_(model.network.mask_decoder.pred_obj_score_head.proj_out.bias, 2.0)  # there is an object
    return model


def test_a_model_with_a_memory_is_asked_for_what_it_remembers(video_model: PromptableModel, blocks: Volume) -> None:
    session = PromptSession(video_model, blocks, window=WINDOW)
    slices = session._slices
    mask = np.where(blocks.data[5] == 100, 6.0, -6.0).astype(np.float32)
    voice = Voice(slices, 0, 5, mask)
    first, _ = voice.ask(6, (8.0, 10.0), mask)
    voice.tell(first[0])
    second, scores = voice.ask(7, (8.0, 10.0), mask)
    assert second.shape == (1, 20, 26)
    assert scores.shape == (1,)
    other = Voice(slices, 0, 5, mask)
    other.ask(6, (8.0, 10.0), mask)
    other.tell(mask)
    changed, _ = other.ask(7, (8.0, 10.0), mask)
    assert not np.allclose(second, changed)


def test_a_model_with_a_memory_follows_through_a_session(video_model: PromptableModel, blocks: Volume) -> None:
    session = PromptSession(video_model, blocks, window=WINDOW)
    session.add_box((5, 4, 5), (5, 12, 15))
    session.add_point((5, 8, 10))
    value = run_to_end(session.propagate())
    assert session.is_encoded(0, 6)
    assert session.is_encoded(0, 4)
    assert all(mask.shape == (20, 26) for mask in value.masks.values())


@pytest.mark.parametrize(
    ("number", "count"), [(21, 1), (21, 3), (1, 1)], ids=["bladder", "bladder, three slices", "spleen"]
)
def test_an_organ_of_the_sample_is_followed_to_its_ends(repository: Path, number: int, count: int) -> None:
    samples = repository / "sample_data"
    volume = nmt.read_volume(samples / "example_ct.nii.gz")
    truth = np.asarray(nmt.read_volume(samples / "example_seg_fast_force_split.nii.gz").data) == number
    areas = truth.sum(axis=(1, 2))
    there = np.flatnonzero(areas)
    spread = [int(there[int(share * len(there))]) for share in (1 / 6, 1 / 2, 5 / 6)]
    session = PromptSession(nmt.load_model("medt-click-tiny", device="cpu"), volume)
    for index in [int(np.argmax(areas))] if count == 1 else spread:
        rows, columns = (np.flatnonzero(truth[index].any(axis=a)) for a in (1, 0))
        session.add_box((index, rows[0], columns[0]), (index, rows[-1] + 1, columns[-1] + 1))
        session.add_point((index, *np.argwhere(truth[index])[np.count_nonzero(truth[index]) // 2]))
    run_to_end(session.propagate())
    found = session.labels == 1
    reached = np.flatnonzero(found.any(axis=(1, 2)))
    # seen: 0.91, 0.94 and 0.90, 2 slices; other weights may differ a little
    assert 2 * np.count_nonzero(found & truth) / (found.sum() + truth.sum()) >= 0.8
    assert abs(int(there[0] - reached[0])) <= 3
    assert abs(int(reached[-1] - there[-1])) <= 3


def test_several_prompted_slices_tell_what_the_object_looks_like_and_how_the_image_changes(blocks: Volume) -> None:
    data = np.array(blocks.data, np.float32)
    data[4] += 20  # the image about slice 4 is another
    slices = SliceModel(RegionModel(), Volume(data, blocks.affine), WINDOW, 1_000_000)
    inside = np.where(np.asarray(blocks.data[5]) == 100, 5.0, -5.0).astype(np.float32)
    smaller = np.where(np.pad(np.ones((4, 6), bool), ((4, 12), (5, 15))), 5.0, -5.0).astype(np.float32)
    one = marked_on(slices, 0, {5: inside})
    assert one == Marked(largest=80)
    several = marked_on(slices, 0, {4: smaller, 6: inside, 7: inside})
    own = [
        Appearance(without_noise(slices.image(0, z)), mask > 0).own
        for z, mask in ((4, smaller), (6, inside), (7, inside))
    ]
    assert several.largest == 80
    assert several.looks == pytest.approx(np.median(own))
    assert several.usual == pytest.approx(0.0, abs=1e-6)  # of six differences, those to slice 4's neighbours are two


def test_slices_without_a_mask_mark_nothing(blocks: Volume) -> None:
    slices = SliceModel(RegionModel(), blocks, WINDOW, 1_000_000)
    nothing = np.full((20, 26), -5.0, np.float32)
    assert marked_on(slices, 0, {3: nothing, 4: nothing}) == Marked()
