"""Automatic models looked into: windows of a volume, stitched, against the probe over a whole segmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_medtransformer.attention.ablation import ablated_heads
from napari_medtransformer.attention.positions import PositionTable
from napari_medtransformer.errors import PointOutsideVolume, QueryOutOfGrid, UnsupportedModel
from napari_medtransformer.inspection import AttentionProbe
from napari_medtransformer.inspection.ablation import dice
from napari_medtransformer.inspection.answering import ask
from napari_medtransformer.inspection.cuts import cut_heatmap
from napari_medtransformer.inspection.export import answer_shares, answer_volume
from napari_medtransformer.inspection.matrix import head_matrix, matrix_steps
from napari_medtransformer.inspection.position_views import AROUND, position_view, shown_encodings, views_of
from napari_medtransformer.inspection.queries import ROLLOUT, EverythingQuery, PromptQuery, RegionQuery, VoxelQuery
from napari_medtransformer.inspection.volume_ablation import labels_without, rank_heads_for_label
from napari_medtransformer.inspection.volume_queries import ask_everywhere_steps
from napari_medtransformer.inspection.windows import inspect_windows, inspect_windows_steps, starts_holding
from napari_medtransformer.models import InputContract, LabelInfo, ModelCard
from napari_medtransformer.models.base import PromptToken
from napari_medtransformer.models.compact import CompactConfig, compact_network
from napari_medtransformer.models.window_model import WindowModel
from napari_medtransformer.progress import Progress, run_to_end
from napari_medtransformer.segmentation import segment
from napari_medtransformer.segmentation.window_plan import plan_windows
from napari_medtransformer.volumes import Volume

WINDOW = (16, 16, 16)
VOXEL = (9.0, 13.0, 12.0)


def automatic(kind: str, spacing_mm: tuple[float, ...] | None = None) -> WindowModel:
    """A small automatic model with random weights and windows of 16³."""
    card = ModelCard(
        name=f"test-{kind}",
        title="For tests",
        family=kind,
        builder="napari_medtransformer.models.swin_unetr:build",
        task="automatic",
        dimensions=3,
        input=InputContract(WINDOW, spacing_mm=spacing_mm),
        licence="BSD-3-Clause",
        citation="none",
        description="For tests.",
        labels=(LabelInfo(1, "front", (1.0, 0.5, 0.0)), LabelInfo(2, "back", (0.0, 0.5, 1.0))),
    )
    network = compact_network(CompactConfig(kind, 3, WINDOW, width=8, hidden=24, layers=3, heads=2), 0)
    return WindowModel(card, network, torch.device("cpu"), torch.float32, multiple=8)


@pytest.fixture(scope="module", params=["swin-unetr", "unetr"])
def model(request) -> WindowModel:
    return automatic(request.param)


@pytest.fixture(scope="module")
def volume() -> Volume:
    data = np.random.default_rng(0).normal(size=(20, 28, 16)).astype(np.float32)
    return Volume.from_array(data, (2.0, 1.0, 1.5), "MR")


@pytest.fixture(scope="module")
def engine(model, volume) -> AttentionProbe:
    """Everything that the model does while it segments the volume."""
    with AttentionProbe(model) as probe:
        segment(model, volume)
    return probe


@pytest.fixture(scope="module")
def inspection(model, volume):
    return inspect_windows(plan_windows(model, volume), VOXEL)


def test_the_plan_has_the_windows_that_a_segmentation_runs(model, volume) -> None:
    heard, seen = [], []
    model.on_encode.append(heard.append)
    hook = model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    try:
        segment(model, volume)
    finally:
        model.on_encode.clear()
        hook.remove()
    plan = plan_windows(model, volume)
    assert {plan.placement(start) for start in plan.starts} == set(heard)
    for start in plan.starts:
        read = plan.read(start)
        assert torch.equal(seen[heard.index(plan.placement(start))], read)


def test_a_voxels_heatmap_and_rollout_equal_the_engines_over_the_whole_volume(inspection, engine) -> None:
    for site in inspection.sites:
        answer, expected = ask(inspection, site.name, VoxelQuery(VOXEL)), engine.heatmap(site.name, VOXEL)
        np.testing.assert_allclose(
            answer.solid.on_pixels(smooth=False), expected.on_pixels(smooth=False), rtol=1e-5, atol=1e-9
        )
        np.testing.assert_allclose(answer.solid.values.sum(axis=(1, 2, 3)), 1, rtol=1e-5)
    rollout = ask(inspection, ROLLOUT, VoxelQuery(VOXEL))
    np.testing.assert_allclose(
        rollout.solid.on_pixels(smooth=False), engine.rollout(VOXEL).on_pixels(smooth=False), rtol=1e-5, atol=1e-9
    )


def test_an_organ_and_everything_ask_in_all_windows_of_the_volume(inspection, engine, volume) -> None:
    mask = np.zeros(volume.shape, bool)
    mask[2:18, 3:25, 4:8] = True
    site = inspection.sites[0].name
    windows: list[Progress] = []
    organ = run_to_end(ask_everywhere_steps(inspection, [site], RegionQuery("front", mask)), windows.append)[0]
    everything = run_to_end(ask_everywhere_steps(inspection, [site], EverythingQuery()), windows.append)[0]
    expected = engine.mean_row(site, mask), engine.received(site)
    for answer, heatmap in zip((organ, everything), expected, strict=True):
        np.testing.assert_allclose(
            answer.solid.on_pixels(smooth=False), heatmap.on_pixels(smooth=False), rtol=1e-4, atol=1e-8
        )
    assert len(windows) == 2 * len(inspection.windows.starts)


def test_entropy_and_distance_are_means_over_the_windows_that_hold_the_voxel(inspection, engine) -> None:
    site = inspection.sites[0].name
    answer = ask(inspection, site, VoxelQuery(VOXEL))
    found = []
    for call in range(engine.calls(site)):
        captured = engine.captured(site, call=call)
        if captured.site.query_grid.holds(VOXEL):
            rows = captured.rows(torch.tensor([captured.site.query_grid.token_of(VOXEL)]))[:, 0]
            found.append(torch.special.entr(rows).sum(dim=-1).numpy())
    assert len(found) == len(inspection.runs.starts) > 1
    np.testing.assert_allclose(answer.entropy_nats, np.mean(found, axis=0), rtol=1e-5)
    assert np.isfinite(answer.distance_mm).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_cut_has_the_maximum_where_the_whole_has_it(inspection, axis) -> None:
    answer = ask(inspection, inspection.sites[0].name, VoxelQuery(VOXEL))
    whole = answer.solid.on_pixels(smooth=False)
    index = int(np.unravel_index(int(np.argmax(whole[0])), whole.shape[1:])[axis])
    flat = cut_heatmap(answer.solid, axis, index, smooth=False).on_pixels(smooth=False)
    np.testing.assert_allclose(flat, whole.take(index, axis + 1), rtol=1e-6)


def test_the_same_windows_answer_for_another_voxel_and_slice_without_running_again(inspection, engine) -> None:
    other = (10.0, 12.0, 3.0)
    assert inspection.holds(other)
    moved = inspection.at(other, 1)
    assert moved.runs is inspection.runs
    assert (moved.plane.axis, moved.plane.index) == (1, 12)
    site = inspection.sites[-1].name
    answer = ask(moved, site, VoxelQuery(other))
    np.testing.assert_allclose(
        answer.solid.on_pixels(smooth=False), engine.heatmap(site, other).on_pixels(smooth=False), rtol=1e-5, atol=1e-9
    )
    assert not inspection.holds((0.0, 0.0, 0.0))


def test_shares_and_maps_count_the_whole_volume(inspection, volume) -> None:
    labels = np.zeros(volume.shape, np.uint8)
    labels[:10], labels[10:, :14] = 1, 2
    site = inspection.sites[0].name
    answer = ask(inspection, site, VoxelQuery(VOXEL))
    table = answer_shares(inspection, answer, labels, {1: "front", 2: "back"})
    for head in answer.heads:
        assert sum(float(row[4]) for row in table[1:] if row[1] == head) == pytest.approx(1, abs=1e-4)
    answers = run_to_end(matrix_steps(inspection, VoxelQuery(VOXEL)))
    shares = head_matrix(answers, "share", labels == 1)
    row = next(row for row in table[1:] if row[1] == "0" and row[3] == "front")
    assert shares.values[0, 0] == pytest.approx(100 * float(row[4]), abs=1e-3)
    np.testing.assert_array_equal(answer_volume(inspection, answer), answer.solid.on_pixels(smooth=False))


def test_what_cannot_ask_is_refused_in_one_line(inspection) -> None:
    site = inspection.sites[0].name
    with pytest.raises(QueryOutOfGrid, match="no prompts"):
        ask(inspection, site, PromptQuery(0, PromptToken("point 1")))
    with pytest.raises(PointOutsideVolume, match="outside the volume"):
        starts_holding(inspection.windows, (50.0, 0.0, 0.0))
    with pytest.raises(QueryOutOfGrid, match="no voxel"):
        ask(inspection, site, RegionQuery("nothing", np.zeros(inspection.volume.shape, bool)))


def test_stopped_between_two_windows_nothing_goes_on_watching(model, volume) -> None:
    steps = inspect_windows_steps(plan_windows(model, volume), VOXEL)
    next(steps)
    next(steps)
    assert model.on_encode == []  # no probe is open while another may run
    steps.close()
    assert model.on_encode == []


def test_a_resampled_volume_is_asked_in_its_own_voxels(volume) -> None:
    model = automatic("swin-unetr", spacing_mm=(1.5, 1.5, 1.5))
    with AttentionProbe(model) as engine:
        segment(model, volume)
    inspection = inspect_windows(plan_windows(model, volume), VOXEL)
    answer = ask(inspection, "encoder.0.1", VoxelQuery(VOXEL))
    expected = engine.heatmap("encoder.0.1", VOXEL)
    np.testing.assert_allclose(
        answer.solid.on_pixels(smooth=False), expected.on_pixels(smooth=False), rtol=1e-5, atol=1e-9
    )
    assert answer.lines.window is not None
    assert any(answer.lines.shift)


def test_every_picture_of_every_encoding_can_be_made_in_three_axes(inspection) -> None:
    encodings = shown_encodings(inspection)
    assert any(isinstance(encoding, PositionTable) and len(encoding.grid) == 3 for encoding in encodings)
    biased = any(inspection.captured(site).call.bias is not None for site in inspection.sites)
    for encoding in encodings:
        for view in views_of(encoding):
            if view == AROUND and not biased:
                with pytest.raises(UnsupportedModel, match="adds no relative position"):
                    position_view(inspection, encoding, view, VOXEL)
            else:
                assert position_view(inspection, encoding, view, VOXEL).values.ndim == 2


def test_labels_without_heads_and_their_ranking_agree_with_the_engines_ablation(model, volume) -> None:
    cube = Volume.from_array(volume.data[:16, :16, :16], (2.0, 1.0, 1.5), "MR")
    plan = plan_windows(model, cube)
    inspection = inspect_windows(plan, (8.0, 8.0, 8.0))
    site = inspection.sites[0].name
    whole = model.logits(plan.read((0, 0, 0)))[0].argmax(0).numpy()
    with ablated_heads(model, {site: "all"}):
        changed = model.logits(plan.read((0, 0, 0)))[0].argmax(0).numpy()
    effects = labels_without(inspection, {site: "all"})
    assert effects
    for value, effect in effects.items():
        assert effect.dice == pytest.approx(dice(changed == value, whole == value), abs=1e-6)
        np.testing.assert_array_equal(effect.whole, (whole == value)[8])
        np.testing.assert_array_equal(effect.changed, (changed == value)[8])
    label = int(np.bincount(whole.ravel(), minlength=3)[1:].argmax()) + 1
    with ablated_heads(model, {site: [0]}):
        one = model.logits(plan.read((0, 0, 0)))[0].argmax(0).numpy()
    ranked = run_to_end(rank_heads_for_label(inspection, label))
    assert len(ranked) == sum(spec.heads for spec in model.attention_sites())
    assert ranked[0].dice == pytest.approx(dice(one == label, whole == label), abs=1e-6)
