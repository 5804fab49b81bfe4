"""The Attention dock: its layer lies where the array says, its numbers are the engine's; empty, it says why."""

from __future__ import annotations

import re

import numpy as np
import pytest

from napari_medtransformer.inspection import AttentionProbe, inspect_slice
from napari_medtransformer.inspection.answering import ask
from napari_medtransformer.inspection.queries import VoxelQuery
from napari_medtransformer.inspection.shares import shares_by_label
from napari_medtransformer.plugin.attention.dock import AttentionDock
from napari_medtransformer.plugin.attention.pictures import fitting_size, resampled, thumbnail
from napari_medtransformer.plugin.attention.words import numbers_line
from napari_medtransformer.plugin.layer_volume import SlicePoint
from napari_medtransformer.plugin.planes import set_plane
from napari_medtransformer.volumes import apply_window, read_volume


@pytest.fixture
def asked(open_desk, torso, liver):
    """A desk with the dock open and the liver's centre asked about, in the plane across `axis`."""

    def ask(axis: int = 0):
        layer = torso()
        desk = open_desk(layer)
        dock = AttentionDock(desk.viewer)
        desk.viewer.window.add_dock_widget(dock, name="Attention", area="bottom")
        set_plane(desk.viewer, axis)
        desk.show(liver)
        desk.prompt(liver, axis)
        desk.wait()
        return desk, dock

    return ask


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_drawn_maximum_lies_at_the_voxel_where_the_array_has_it(asked, axis, liver) -> None:
    desk, _dock = asked(axis)
    state = desk.controller.attention
    state.restyle(smooth=False)
    state.choose_head("2")
    heat = state.layers.heat
    # The oracle: the engine's row, reshaped by hand to the token grid and looked up through its own pixel table.
    probe, site = state.inspection.probe, state.answer.site
    grid = probe.site(site).key_grid
    here = [liver[a] for a in range(3) if a != axis]
    row = probe.rows(site, [grid.token_of(here)])[2, 0].numpy().reshape(grid.shape)
    expected = row[np.ix_(*grid.pixel_tokens)]

    drawn = np.squeeze(np.asarray(heat.data), axis=axis)
    np.testing.assert_allclose(drawn, expected, rtol=1e-5)
    peak = np.unravel_index(np.argmax(np.asarray(heat.data)), heat.data.shape)
    volume_voxel = np.asarray(desk.controller.layer.world_to_data(heat.data_to_world(peak)))
    in_slice = tuple(round(float(volume_voxel[a])) for a in range(3) if a != axis)
    assert expected[in_slice] == expected.max()
    assert round(float(volume_voxel[axis])) == liver[axis]


def test_every_head_has_a_thumbnail_and_choosing_one_draws_it(asked) -> None:
    desk, dock = asked()
    state = desk.controller.attention
    heads = state.answer.heatmap.heads
    assert [dock.look.heads.item(i).text().split(" ")[0] for i in range(heads)] == [str(i) for i in range(heads)]
    assert dock.look.heads.count() == heads + 2
    dock.look.heads.setCurrentRow(1)
    assert state.head == "1"
    np.testing.assert_allclose(
        np.squeeze(np.asarray(state.layers.heat.data)), state.answer.heatmap.on_pixels(smooth=True)[1], rtol=1e-6
    )
    assert "Head 1" in dock.look.numbers.text()


def test_the_peak_of_what_all_tokens_give_is_a_share_of_it(asked) -> None:
    desk, _dock = asked()
    state = desk.controller.attention
    state.choose_asks("everything")
    desk.wait()
    for name in state.answer.names:
        state.choose_head(name)
        told = numbers_line(state)
        assert 0 < float(re.search(r"peak <?([0-9.]+) ?%", told)[1]) <= 100, told


def test_another_contrast_is_looked_at_anew(asked, liver) -> None:
    desk, _dock = asked()
    controller, state = desk.controller, desk.controller.attention
    before = state.answer.heatmap.values.copy()
    controller.layer.contrast_limits = (-1000.0, -200.0)
    desk.qtbot.waitUntil(lambda: controller.session.window == (-1000.0, -200.0))
    desk.wait()
    seen = state.inspection
    assert seen.window == controller.session.window
    fresh = inspect_slice(controller.model, seen.volume, 0, liver[0], window=controller.session.window)
    expected = ask(fresh, state.answer.site, VoxelQuery(liver)).heatmap.values
    np.testing.assert_allclose(state.answer.heatmap.values, expected, atol=2e-3)
    assert np.abs(expected - before).max() > 2e-2


def test_another_site_answers_for_the_same_voxel(asked, liver) -> None:
    desk, _dock = asked()
    state = desk.controller.attention
    names = [entry.name for entry in state.sites]
    assert names[0] == "encoder.0"
    assert any(name.endswith("prompt-to-image") for name in names)
    state.choose_site("encoder.0")
    desk.wait()
    assert state.answer.site == "encoder.0"
    assert state.query.voxel == liver


def test_a_slice_is_encoded_for_the_probe_once(asked, monkeypatch, liver) -> None:
    desk, _ = asked()
    encoded = []
    real = desk.controller.model.encode
    monkeypatch.setattr(desk.controller.model, "encode", lambda *a, **k: encoded.append(1) or real(*a, **k))
    state = desk.controller.attention
    z, y, x = liver
    for step in range(4):
        desk.controller.queried.emit(SlicePoint((float(z), float(y + step), float(x)), 0), False)
        desk.wait()
    assert encoded == []
    assert state.query.voxel == (z, y + 3, x)


def test_the_numbers_are_the_engines(click_model, liver, torso_file) -> None:
    volume = read_volume(torso_file)
    z, y, x = liver
    answer = ask(inspect_slice(click_model, volume, 0, z), "encoder.1", VoxelQuery((float(z), float(y), float(x))))

    with AttentionProbe(click_model) as probe:
        click_model.encode(apply_window(volume.data[z], volume.window), volume.spacing[1:])
    token = probe.site("encoder.1").query_grid.token_of((y, x))
    entropy, distance = probe.entropy_and_distance("encoder.1", volume.spacing[1:])
    np.testing.assert_allclose(answer.entropy_nats, entropy[:, token], rtol=1e-4)
    np.testing.assert_allclose(answer.distance_mm, distance[:, token], rtol=1e-4)


def test_at_the_decoder_the_newest_click_asks_until_another_token_is_chosen(asked, liver) -> None:
    desk, dock = asked()
    state = desk.controller.attention
    z, y, x = liver
    desk.prompt((z, y + 6, x + 4))
    desk.wait()
    site = next(entry.name for entry in state.sites if entry.name.endswith("prompt-to-image"))
    state.choose_site(site)
    desk.wait()
    assert state.answer.mark_yx == (y + 6, x + 4)
    names = [dock.look.prompts.itemText(i) for i in range(dock.look.prompts.count())]
    assert names[:5] == ["newest point", "mask 1", "mask 2", "mask 3", "score"]
    state.choose_prompt(dock.look.prompts.itemData(names.index("point 1 (+)")))
    desk.wait()
    assert state.answer.mark_yx == (y, x)
    expected = state.inspection.decoded.rows(site, [names.index("point 1 (+)") - 1])[:, 0]
    np.testing.assert_allclose(state.answer.heatmap.values.reshape(expected.shape), expected, atol=1e-7)


def test_find_chooses_the_head_with_the_largest_share_on_the_object(asked) -> None:
    desk, dock = asked()
    state = desk.controller.attention
    mask = desk.controller.workspace.masks.data[state.query.voxel[0]] == 1
    shares = {}
    for site in (entry.name for entry in state.sites if entry.name.startswith("encoder")):
        heatmap = state.inspection.probe.heatmap(site, state.answer.mark_yx)
        for head, over in enumerate(shares_by_label(heatmap, mask.astype(int)).shares[:, 1]):
            shares[site, str(head)] = over
    dock.look.find.click()
    desk.wait()
    assert (state.site, state.head) == max(shares, key=shares.get)
    told = dock.look.numbers.text()
    assert "% on object 1 (" in told
    assert float(told.split("% on object 1")[0].split(" · ")[-1]) == pytest.approx(100 * max(shares.values()), abs=0.51)
    extent = float(state.target_mask().mean())
    assert f"({max(shares.values()) / extent:.1f} times an even share)" in told


def test_numbers_of_another_plane_are_not_told_while_its_answer_is_awaited(asked, liver) -> None:
    desk, dock = asked()
    state = desk.controller.attention
    assert "% on" in dock.look.numbers.text()
    set_plane(desk.viewer, 1)
    desk.prompt(liver, 1)  # answered by the worker, later
    assert state.where == (1, liver[1]), "the query is already the new one"
    desk.controller.changed.emit()
    assert dock.look.numbers.text() == ""
    desk.wait()
    assert "% on" in dock.look.numbers.text()


def test_an_empty_dock_says_what_to_do(open_desk, torso) -> None:
    desk = open_desk(model=None)
    dock = AttentionDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, name="Attention")
    assert "Open a CT or MR volume" in dock.look.message.text()
    desk.viewer.add_layer(torso())
    assert "model" in dock.look.message.text()


def test_the_dock_opened_alone_takes_the_image_and_the_bundled_model(open_desk, torso, liver) -> None:
    desk = open_desk(model=None)
    layer = torso()
    desk.viewer.add_layer(layer)
    dock = AttentionDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, name="Attention", area="bottom")
    assert desk.controller.layer is layer
    desk.wait()
    assert "Click a voxel" in dock.look.message.text()
    desk.show(liver)
    desk.qtbot.wait(100)
    desk.click(layer, liver)
    desk.wait()
    assert desk.controller.attention.answer is not None
    assert desk.controller.model.card.name == "medt-click-tiny"
    assert dock.look.heads.count() == desk.controller.attention.answer.heatmap.heads + 2


def test_how_the_map_is_drawn_can_be_chosen_before_the_first_click(open_desk, torso, liver) -> None:
    desk = open_desk(torso())
    dock = AttentionDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, name="Attention", area="bottom")
    dock.look.smooth.click()
    dock.look.grid.click()
    desk.show(liver)
    desk.prompt(liver)
    desk.wait()
    state = desk.controller.attention
    np.testing.assert_array_equal(np.squeeze(state.layers.heat.data), state.answer.on_pixels(state.head, smooth=False))
    assert "attention outline" in desk.viewer.layers


def test_hiding_the_map_takes_its_layers_away_and_showing_brings_them_back(asked) -> None:
    desk, dock = asked()
    layers = desk.viewer.layers
    assert {"attention", "attention query"} <= {layer.name for layer in layers}
    dock.look.shown.setChecked(False)
    assert not {"attention", "attention query"} & {layer.name for layer in layers}
    dock.look.shown.setChecked(True)
    assert {"attention", "attention query"} <= {layer.name for layer in layers}


def test_the_user_may_delete_the_map_and_the_next_click_draws_it_again(asked, liver) -> None:
    desk, _ = asked()
    desk.viewer.layers.remove("attention")
    z, y, x = liver
    desk.prompt((z, y + 3, x))
    desk.wait()
    assert "attention" in desk.viewer.layers


def test_a_thumbnail_is_grey_anatomy_where_there_is_no_heat_and_its_brightest_where_heat_is() -> None:
    grey = np.full((40, 60), 0.5)
    heat = np.zeros((4, 6))
    heat[1, 4] = 2.0
    picture = thumbnail(grey, heat, colour_map="inferno")
    assert (picture[30:, :20] == 127).all()
    brightest = np.unravel_index(picture.sum(axis=2).argmax(), picture.shape[:2])
    assert (brightest[0] // 10, brightest[1] // 10) == (1, 4)
    upside_down = thumbnail(grey, heat, colour_map="inferno", upside_down=True)
    np.testing.assert_array_equal(upside_down, picture[::-1])


def test_resampling_keeps_a_ramp_and_its_ends_in_place() -> None:
    ramp = np.tile(np.linspace(0, 1, 50), (30, 1))
    small = resampled(ramp, (6, 10))
    # Each of the ten columns is the mean of five: the ramp at the centre of that five.
    np.testing.assert_allclose(small[2], ramp[0].reshape(10, 5).mean(axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("extent", "expected"), [((100, 200), (50, 100)), ((200, 100), (100, 50)), ((5, 5), (100, 100))]
)
def test_pictures_keep_true_proportions(extent, expected) -> None:
    assert fitting_size(extent, 100, 100) == expected


def test_a_rollout_is_called_by_all_heads_and_not_by_the_first() -> None:
    from napari_medtransformer.plugin.attention.words import ROLLOUT, head_title

    assert head_title("0", ROLLOUT) == "All heads"
    assert head_title("0", "encoder.1") == "Head 0"
