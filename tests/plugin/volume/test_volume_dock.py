"""The Volume dock and the status bar in a real window: windows, places in the patient, other grids, millilitres."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QAbstractButton, QApplication, QFileDialog

from napari_medtransformer.plugin.layers import grid_kwargs, image_layer
from napari_medtransformer.plugin.planes import set_plane
from napari_medtransformer.plugin.samples import ct_with_organs
from napari_medtransformer.plugin.volume.cursor_readout import readout
from napari_medtransformer.plugin.volume.dock import VolumeDock
from napari_medtransformer.volumes import CT_PRESETS, Volume, Window, read_labels, read_volume
from napari_medtransformer.volumes.intensity import robust_window
from napari_medtransformer.volumes.sample_data import sample_path

PATIENCE_MS = 60_000


def layer_of(volume: Volume) -> Image:
    data, options, _ = image_layer(volume)
    return Image(data, **options)


@pytest.fixture
def docked(open_desk):
    def open_it(*layers):
        desk = open_desk(*layers, model=None)
        dock = VolumeDock(desk.viewer)
        desk.viewer.window.add_dock_widget(dock, name="Volume", area="right")
        desk.qtbot.wait(50)
        return desk, dock

    return open_it


def hover(desk, layer, zyx) -> str:
    """Move the mouse over a voxel; what the status bar says then."""
    point = QPointF(*desk.pixel_of(layer, zyx))
    native, none = desk.canvas.native, Qt.MouseButton.NoButton
    place = native.mapToGlobal(point)
    event = QMouseEvent(QEvent.Type.MouseMove, point, place, none, none, Qt.KeyboardModifier.NoModifier)
    desk.viewer.mouse_over_canvas = True
    QApplication.sendEvent(native, event)
    window = desk.viewer.window._qt_window
    window.status_thread.calculate_status()  # in a test, napari does not start the thread that would
    desk.qtbot.wait(50)
    return window.statusBar()._coordinates.text()


def millimetres(text: str) -> list[float]:
    """The RAS millimetres that a readout names."""
    sides = re.search(r"([RL]) ([\d.]+)\s+([AP]) ([\d.]+)\s+([SI]) ([\d.]+) mm", text).groups()
    return [float(value) * (1 if side in "RAS" else -1) for side, value in zip(sides[::2], sides[1::2])]


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_readout_names_the_voxel_the_patient_position_and_the_value_that_nibabel_does(
    tmp_path: Path, codes: str, axis: int
) -> None:
    image = nib.load(sample_path("example_ct.nii.gz"))
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    path = tmp_path / f"{codes}.nii.gz"
    nib.save(image.as_reoriented(turn), path)
    oracle = nib.load(path)
    layer = layer_of(read_volume(path))
    rng = np.random.default_rng(0)
    for _ in range(20):
        zyx = [int(rng.integers(n)) for n in layer.data.shape]
        text = readout(layer, layer.data_to_world(zyx), [d for d in range(3) if d != axis], 3)
        ijk = [int(i) for i in re.search(r"file \((\d+), (\d+), (\d+)\)", text).groups()]
        np.testing.assert_allclose(
            millimetres(text), nib.affines.apply_affine(oracle.affine, ijk), atol=0.0501
        )  # one decimal is shown
        assert text.startswith(f"zyx {zyx[0]} {zyx[1]} {zyx[2]} ·")
        assert text.endswith(f"· {int(oracle.dataobj[tuple(ijk)])} HU")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_status_bar_follows_the_mouse_in_every_plane(docked, axis) -> None:
    layer = layer_of(read_volume(sample_path("example_ct.nii.gz")))
    desk, dock = docked(layer)
    voxel = (60, 50, 70)
    desk.show(voxel)
    set_plane(desk.viewer, axis)
    desk.qtbot.wait(50)
    text = hover(desk, layer, voxel)
    image = nib.load(sample_path("example_ct.nii.gz"))
    ijk = layer.metadata["medt_volume"].source.file_index(voxel)
    assert text.startswith("zyx 60 50 70 · file (")
    np.testing.assert_allclose(millimetres(text), nib.affines.apply_affine(image.affine, ijk), atol=0.0501)
    assert text.endswith(f"{int(image.dataobj[tuple(ijk)])} HU")
    assert "HU" in dock.readout.text()


def test_over_labels_the_status_bar_names_the_organ(docked, liver) -> None:
    layers = [kind(data, **options) for (data, options, _), kind in zip(ct_with_organs(), (Image, Labels))]
    desk, _ = docked(*layers)
    organs = layers[1]
    desk.viewer.layers.selection.active = organs
    voxel = (liver[0] + 96, *liver[1:])
    desk.show(voxel)
    assert hover(desk, organs, voxel).endswith("label 5 liver")


def test_over_labels_drawn_on_a_ct_the_readout_has_label_and_hounsfield_units() -> None:
    volume = read_volume(sample_path("example_ct.nii.gz"))
    drawn = Labels(np.zeros(volume.shape, np.uint8), **grid_kwargs(volume))
    drawn.data[60, 50, 70] = 3
    value = int(volume.data[60, 50, 70])
    assert readout(drawn, drawn.data_to_world((60, 50, 70)), [1, 2], 3).endswith(f"· label 3 · {value} HU")
    assert readout(drawn, drawn.data_to_world((60, 50, 71)), [1, 2], 3).split(" · ")[-2] == "no label"
    assert readout(drawn, drawn.data_to_world((60, -50, 70)), [1, 2], 3) == ""
    # a label that an object of the Prompt dock stands for is drawn as nothing, and not told either
    drawn.colormap = DirectLabelColormap(color_dict={None: "red", 0: "transparent", 3: (1.0, 0.0, 0.0, 0.0)})
    assert readout(drawn, drawn.data_to_world((60, 50, 70)), [1, 2], 3).endswith(f"· no label · {value} HU")


def test_presets_set_the_contrast_limits_and_the_fields_show_them(docked) -> None:
    layer = layer_of(read_volume(sample_path("example_ct.nii.gz")))
    _, dock = docked(layer)
    assert [button.text() for button in dock.presets] == ["soft tissue", "lung", "bone", "brain", "liver"]
    for button, window in zip(dock.presets, CT_PRESETS):
        button.click()
        assert tuple(layer.contrast_limits) == (window.low, window.high)
        assert (dock.level.value(), dock.width_field.value()) == (window.level, window.width)
        assert [b.text() for b in dock.presets if b.isChecked()] == [window.name]
    dock.level.setValue(100)
    dock.width_field.setValue(300)
    assert tuple(layer.contrast_limits) == (-50, 250)
    assert not any(b.isChecked() for b in dock.presets)
    layer.contrast_limits = (-1000, 1000)
    assert (dock.level.value(), dock.width_field.value()) == (0, 2000)
    dock.width_field.setValue(0)
    assert layer.contrast_limits[0] < layer.contrast_limits[1]


def test_an_mr_is_offered_percentiles_and_the_window_of_its_header_first(docked) -> None:
    mr = read_volume(sample_path("example_mr_sm.nii.gz"), modality="MR")
    asked = Volume(mr.data, mr.affine, "MR", mr.source, Window(10, 90))
    layer = layer_of(asked)
    _, dock = docked(layer)
    assert [button.text() for button in dock.presets] == ["as in the file", "0.5–99.5 %", "2–98 %", "5–95 %"]
    assert dock.presets[0].isChecked()
    dock.presets[2].click()
    window = robust_window(mr.data, low_percent=2, high_percent=98)
    np.testing.assert_allclose(layer.contrast_limits, (window.low, window.high))


def test_facts_say_that_a_volume_is_oblique_and_by_how_much(docked) -> None:
    angle = np.radians(12.0)
    affine = Volume.from_array(np.zeros((8, 9, 10), np.int16), (2, 1, 1)).affine.copy()
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine[:3, :3] = turn @ affine[:3, :3]
    _, dock = docked(layer_of(Volume(np.zeros((8, 9, 10), np.int16), affine, "MR")))
    text = dock.facts.text()
    assert "8 × 9 × 10 (z, y, x)" in text
    assert "2 × 1 × 1 mm" in text
    assert "oblique, 12.0°" in text


def test_resampling_to_isotropic_adds_a_straight_layer_in_the_same_place(docked) -> None:
    rng = np.random.default_rng(1)
    volume = Volume.from_array(rng.normal(size=(10, 30, 40)).astype(np.float32), (3, 1, 1))
    layer = layer_of(volume)
    desk, dock = docked(layer)
    layer.contrast_limits = (-1, 2)
    dock.isotropic.click()
    assert "it is running" in dock.isotropic.toolTip()
    desk.qtbot.waitUntil(lambda: len(desk.viewer.layers) == 2 and dock.working == 0, timeout=PATIENCE_MS)
    made = desk.viewer.layers[-1]
    assert made.name == "volume isotropic"
    np.testing.assert_allclose(made.scale, 1)
    assert tuple(map(str, made.axis_labels)) == ("z", "y", "x")
    assert {str(unit) for unit in made.units} == {"millimeter"}
    assert tuple(made.contrast_limits) == (-1, 2)
    # The world covers the same millimetres, to half a voxel of the finer grid at either end.
    np.testing.assert_allclose(made.extent.world, layer.extent.world, atol=1.01)
    assert dock.isotropic.isEnabled()


def test_resampling_onto_another_layers_grid_lies_voxel_on_voxel_with_it(docked) -> None:
    ct = read_volume(sample_path("example_ct.nii.gz"))
    coarse = Volume(ct.data[::2, ::2, ::2], ct.affine @ np.diag([2, 2, 2, 1]), "CT")
    desk, dock = docked(layer_of(ct), layer_of(coarse))
    desk.controller.set_layer(desk.viewer.layers[0])
    assert dock.targets.count() == 1
    dock.onto.click()
    desk.qtbot.waitUntil(lambda: len(desk.viewer.layers) == 3 and dock.working == 0, timeout=PATIENCE_MS)
    made = desk.viewer.layers[-1]
    np.testing.assert_allclose(made.data, coarse.data, atol=1e-3)
    np.testing.assert_allclose(made.scale, desk.viewer.layers[1].scale)
    np.testing.assert_allclose(made.translate, desk.viewer.layers[1].translate)


def test_label_volumes_are_written_with_names_and_millilitres(docked, monkeypatch, tmp_path: Path) -> None:
    layers = [kind(data, **options) for (data, options, _), kind in zip(ct_with_organs(), (Image, Labels))]
    desk, dock = docked(*layers)
    organs = read_labels(sample_path("example_seg_fast_force_split.nii.gz")).data
    for target in (tmp_path / "organs.csv", tmp_path / "organs.json"):
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, target=target: (str(target), ""))
        dock.measure.click()
        desk.qtbot.waitUntil(lambda: dock.working == 0, timeout=PATIENCE_MS)
        text = target.read_text()
        rows = json.loads(text) if target.suffix == ".json" else list(csv.DictReader(text.splitlines()))
        liver = next(r for r in rows if r["name"] == "liver")
        assert float(liver["volume_ml"]) == pytest.approx(np.count_nonzero(organs == 5) * 0.027, rel=1e-5)
        assert 30 < float(liver["mean"]) < 150  # the CT's, not the labels'


def test_a_table_that_cannot_be_written_is_one_notification(docked, tmp_path: Path, notifications) -> None:
    layers = [kind(data, **options) for (data, options, _), kind in zip(ct_with_organs(), (Image, Labels))]
    desk, dock = docked(*layers)
    dock.write_table(layers[1], tmp_path / "no" / "organs.csv")
    desk.qtbot.waitUntil(lambda: dock.working == 0, timeout=PATIENCE_MS)
    assert len(notifications) == 1
    assert "\n" not in notifications[0].message


def test_without_an_image_every_button_says_why_it_is_disabled(docked) -> None:
    _, dock = docked()
    for button in (dock.isotropic, dock.onto, dock.measure):
        assert not button.isEnabled()
        assert "Open a CT or MR volume." in button.toolTip()


def test_nothing_in_the_dock_is_cut_off_at_its_least_width(docked) -> None:
    desk, dock = docked(layer_of(read_volume(sample_path("example_ct.nii.gz"))))
    around = dock.parent()
    around.setFloating(True)
    desk.qtbot.wait(50)
    around.resize(dock.minimumSizeHint().width(), 700)
    desk.qtbot.wait(50)
    assert dock.width() <= 400
    buttons = [w for w in dock.findChildren(QAbstractButton) if w.isVisible()]
    assert len(buttons) >= 8
    for button in buttons:
        assert button.mapTo(dock, button.rect().topRight()).x() < dock.width()
        assert button.width() >= button.fontMetrics().horizontalAdvance(button.text())


def test_the_dock_of_the_menu_shares_the_controller(open_desk, torso) -> None:
    desk = open_desk(torso(), model=None)
    _, dock = desk.viewer.window.add_plugin_dock_widget("napari-medtransformer", "Volume")
    assert dock.controller is desk.controller
    desk.viewer.window.remove_dock_widget(dock)
