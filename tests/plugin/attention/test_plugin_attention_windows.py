"""Automatic models in the Attention dock: the windows that hold the clicked voxel, in three axes, in a real viewer."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels
from turned_models import CARD, build_local, write_oriented

from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.models.registry import list_models
from napari_medtransformer.plugin.attention.dock import AttentionDock
from napari_medtransformer.plugin.attention.model import automatic_cards
from napari_medtransformer.plugin.attention.words import target_share
from napari_medtransformer.plugin.layer_volume import SlicePoint
from napari_medtransformer.plugin.layers import image_layer
from napari_medtransformer.plugin.prompts.dock import PromptDock
from napari_medtransformer.segmentation import segment
from napari_medtransformer.volumes import read_labels, read_volume
from napari_medtransformer.volumes.sample_data import sample_path


@pytest.fixture(scope="module")
def hippocampus_model():
    from napari_medtransformer.models.registry import load_model

    return load_model("medt-hippocampus", device="cpu")


@pytest.fixture(scope="module")
def brain():
    return read_volume(sample_path("hippocampus_003.nii.gz"))


@pytest.fixture(scope="module")
def anterior(brain) -> tuple[float, float, float]:
    """A voxel in the middle of the anterior hippocampus."""
    labels = read_labels(sample_path("hippocampus_003_labels.nii.gz")).data
    inside = np.argwhere(labels == 1)
    z, y, x = inside[np.abs(inside - inside.mean(axis=0)).sum(axis=1).argmin()]
    return float(z), float(y), float(x)


@pytest.fixture
def looking(open_desk, hippocampus_model, brain, anterior):
    """A desk with the dock open, the automatic model chosen and the voxel asked about."""
    data, options, _ = image_layer(brain)
    layer = Image(data, **options)
    labels = read_labels(sample_path("hippocampus_003_labels.nii.gz")).data
    desk = open_desk(layer)
    organs = Labels(labels, name="reference", **{k: getattr(layer, k) for k in ("scale", "translate", "units")})
    organs.features = {"index": [1, 2], "name": ["front", "back"]}
    desk.viewer.add_layer(organs)
    dock = AttentionDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, name="Attention", area="bottom")
    desk.controller.attention.inspected.use(hippocampus_model)
    desk.show(anterior)
    desk.controller.queried.emit(SlicePoint(anterior, 0), False)
    desk.wait()
    return desk, dock


def test_the_layer_in_three_axes_has_its_maximum_where_the_engine_has_it(
    looking, hippocampus_model, brain, anterior
) -> None:
    desk, dock = looking
    state = desk.controller.attention
    assert state.seen is not None
    state.restyle(smooth=False)
    state.choose_head("1")
    with AttentionProbe(hippocampus_model) as probe:
        segment(hippocampus_model, brain)
    expected = probe.heatmap(state.site, anterior).on_pixels(smooth=False)[1]
    heat = state.layers.heat
    np.testing.assert_allclose(np.asarray(heat.data), expected, rtol=1e-4, atol=1e-8)
    peak = np.unravel_index(int(np.argmax(np.asarray(heat.data))), heat.data.shape)
    voxel = desk.controller.layer.world_to_data(heat.data_to_world(peak))
    assert expected[tuple(round(float(v)) for v in voxel)] == expected.max()
    assert "anterior" in dock.look.query.text().lower()


def test_another_slice_of_the_same_window_is_answered_without_running_it_again(looking, anterior) -> None:
    desk, _ = looking
    state = desk.controller.attention
    runs = state.inspection.runs
    z, y, x = anterior
    desk.controller.queried.emit(SlicePoint((z - 2, y, x + 1), 1), False)
    desk.wait()
    assert state.inspection.runs is runs
    assert (state.inspection.plane.axis, state.inspection.plane.index) == (1, round(y))
    assert state.answer.query.zyx == (z - 2, y, x + 1)


def test_an_organ_asks_in_the_whole_volume_and_shares_are_counted_there(looking) -> None:
    desk, dock = looking
    state = desk.controller.attention
    front = next(organ for organ in state.organs() if organ.name == "front")
    state.choose_asking_organ(front)
    desk.wait()
    assert state.answer.asked == "front"
    back = next((organ for organ in state.organs() if organ.name == "back"), front)
    state.choose_target(back)
    assert 0 < target_share(state, "mean") < 1
    dock.show_page("Export")
    assert sum(float(row[4]) for row in dock.export.rows) == pytest.approx(1, abs=1e-3)
    dock.show_page("Look")
    dock.look.matrix_button.click()
    desk.qtbot.waitUntil(lambda: bool(state.matrix), timeout=120_000)
    assert [answer.site for answer in state.matrix] == [site.name for site in state.inspection.sites]
    assert all(answer.asked == "front" for answer in state.matrix)


def test_heads_switched_off_change_the_labels_and_say_how_much(looking) -> None:
    desk, dock = looking
    state = desk.controller.attention
    dock.show_page("Heads that matter")
    sites = [name for name, _ in dock.cause.switches.heads()]
    dock.cause.switches.toggle_site(sites[0])
    desk.wait()
    effects = dock.cause.switches.outcome
    assert set(effects) <= {1, 2}
    assert all(0 <= effect.dice <= 1 for effect in effects.values())
    assert "Dice" in dock.cause.outcome.text()
    dock.cause.relevance.click()
    desk.wait()
    assert np.asarray(state.layers.heat.data).ndim == 3
    assert np.asarray(state.layers.heat.data).sum() > 0


def test_windows_and_shifts_are_drawn_on_request(looking) -> None:
    desk, _ = looking
    state = desk.controller.attention
    shifted = next(entry.name for entry in state.sites if "shifted" in entry.window)
    state.choose_site(shifted)
    desk.wait()
    state.restyle(windows=True)
    assert state.layers.lines is not None
    assert len(state.layers.lines.data) > 4
    assert set(np.unique(np.asarray(state.layers.lines.data)[:, 0, 0])) == {float(state.where[1])}


def test_going_back_to_the_click_model_asks_it_the_same_voxel(looking, anterior) -> None:
    desk, dock = looking
    state = desk.controller.attention
    dock.look.models.setCurrentIndex(0)
    dock.look.models.activated.emit(0)
    desk.wait()
    assert not state.inspected.is_automatic
    assert state.answer.query.zyx == anterior
    assert np.asarray(state.layers.heat.data).shape[0] == 1


@pytest.mark.parametrize("name", ["LPS", "oblique SAL"])
def test_a_model_that_sees_the_patient_turned_is_looked_into_where_the_patient_was_clicked(
    open_desk, tmp_path, name
) -> None:
    world = write_oriented(tmp_path / "in.nii.gz", name)
    volume = read_volume(tmp_path / "in.nii.gz")
    zyx = tuple(float(c) for c in np.linalg.solve(volume.affine, [*world, 1])[:3].round())
    data, options, _ = image_layer(volume)
    desk = open_desk(Image(data, **options))
    dock = AttentionDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, name="Attention", area="bottom")
    state = desk.controller.attention
    state.inspected.use(build_local(CARD, None))
    desk.show(zyx)
    desk.controller.queried.emit(SlicePoint(zyx, 0), False)
    desk.wait()
    assert state.inspected.obstacle == ""
    assert [site.name for site in state.inspection.sites] == [s.name for s in state.inspected.model.attention_sites()]
    state.choose_site("encoder.0.1")
    state.restyle(smooth=True)
    state.choose_head("0")
    desk.wait()
    heat = state.layers.heat
    values = np.asarray(heat.data)
    peak = desk.controller.layer.world_to_data(
        heat.data_to_world(np.unravel_index(int(np.argmax(values)), values.shape))
    )
    # tokens of 2 voxels
    assert (np.abs(np.asarray(peak) - zyx) <= 2).all(), (peak, zyx)
    assert values.max() > 5 * np.median(values)


def test_a_click_asks_the_automatic_model_and_marks_nothing_until_a_prompt_dock_is_open(looking, anterior) -> None:
    desk, _dock = looking
    z, y, x = anterior
    desk.click(desk.controller.layer, (z, y + 2, x))
    desk.wait()
    assert desk.controller.attention.answer.query.zyx == pytest.approx((z, y + 2, x), abs=0.6)
    assert not desk.controller.session.prompts
    desk.viewer.window.add_dock_widget(PromptDock(desk.viewer), name="Prompt")
    desk.wait()
    desk.click(desk.controller.layer, (z, y, x + 2))
    desk.wait()
    assert len(desk.controller.session.prompts) == 1


def test_a_map_of_a_volume_is_coloured_up_to_the_maximum_of_the_slice_that_was_asked(looking) -> None:
    desk, _dock = looking
    state = desk.controller.attention
    heat, (axis, index) = state.layers.heat, state.where
    here, everywhere = np.take(heat.data, index, axis).max(), heat.data.max()
    assert 0 < here < everywhere
    assert heat.contrast_limits[1] == pytest.approx(here, rel=1e-3)


def test_a_model_without_weights_is_not_offered() -> None:
    names = {card.name for card in automatic_cards()}
    assert "medt-hippocampus" in names
    assert not names & {card.name for card in list_models() if card.weights is None}
