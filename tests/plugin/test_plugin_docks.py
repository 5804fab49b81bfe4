"""The Prompt dock in a real window: nothing clipped, reasons for what is disabled, files on the image's own grid."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtWidgets import QAbstractButton, QComboBox, QFileDialog

from napari_medtransformer.plugin.attention_dock import AttentionDock
from napari_medtransformer.plugin.planes import plane_of
from napari_medtransformer.plugin.prompt_dock import PromptDock


@pytest.fixture
def docked(open_desk):
    def open_it(*layers):
        desk = open_desk(*layers)
        dock = PromptDock(desk.viewer)
        desk.viewer.window.add_dock_widget(dock, name="Prompt", area="right")
        desk.qtbot.wait(50)
        return desk, dock

    return open_it


def click_on(desk, liver) -> None:
    desk.show(liver)
    desk.prompt(liver)
    desk.wait()
    desk.qtbot.wait(300)  # measuring waits for quiet
    desk.wait()


@pytest.mark.parametrize("height", [300, 900])
@pytest.mark.parametrize("make", [PromptDock, AttentionDock])
def test_nothing_in_a_dock_of_least_width_is_cut_off(open_desk, torso, make, height) -> None:
    desk = open_desk(torso())
    dock = make(desk.viewer)
    docked = desk.viewer.window.add_dock_widget(dock, name="dock", area="right")
    docked.setFloating(True)
    desk.qtbot.wait(50)
    docked.resize(dock.minimumSizeHint().width(), height)
    desk.qtbot.wait(50)
    assert dock.width() <= 380
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
    assert attention.heads.count() > 2


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
    assert "Open a CT or MR volume" in dock.status.text()


def test_disabled_buttons_say_why(docked, torso, liver) -> None:
    desk, dock = docked(torso())
    for button in (dock.undo, dock.redo, dock.masks, dock.clear, dock.propagate, dock.save):
        assert not button.isEnabled()
        assert "Not now:" in button.toolTip()
    click_on(desk, liver)
    for button in (dock.undo, dock.masks, dock.clear, dock.propagate, dock.save):
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
    item = dock.objects.topLevelItem(0)
    assert float(item.text(2).split()[0]) == pytest.approx(voxels * 0.027, rel=0.05)  # 3 mm cubes of 0.027 ml
    desk.controller.actions.rename_object(1, "liver")
    assert dock.objects.topLevelItem(0).text(1) == "liver"
    assert list(desk.controller.workspace.masks.features["name"]) == ["background", "liver"]
    dock.new.click()
    assert desk.controller.workspace.current_object == 2
    assert dock.objects.topLevelItemCount() == 2


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
    dock.save.click()
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
    dock.save.click()
    desk.wait()
    assert any("there is no folder" in note.message for note in notifications)


def test_propagation_fills_neighbouring_slices_and_is_one_step_of_undo(docked, torso, liver) -> None:
    desk, dock = docked(torso())
    click_on(desk, liver)
    before = desk.controller.session.labels
    dock.propagate.click()
    desk.wait()
    after = desk.controller.session.labels
    assert np.any(after, axis=(1, 2)).sum() > np.any(before, axis=(1, 2)).sum()
    assert not dock.progress.isVisible()
    dock.undo.click()
    desk.wait()
    np.testing.assert_array_equal(desk.controller.session.labels, before)


def test_a_saved_session_can_be_opened_again(docked, tmp_path: Path, torso, liver) -> None:
    desk, _ = docked(torso())
    click_on(desk, liver)
    labels = desk.controller.session.labels
    desk.controller.actions.save_session(tmp_path / "work.medt")
    desk.controller.undo()
    desk.wait()
    desk.controller.actions.open_session(tmp_path / "work.medt")
    desk.wait()
    np.testing.assert_array_equal(desk.controller.session.labels, labels)
    np.testing.assert_array_equal(desk.controller.workspace.masks.data, labels)


def test_a_model_that_sees_the_displayed_contrast_is_given_the_layers_limits(docked, torso) -> None:
    desk, dock = docked(torso())
    desk.controller.layer.contrast_limits = (-100, 300)
    dock.contrast.setChecked(True)
    assert desk.controller.session.window == (-100, 300)
    dock.contrast.setChecked(False)
    volume = desk.controller.workspace.volume
    assert desk.controller.session.window == (volume.window.low, volume.window.high)


def test_closing_the_dock_gives_the_viewer_its_mouse_back(open_desk, torso) -> None:
    desk = open_desk(torso())
    callbacks = len(desk.viewer.mouse_drag_callbacks)
    dock = PromptDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, name="Prompt")
    desk.viewer.window.remove_dock_widget(dock)
    dock.deleteLater()
    desk.qtbot.waitUntil(lambda: len(desk.viewer.mouse_drag_callbacks) == callbacks - 1)
