"""The Prompt dock in a real window: nothing clipped, reasons for what is disabled, files on the image's own grid."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtWidgets import QAbstractButton, QComboBox, QFileDialog, QLabel
from scipy.spatial.distance import pdist

from napari_medtransformer.plugin.attention.dock import AttentionDock
from napari_medtransformer.plugin.docking import arrange
from napari_medtransformer.plugin.planes import plane_of
from napari_medtransformer.plugin.prompts.dock import PromptDock
from napari_medtransformer.plugin.segment.dock import SegmentDock
from napari_medtransformer.plugin.widgets.style import Column


def click_on(desk, liver) -> None:
    desk.show(liver)
    desk.prompt(liver)
    desk.wait()
    desk.qtbot.wait(300)  # measuring waits for quiet
    desk.wait()


@pytest.mark.parametrize("height", [300, 900])
@pytest.mark.parametrize(("make", "widest"), [(PromptDock, 380), (AttentionDock, 560)])  # the latter is a strip below
def test_nothing_in_a_dock_of_least_width_is_cut_off(open_desk, torso, make, widest, height) -> None:
    desk = open_desk(torso())
    dock = make(desk.viewer)
    docked = desk.viewer.window.add_dock_widget(dock, name="dock", area="right")
    docked.setFloating(True)
    desk.qtbot.wait(50)
    docked.resize(dock.minimumSizeHint().width(), height)
    desk.qtbot.wait(50)
    assert dock.width() <= widest
    shown = [w for w in (*dock.findChildren(QAbstractButton), *dock.findChildren(QComboBox)) if w.isVisible()]
    assert len(shown) > 3
    for widget in shown:
        right = widget.mapTo(dock, widget.rect().topRight()).x()
        assert right < dock.width(), f"{widget.toolTip()!r} ends at {right} of {dock.width()}"
        if isinstance(widget, QAbstractButton) and widget.text():
            needed = widget.fontMetrics().horizontalAdvance(widget.text())
            assert widget.width() >= needed, f"{widget.text()!r} needs {needed} px and has {widget.width()}"


def test_docks_opened_from_the_menu_share_one_controller(open_desk, torso, liver) -> None:
    desk = open_desk(torso())
    _, prompt = desk.viewer.window.add_plugin_dock_widget("napari-medtransformer", "Prompt")
    _, attention = desk.viewer.window.add_plugin_dock_widget("napari-medtransformer", "Attention")
    assert prompt.controller is desk.controller
    assert attention.controller is desk.controller
    desk.prompt(liver)
    desk.wait()
    assert desk.controller.session.labels[liver] == 1
    assert len(attention.state.answer.heatmap.values) > 2


def test_docks_that_do_not_fit_below_one_another_become_tabs(open_desk, torso) -> None:
    desk = open_desk(torso())
    window = desk.viewer.window._qt_window
    room = window.screen().availableGeometry().height()
    for name in ("Prompt", "Segment", "Volume", "Attention"):
        _, dock = desk.viewer.window.add_plugin_dock_widget("napari-medtransformer", name)
        desk.qtbot.waitUntil(dock.isVisible)
        desk.qtbot.wait(50)
        assert not dock.visibleRegion().isEmpty(), "the newest dock is in front"
        assert window.minimumSizeHint().height() <= room
        assert window.height() <= room


def all_is_shown(dock) -> bool:
    """Whether nothing of what a dock holds needs scrolling."""
    (column,) = (column for column in dock.findChildren(Column) if column.isVisible())
    return column.widget().sizeHint().height() <= column.viewport().height()


@pytest.mark.parametrize("kinds", [(PromptDock, AttentionDock), (AttentionDock, PromptDock)])
def test_heads_go_below_the_canvas_where_prompts_would_be_hidden(open_desk, torso, kinds) -> None:
    desk = open_desk(torso())
    window = desk.viewer.window._qt_window
    window.resize(1600, 1000)
    desk.qtbot.wait(50)

    def in_view() -> float:
        """Millimetres from the canvas' top to its bottom."""
        return window.centralWidget().height() / desk.viewer.scene.camera.zoom

    docks, before = {}, in_view()
    for kind in kinds:
        docks[kind] = kind(desk.viewer)
        desk.viewer.window.add_dock_widget(docks[kind], name=kind.__name__, area="right")
        desk.qtbot.wait(50)
    areas = {kind: window.dockWidgetArea(dock.parent()).name for kind, dock in docks.items()}
    assert areas == {PromptDock: "RightDockWidgetArea", AttentionDock: "BottomDockWidgetArea"}
    assert in_view() == pytest.approx(before, rel=0.02), "what was in view still is"
    assert all_is_shown(docks[PromptDock])
    assert docks[PromptDock].height() > 800, "the strip is as wide as the canvas, not as the window"
    assert window.height() <= 1000


def test_in_a_low_window_docks_become_tabs_and_the_canvas_keeps_its_height(open_desk, torso) -> None:
    desk = open_desk(torso())
    window = desk.viewer.window._qt_window
    window.resize(1200, 760)
    docks = []
    for kind in (PromptDock, AttentionDock):
        docks.append(kind(desk.viewer))
        desk.viewer.window.add_dock_widget(docks[-1], area="right")
        desk.qtbot.wait(50)
    prompt, attention = docks
    assert prompt.visibleRegion().isEmpty()
    assert not attention.visibleRegion().isEmpty(), "the newest dock is in front"
    assert window.dockWidgetArea(attention.parent()).name == "RightDockWidgetArea"
    assert desk.viewer.window._qt_viewer.height() > 600


def test_docks_lie_below_one_another_where_both_show_all_they_hold(open_desk, torso) -> None:
    desk = open_desk(torso())
    desk.viewer.window._qt_window.resize(1600, 1000)
    segment = SegmentDock(desk.viewer)
    desk.viewer.window.add_dock_widget(segment, area="right")
    desk.qtbot.wait(50)
    low = Column(QLabel("a dock that holds little"))
    arrange(low, desk.viewer)
    desk.viewer.window.add_dock_widget(low, area="right")
    desk.qtbot.wait(50)
    assert not segment.visibleRegion().isEmpty()
    assert not low.visibleRegion().isEmpty()
    assert all_is_shown(segment)


def test_an_image_opened_later_is_taken_up_and_one_closed_is_let_go(docked, torso) -> None:
    desk, dock = docked()
    assert "Open a CT or MR volume" in dock.status.text()
    layer = torso()
    desk.viewer.add_layer(layer)
    desk.wait()
    assert desk.controller.layer is layer
    assert dock.layer_choice.currentText() == "torso_ct"
    desk.viewer.layers.remove(layer)
    assert desk.controller.layer is None
    desk.qtbot.wait(50)
    assert "Open a CT or MR volume" in dock.status.text()


def test_disabled_buttons_say_why(docked, torso, liver) -> None:
    desk, dock = docked(torso())
    prompt, work = dock.prompt, dock.work
    mask = prompt.masks.buttons[0]
    for button in (prompt.undo, prompt.redo, mask, prompt.clear, work.propagate, work.save, work.commit):
        assert not button.isEnabled()
        assert "Not now:" in button.toolTip()
    click_on(desk, liver)
    for button in (prompt.undo, mask, prompt.clear, work.propagate, work.save, work.commit, *work.edits.values()):
        assert button.isEnabled(), button.toolTip()
        assert "Not now:" not in button.toolTip()


def test_the_status_says_what_the_model_answered(docked, torso, liver) -> None:
    desk, dock = docked(torso())
    click_on(desk, liver)
    assert "1 point" in dock.status.text()
    assert "mask" in dock.status.text()
    assert "expected overlap" in dock.status.text()


def test_objects_are_listed_with_their_millilitres(docked, torso, liver) -> None:
    desk, dock = docked(torso())
    click_on(desk, liver)
    voxels = int((desk.controller.session.labels == 1).sum())
    item = dock.work.objects.topLevelItem(0)
    assert float(item.text(3).split()[0]) == pytest.approx(voxels * 0.027, rel=0.05)  # 3 mm cubes of 0.027 ml
    desk.controller.actions.rename_object(1, "liver")
    desk.qtbot.wait(50)
    assert dock.work.objects.topLevelItem(0).text(1) == "liver"
    assert list(desk.controller.workspace.masks.features["name"]) == ["background", "liver"]
    dock.work.new.click()
    desk.qtbot.wait(50)
    assert desk.controller.workspace.current_object == 2
    assert dock.work.objects.topLevelItemCount() == 2


def test_plane_buttons_turn_the_view_and_superior_stays_up(docked, torso) -> None:
    desk, dock = docked(torso())
    for axis, up in ((1, "up"), (2, "up"), (0, "down")):
        dock.planes.button(axis).click()
        assert plane_of(desk.viewer) == axis
        assert str(desk.viewer.scene.camera.orientation[1]) == up
    overlays = desk.viewer.canvas.overlays
    assert [overlays[f"medt_{edge}"].text for edge in ("top", "bottom", "left", "right")] == ["A", "P", "R", "L"]
    dock.planes.button(1).click()
    assert [overlays[f"medt_{edge}"].text for edge in ("top", "bottom", "left", "right")] == ["S", "I", "R", "L"]
    dock.planes.button(2).click()
    assert [overlays[f"medt_{edge}"].text for edge in ("top", "bottom", "left", "right")] == ["S", "I", "A", "P"]


def test_save_writes_the_labels_on_the_images_own_grid(
    docked, monkeypatch, tmp_path: Path, notifications, torso, liver, torso_file
) -> None:
    desk, dock = docked(torso())
    click_on(desk, liver)
    target = tmp_path / "mine.nii.gz"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    dock.work.save.click()
    desk.wait()
    image, saved = nib.load(torso_file), nib.load(target)
    assert saved.shape == image.shape
    np.testing.assert_array_equal(saved.affine, image.affine)
    assert int(np.asarray(saved.dataobj).sum()) == int(desk.controller.session.labels.sum())
    assert any("Saved" in note.message for note in notifications)


def test_saving_where_one_may_not_is_one_line(docked, monkeypatch, tmp_path: Path, notifications, torso, liver) -> None:
    desk, dock = docked(torso())
    click_on(desk, liver)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "no" / "x.nii.gz"), ""))
    dock.work.save.click()
    desk.wait()
    assert any("there is no folder" in note.message for note in notifications)


def test_propagation_fills_neighbouring_slices_and_is_one_step_of_undo(docked, torso, liver) -> None:
    desk, dock = docked(torso())
    click_on(desk, liver)
    before = desk.controller.session.labels
    dock.work.propagate.click()
    desk.wait()
    after = desk.controller.session.labels
    assert np.any(after, axis=(1, 2)).sum() > np.any(before, axis=(1, 2)).sum()
    assert not dock.work.progress.isVisible()
    dock.prompt.undo.click()
    desk.wait()
    np.testing.assert_array_equal(desk.controller.session.labels, before)


def test_a_saved_session_can_be_opened_again(docked, tmp_path: Path, torso, liver) -> None:
    desk, _ = docked(torso())
    click_on(desk, liver)
    labels = desk.controller.session.labels
    desk.controller.files.save_session(tmp_path / "work.medt")
    desk.controller.undo()
    desk.wait()
    desk.controller.files.open_session(tmp_path / "work.medt")
    desk.wait()
    np.testing.assert_array_equal(desk.controller.session.labels, labels)
    np.testing.assert_array_equal(desk.controller.workspace.masks.data, labels)


def test_a_session_file_dropped_on_the_window_goes_to_the_dock(docked, tmp_path: Path, torso, liver) -> None:
    desk, _ = docked(torso())
    click_on(desk, liver)
    labels = desk.controller.session.labels
    desk.controller.files.save_session(tmp_path / "work.medt")
    desk.controller.undo()
    desk.wait()
    before = [layer.name for layer in desk.viewer.layers]
    desk.viewer.open(tmp_path / "work.medt", plugin="napari-medtransformer")
    desk.wait()
    np.testing.assert_array_equal(desk.controller.session.labels, labels)
    assert [layer.name for layer in desk.viewer.layers] == before


def test_the_model_sees_the_window_on_screen_unless_another_is_fixed(docked, torso, liver) -> None:
    desk, dock = docked(torso())
    controller, session = desk.controller, desk.controller.session
    assert dock.contrast.isChecked()
    click_on(desk, liver)
    found = session.labels
    assert found.any()

    controller.layer.contrast_limits = (-1350, 150)  # as for lungs
    desk.qtbot.waitUntil(lambda: session.window == (-1350, 150), timeout=5000)
    desk.wait()
    assert controller.session is session
    np.testing.assert_array_equal(session.labels, found)  # what was found through another window stays
    assert len(session.prompts) == 1
    key = controller.current_key
    through_lungs = session._slices.image(key.axis, key.index)
    click_on(desk, (liver[0], liver[1], liver[2] - 3))
    assert len(session.prompts) == 2
    assert not np.array_equal(session.labels, found)
    np.testing.assert_allclose(
        through_lungs, np.clip((controller.workspace.volume.data[liver[0]] + 1350) / 1500, 0, 1), atol=1e-5
    )

    dock.contrast.setChecked(False)
    controller.layer.contrast_limits = (-160, 240)
    click_on(desk, (liver[0], liver[1], liver[2] - 4))
    assert session.window == (-1350, 150)
    dock.contrast.setChecked(True)
    assert session.window == (-160, 240)
    controller.undo()
    desk.wait()
    assert len(session.prompts) == 2


def test_the_candidate_masks_are_buttons_with_their_scores_and_tab_cycles_them(docked, torso, liver) -> None:
    from qtpy.QtCore import Qt

    desk, dock = docked(torso())
    click_on(desk, liver)
    key = desk.controller.current_key
    offered = desk.controller.session.candidates(key)
    buttons = [button for button in dock.prompt.masks.buttons if button.isVisible()]
    assert [b.text() for b in buttons] == [f"{i + 1}: {score:.0%}" for i, score in enumerate(offered.scores)]
    assert buttons[offered.chosen].isChecked()
    other = (offered.chosen + 1) % len(buttons)
    desk.key(Qt.Key.Key_Tab)
    desk.wait()
    np.testing.assert_array_equal(desk.controller.session.slice_mask(key), offered.masks[other])
    buttons[offered.chosen].click()
    desk.wait()
    np.testing.assert_array_equal(desk.controller.session.slice_mask(key), offered.masks[offered.chosen])


def test_the_order_of_the_list_decides_where_objects_overlap(docked, torso, liver) -> None:
    desk, dock = docked(torso())
    click_on(desk, liver)
    desk.controller.actions.new_object()
    click_on(desk, liver)
    assert desk.controller.session.labels[liver] == 2
    dock.work.objects.setCurrentItem(dock.work.objects.topLevelItem(1))
    desk.qtbot.wait(50)
    dock.work.objects.move_current(1)
    desk.wait()
    assert desk.controller.session.labels[liver] == 1
    assert [one.object_id for one in desk.controller.session.objects] == [2, 1]
    desk.controller.undo()
    assert desk.controller.session.labels[liver] == 2


def test_a_row_of_the_list_dropped_elsewhere_changes_the_order(qtbot) -> None:
    from napari_medtransformer.plugin.prompts.objects_list import ObjectsList
    from napari_medtransformer.prompting.state import SessionObject

    objects = ObjectsList()
    qtbot.addWidget(objects)
    shown = [SessionObject(n, f"thing {n}", "lesion" if n == 2 else "") for n in (1, 2, 3)]
    objects.show_objects(shown, dict.fromkeys((1, 2, 3), "#ff0000"), {}, 3)
    assert [objects.topLevelItem(i).text(1) for i in range(3)] == ["thing 3", "thing 2", "thing 1"]
    assert objects.topLevelItem(1).text(2) == "lesion"
    with qtbot.waitSignal(objects.reordered) as told:
        objects.move_current(-1)
    assert told.args == [[1, 3, 2]]
    classed: list[tuple[int, str]] = []
    objects.classed.connect(lambda number, name: classed.append((number, name)))
    objects.topLevelItem(0).setText(2, "organ")
    assert classed == [(2, "organ")]


def test_the_table_of_measurements_says_what_the_mask_says(docked, tmp_path: Path, torso, liver) -> None:
    desk, dock = docked(torso())
    click_on(desk, liver)
    dock.work.measure.click()
    desk.wait()
    table = dock.work.measurements.table
    mask = desk.controller.session.labels == 1
    assert table.rowCount() == 1
    assert float(table.item(0, 2).text()) == pytest.approx(mask.sum() * 0.027, abs=0.06)
    data = desk.controller.workspace.volume.data
    assert float(table.item(0, 3).text()) == pytest.approx(data[mask].mean(), abs=0.06)
    places = 3.0 * np.argwhere(mask)  # cubes of 3 mm
    assert float(table.item(0, 5).text()) == pytest.approx(pdist(places).max(), abs=0.06)
    target = tmp_path / "measured.csv"
    dock.work.measurements.write(target)
    assert target.read_text().splitlines()[0].startswith("object,class,volume (ml),mean (HU)")
    dock.work.measurements.close()


@pytest.mark.parametrize("kind", ["fill", "smooth", "largest", "holes"])
def test_cleaning_up_is_one_step_of_undo(docked, torso, liver, kind) -> None:
    desk, dock = docked(torso())
    z, y, x = liver
    click_on(desk, (z - 3, y, x))
    click_on(desk, (z + 1, y, x))
    before = desk.controller.session.labels
    dock.work.edits[kind].click()
    desk.wait()
    after = desk.controller.session.labels
    if kind == "fill":
        assert after[z - 1].any()
        assert not before[z - 1].any()
    session = desk.controller.session
    oracle = {"smooth": session.smooth, "largest": session.keep_largest, "holes": session.close_holes}
    if kind in oracle:
        if not np.array_equal(before, after):
            session.undo()
        oracle[kind]()
        np.testing.assert_array_equal(session.labels, after)
    if not np.array_equal(before, after):
        desk.controller.undo()
        desk.wait()
    np.testing.assert_array_equal(desk.controller.session.labels, before)


def test_the_help_lists_every_key(docked, torso) -> None:
    from napari_medtransformer.plugin.prompts.shortcuts import SHORTCUTS

    _, dock = docked(torso())
    dock.prompt.help.click()
    window = dock.prompt._windows["help"]
    assert window.isVisible()
    for _, name, what, _ in SHORTCUTS:
        assert name in window.text.text()
        assert what in window.text.text()
    window.close()
