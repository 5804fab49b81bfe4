"""The tabs of the Attention dock: matrix, organs, causes, comparison, positions, export and tour, in a real window."""

from __future__ import annotations

import csv

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels
from qtpy.QtCore import QPoint, Qt

from napari_medtransformer.attention.ablation import ablated_heads
from napari_medtransformer.inspection.outline import token_lines
from napari_medtransformer.inspection.shares import share_inside
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.plugin.attention import inspector_tour
from napari_medtransformer.plugin.attention.dock import AttentionDock
from napari_medtransformer.plugin.layer_volume import SlicePoint
from napari_medtransformer.plugin.layers import image_layer
from napari_medtransformer.plugin.planes import set_plane
from napari_medtransformer.volumes import read_volume
from napari_medtransformer.volumes.reading import read_labels
from napari_medtransformer.volumes.sample_data import sample_label_names, sample_path

UPPER_SLICES = slice(96, 112)  # as in the fixture torso_file


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch):
    """Settings of this test alone."""
    from qtpy.QtCore import QSettings

    path = str(tmp_path / "settings.ini")
    monkeypatch.setattr(inspector_tour, "settings", lambda: QSettings(path, QSettings.Format.IniFormat))


@pytest.fixture
def organs():
    """A Labels layer of the sample's organs on the torso's slices, with names."""
    data = read_labels(sample_path("example_seg_fast_force_split.nii.gz")).data[UPPER_SLICES]
    names = sample_label_names("total")
    highest = max(names)
    features = {"index": list(range(highest + 1)), "name": ["background", *(names[i] for i in range(1, highest + 1))]}
    return data, features


@pytest.fixture
def asked(open_desk, torso, liver, organs):
    """A desk with image, organs and dock, and the liver's centre clicked in an axial slice."""
    layer = torso()
    data, features = organs
    labels = Labels(data, name="organs", scale=layer.scale, translate=layer.translate, features=features, visible=False)
    desk = open_desk(layer, labels)
    dock = AttentionDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, name="Attention", area="bottom")
    dock.tour.dismiss()
    set_plane(desk.viewer, 0)
    desk.show(liver)
    desk.prompt(liver)
    desk.wait()
    return desk, dock, desk.controller.attention


def wait_for_matrix(desk, state):
    desk.qtbot.waitUntil(lambda: bool(state.matrix) and state.matrix[0].query == state.answer.query, timeout=60_000)
    desk.wait()


def test_the_matrix_shows_every_head_and_a_click_chooses_site_and_head(asked) -> None:
    desk, dock, state = asked
    dock.look.matrix_button.click()
    wait_for_matrix(desk, state)
    view = dock.look.matrix
    assert list(view.content.sites) == [answer.site for answer in state.matrix]
    assert all(row for row in view.content.cells)
    place = view.cell_rect(2, 4).center()
    desk.qtbot.mouseClick(view, Qt.MouseButton.LeftButton, pos=QPoint(place.x(), place.y()))
    desk.wait()
    assert (state.site, state.head) == (view.content.sites[2], "4")
    dock.look.quantity.setCurrentIndex(dock.look.quantity.findData("entropy"))
    dock.look.refresh_matrix()
    assert dock.look.matrix.content.texts[1][3] == f"{state.matrix[1].entropy_nats[3]:.1f}"


def test_an_organ_asks_and_another_is_looked_at(asked, liver) -> None:
    desk, dock, state = asked
    z = liver[0]
    state.choose_asks("organ")
    dock.look.organ.choose("liver (organs)")
    desk.wait()
    labels = desk.viewer.layers["organs"].data
    oracle = state.inspection.probe.mean_row(state.site, labels[z] == 5)
    np.testing.assert_allclose(state.answer.heatmap.values, oracle.values, atol=1e-7)
    vertebra = next(organ for organ in state.organs() if organ.name.startswith("vertebrae"))
    dock.look.target.choose(f"{vertebra.name} (organs)")
    dock.look.find.click()
    desk.wait()
    asks, looked_at = labels[z] == 5, labels[z] == vertebra.value
    probe = state.inspection.probe
    shares = {f"encoder.{i}": share_inside(probe.mean_row(f"encoder.{i}", asks), looked_at) for i in range(6)}
    assert shares[state.site][int(state.head)] == pytest.approx(max(float(s.max()) for s in shares.values()))
    assert f"on {vertebra.name}" in dock.look.numbers.text()
    assert "attention query" not in desk.viewer.layers  # an organ is no one place


def test_an_object_that_is_looked_at_is_called_by_its_new_name(asked) -> None:
    desk, dock, _ = asked
    dock.look.target.choose("object 1 (marked here)")
    assert "on object 1" in dock.look.numbers.text()
    desk.controller.actions.rename_object(1, "my liver")
    desk.wait()
    assert dock.look.target.currentText() == "my liver (marked here)"
    assert "on my liver" in dock.look.numbers.text()


def test_a_pinned_voxel_goes_on_asking_while_others_are_clicked(asked, liver) -> None:
    desk, dock, state = asked
    dock.look.pin.setChecked(True)
    z = liver[0]
    desk.controller.queried.emit(SlicePoint((float(z), 80.0, 60.0), 0), False)
    desk.wait()
    assert state.query.voxel == liver
    dock.look.pin.setChecked(False)
    desk.controller.queried.emit(SlicePoint((float(z), 80.0, 60.0), 0), False)
    desk.wait()
    assert state.query.voxel == (z, 80, 60)


def test_outlines_are_drawn_and_taken_away_again(asked) -> None:
    desk, dock, state = asked
    dock.look.grid.setChecked(True)
    lines = state.layers.lines
    drawn = len(lines.data)
    assert drawn == len(token_lines(state.answer.heatmap.grid))
    assert set(np.unique(lines.data[:, 0, 0])) == {state.query.voxel[0]}
    dock.look.contour.setCurrentIndex(2)
    dock.look.contour.activated.emit(2)
    assert len(state.layers.lines.data) > drawn
    dock.look.grid.setChecked(False)
    state.restyle(contour=0.0)
    assert "attention outline" not in desk.viewer.layers


def test_switching_a_block_off_shows_the_masks_without_it(asked, liver) -> None:
    desk, dock, state = asked
    dock.show_page("Heads that matter")
    dock.cause.switches.toggle_site("decoder.1.image-to-prompt")
    desk.wait()
    inspection = state.inspection
    prompts = Prompts(np.array([liver[1:]], np.float32), np.array([1]))
    with ablated_heads(inspection.model, {"decoder.1.image-to-prompt": "all"}):
        without = inspection.model.decode(inspection.embedding, prompts)
    best = int(np.argmax(inspection.model.decode(inspection.embedding, prompts).scores))
    effect = dock.cause.switches.outcome[1]
    np.testing.assert_array_equal(effect.changed, without.logits[best] > 0)
    assert f"Dice {effect.dice:.3f}" in dock.cause.outcome.text()
    layer = desk.viewer.layers["without these heads"]
    np.testing.assert_array_equal(np.squeeze(layer.data) == 2, effect.whole & ~effect.changed)
    assert float(layer.translate[0]) == pytest.approx(float(desk.controller.layer.data_to_world(liver)[0]))
    dock.cause.all_on.click()
    assert "without these heads" not in desk.viewer.layers


def test_heads_are_ranked_in_the_background_and_it_can_be_cancelled(asked) -> None:
    desk, dock, _ = asked
    dock.show_page("Heads that matter")
    switches = dock.cause.switches
    dock.cause.rank.click()
    assert dock.cause.cancel.isEnabled()
    desk.qtbot.waitUntil(lambda: len(switches.effects) >= 2, timeout=120_000)
    dock.cause.cancel.click()
    desk.qtbot.waitUntil(lambda: not switches.running, timeout=120_000)
    desk.wait()
    known = len(switches.effects)
    assert 2 <= known < 60
    assert dock.cause.table.rowCount() == known
    dices = [float(dock.cause.table.item(i, 2).text()) for i in range(known)]
    assert dices == sorted(dices)
    assert not dock.cause.progress.isVisible()


def test_two_heads_are_compared_and_their_difference_drawn(asked) -> None:
    _desk, dock, state = asked
    dock.show_page("Compare")
    state.choose_head("1")
    dock.compare.keep.click()
    first = state.answer.on_pixels("1", smooth=False)
    state.choose_head("2")
    second = state.answer.on_pixels("2", smooth=False)
    expected = first / first.sum() - second / second.sum()
    np.testing.assert_allclose(dock.compare.comparison.difference, expected, atol=1e-9)
    dock.compare.as_layer.setChecked(True)
    np.testing.assert_allclose(np.squeeze(state.layers.heat.data), expected, atol=1e-7)
    low, high = state.layers.heat.contrast_limits
    assert low == -high
    dock.show_page("Look")
    np.testing.assert_allclose(np.squeeze(state.layers.heat.data), state.answer.on_pixels("2", smooth=True), rtol=1e-5)


def test_positions_are_shown_and_altered(asked, liver) -> None:
    desk, dock, state = asked
    dock.show_page("Positions")
    tab = dock.positions
    assert [tab.encoding.itemText(i) for i in range(3)] == ["encoder.position", "decoder.fourier", "sinusoidal"]
    assert tab.picture.picture is not None
    tab.as_layer.setChecked(True)
    table = tab.encodings[0]
    grid = state.answer.heatmap.grid
    token = grid.token_of(liver[1:])
    peak = np.unravel_index(np.argmax(state.layers.heat.data), state.layers.heat.data.shape)
    assert grid.token_of(peak[1:]) == token
    assert table.similarity(grid.grid_index(token)).max() == pytest.approx(1, abs=1e-5)
    tab.zero.click()
    desk.wait()
    assert "set to zero" in tab.effect.text()
    assert 1 in dock.cause.switches.outcome
    tab.back.click()
    assert dock.cause.switches.outcome == {}
    tab.encoding.setCurrentIndex(2)
    tab.encoding.activated.emit(2)
    tab.refresh()
    assert not tab.zero.isEnabled()  # it is not the model's own


def test_positions_say_nothing_of_another_image_and_come_back(asked, torso, liver) -> None:
    desk, dock, _state = asked
    dock.show_page("Positions")
    tab = dock.positions
    tab.view.setCurrentIndex(1)
    tab.view.activated.emit(1)
    said, explained, view = tab.described.text(), tab.explained.text(), tab.view.currentText()
    assert explained
    first, other = desk.controller.layer, torso()
    desk.viewer.add_layer(other)
    desk.controller.set_layer(other)
    assert "Click a voxel first" in tab.described.text()
    assert (tab.explained.text(), tab.picture.picture) == ("", None)
    assert not tab.encoding.isEnabled()
    desk.controller.set_layer(first)
    desk.show(liver)
    desk.prompt(liver)
    desk.wait()
    assert (tab.described.text(), tab.explained.text(), tab.view.currentText()) == (said, explained, view)
    assert tab.picture.picture is not None


def test_shares_figure_and_maps_are_taken_away(asked, tmp_path, torso_file) -> None:
    desk, dock, state = asked
    dock.show_page("Export")
    dock.export.labels.setCurrentIndex(dock.export.labels.findText("organs"))
    dock.export.refresh()
    assert sum(float(row[4]) for row in dock.export.rows) == pytest.approx(1, abs=1e-4)
    dock.export.save_table(tmp_path / "shares.csv")
    dock.export.save_figure(tmp_path / "heads.png")
    dock.export.save_maps(tmp_path / "heads.nii.gz")
    desk.wait()
    rows = list(csv.DictReader((tmp_path / "shares.csv").read_text().splitlines()))
    assert "liver" in {row["name"] for row in rows}
    assert (tmp_path / "heads.png").stat().st_size > 10_000
    image, maps = nib.load(torso_file), nib.load(tmp_path / "heads.nii.gz")
    assert maps.shape == (*image.shape, state.answer.heatmap.heads)
    np.testing.assert_array_equal(maps.affine, image.affine)
    state.choose_head("0")
    assert "262 kB for one head" in dock.export.needs.text()
    dock.export.full.click()
    desk.wait()
    assert dock.export.full_picture.picture.shape == (256, 256, 3)


def test_the_tour_is_shown_once(open_desk, torso) -> None:
    desk = open_desk(torso())
    dock = AttentionDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, name="Attention")
    assert not dock.tour.isHidden()
    for step in inspector_tour.STEPS[1:]:
        dock.tour.next.click()
        assert step.title in dock.tour.title.text()
        assert dock.page is dock._pages[step.page]
    dock.tour.next.click()
    assert dock.tour.isHidden()
    again = AttentionDock(desk.viewer)
    desk.viewer.window.add_dock_widget(again, name="Attention again")
    assert again.tour.isHidden()


@pytest.mark.parametrize("code", ["RAS", "LPS", "oblique"])
def test_the_drawn_maximum_lies_at_the_arrays_for_files_of_any_orientation(
    open_desk, tmp_path, torso_file, code
) -> None:
    image = nib.load(torso_file)
    if code == "oblique":
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
        image = nib.Nifti1Image(np.asanyarray(image.dataobj), turn @ image.affine)
    else:
        there = nib.orientations.axcodes2ornt(tuple(code))
        image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), there))
    path = tmp_path / f"{code}.nii.gz"
    nib.save(image, path)
    volume = read_volume(path)
    data, options, _ = image_layer(volume)
    desk = open_desk(Image(data, **options))
    dock = AttentionDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, name="Attention", area="bottom")
    state = desk.controller.attention
    state.restyle(smooth=False)
    desk.qtbot.waitUntil(lambda: desk.controller.session is not None, timeout=60_000)
    query = tuple(n // 2 for n in volume.shape)
    for axis in (0, 1, 2):
        set_plane(desk.viewer, axis)
        desk.show(query)
        desk.controller.queried.emit(SlicePoint(tuple(map(float, query)), axis), False)
        desk.wait()
        state.choose_head("1")
        heat = state.layers.heat
        drawn = np.unravel_index(int(np.argmax(heat.data)), heat.data.shape)
        voxel = np.round(desk.controller.layer.world_to_data(heat.data_to_world(drawn))).astype(int)
        # the oracle: the engine's row, looked up by its own table of pixels
        grid = state.inspection.site(state.site).key_grid
        asking = grid.token_of([c for a, c in enumerate(query) if a != axis])
        row = state.inspection.probe.rows(state.site, [asking])[1, 0].numpy().reshape(grid.shape)
        expected = row[np.ix_(*grid.pixel_tokens)]
        assert voxel[axis] == query[axis]
        assert expected[tuple(np.delete(voxel, axis))] == expected.max()
