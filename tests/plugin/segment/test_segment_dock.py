"""The Segment dock in a real viewer with the bundled model on a real MR: runs, measures, cancels, hands over."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Labels, Shapes

import napari_medtransformer as nmt
from napari_medtransformer.plugin.layers import image_layer
from napari_medtransformer.plugin.samples import hippocampus
from napari_medtransformer.plugin.segment.dock import SegmentDock
from napari_medtransformer.plugin.segment.region import region_layer, region_of
from napari_medtransformer.volumes import Volume
from napari_medtransformer.volumes.places import label_places

PATIENCE_MS = 120_000


@pytest.fixture
def dock(make_napari_viewer: Callable[..., Any], qtbot: Any) -> SegmentDock:
    """The dock beside the sample MR and its labels, its model loaded."""
    viewer = make_napari_viewer()
    for data, options, kind in hippocampus():
        viewer.add_layer((Image if kind == "image" else Labels)(data, **options))
    _, dock = viewer.window.add_plugin_dock_widget("napari-medtransformer", "Segment")
    qtbot.waitUntil(lambda: dock.models.model is not None, timeout=PATIENCE_MS)
    return dock


def run(dock: SegmentDock, qtbot: Any) -> None:
    dock.run.click()
    assert dock.state.running
    qtbot.waitUntil(lambda: not dock.state.running and bool(dock.state.organs), timeout=PATIENCE_MS)


def test_the_network_gives_way_to_frames_between_its_layers(dock: SegmentDock, qtbot: Any, monkeypatch) -> None:
    frames, rested = dock.controller.view.frames, []
    rest = frames.rest

    def told_rest() -> None:
        rested.append(threading.get_ident())
        rest()

    monkeypatch.setattr(frames, "rest", told_rest)
    run(dock, qtbot)
    assert len(rested) > 10
    assert threading.get_ident() not in rested  # the window itself never waits
    hooks = [module._forward_pre_hooks for module in dock.models.model.network.modules()]
    assert not any(hooks)


def test_segmenting_measures_compares_jumps_and_saves(dock: SegmentDock, qtbot: Any, tmp_path) -> None:
    viewer = dock.controller.viewer
    assert dock.references.currentText() == "hippocampus parts"
    dock.options.uncertainty.setChecked(True)
    run(dock, qtbot)
    layer, volume = dock.state.layer, dock.state.volume
    assert list(layer.features["name"]) == ["background", "anterior hippocampus", "posterior hippocampus"]
    np.testing.assert_allclose(layer.colormap.color_dict[1][:3], dock.state.names[0].color, atol=1e-6)
    np.testing.assert_allclose(layer.translate, viewer.layers[0].translate)
    # the parts that came one after another are the whole
    np.testing.assert_array_equal(layer.data, nmt.segment(dock.models.model, volume))
    # the table against numpy
    one = dock.state.organs[0]
    inside = np.asarray(layer.data) == 1
    assert one.statistics.voxels == inside.sum()
    assert one.statistics.mean == pytest.approx(float(np.asarray(volume.data)[inside].mean()), rel=1e-5)
    corners = np.argwhere(inside)
    assert one.place.start == tuple(corners.min(axis=0))
    assert one.place.stop == tuple(corners.max(axis=0) + 1)
    assert inside[one.place.heart]
    assert dock.organs.topLevelItemCount() == 2
    # uncertainty is highest where the model changes its mind, so not deep inside
    heat = next(x for x in viewer.layers if x.name.endswith("uncertainty"))
    assert heat.data.shape == volume.shape
    assert 0 <= heat.data.min() <= heat.data.max() <= np.log(3) + 1e-5
    # a double click goes there
    dock.organs.itemDoubleClicked.emit(dock.organs.topLevelItem(1), 0)
    shown = round(float(layer.world_to_data(viewer.dims.point)[0]))
    assert shown == dock.state.organs[1].place.heart[0]
    # against the labels drawn by hand
    assert dock.references.currentText() == "hippocampus parts"
    dock.compare.click()
    qtbot.waitUntil(lambda: bool(dock.state.agreement), timeout=PATIENCE_MS)
    truth = np.asarray(next(x for x in viewer.layers if x.name == "hippocampus parts").data) == 1
    dice = 2 * (inside & truth).sum() / (inside.sum() + truth.sum())
    assert dock.state.agreement[0].dice == pytest.approx(dice)
    assert dice > 0.8
    assert dock.scores.isVisible() or dock.scores.topLevelItemCount() == 2
    dock.state.save_table(tmp_path / "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())
    assert rows[0]["name"] == "anterior hippocampus"
    assert rows[0]["dice"] == pytest.approx(dice)
    dock.state.organs = dock.state.organs[:1]  # as if the model had missed the other wholly
    dock.state.save_table(tmp_path / "table.json")
    assert [row["name"] for row in json.loads((tmp_path / "table.json").read_text())] == [row["name"] for row in rows]


def test_refining_makes_an_object_of_a_structure_for_clicks(dock: SegmentDock, qtbot: Any) -> None:
    run(dock, qtbot)
    assert not dock.refine.isEnabled()
    dock.organs.topLevelItem(1).setSelected(True)
    assert dock.refine.isEnabled()
    controller, image = dock.controller, dock.controller.layer
    other = Image(np.zeros(np.shape(image.data), np.float32), name="another of the same shape")
    controller.viewer.add_layer(other)
    controller.set_layer(other)
    dock.refine.click()
    assert controller.layer is image, "structures go back to the image that they were found on"
    assert dock.refining.waiting, "no model answers prompts yet"
    controller.set_layer(other)  # looked at while the model loads
    qtbot.waitUntil(lambda: controller.session is not None, timeout=PATIENCE_MS)
    assert controller.session.objects == ()
    controller.set_layer(image)
    qtbot.waitUntil(lambda: not dock.refining.waiting, timeout=PATIENCE_MS)
    objects = controller.session.objects
    assert [o.name for o in objects] == ["posterior hippocampus"]
    assert controller.workspace.current_object == objects[0].object_id
    wanted = np.asarray(dock.state.layer.data) == 2
    np.testing.assert_array_equal(controller.session.labels == objects[0].object_id, wanted)
    assert dock.state.layer.colormap.color_dict[2][3] == 0


def test_cancel_keeps_what_is_done_and_is_quick(make_napari_viewer, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    data, options, _ = hippocampus()[0]
    # the real MR tiled, so that there are many windows
    volume = Volume.from_array(np.tile(np.asarray(data), (4, 1, 2)), modality="MR")
    tiled, options, _ = image_layer(volume)
    viewer.add_layer(Image(tiled, **options))
    _, dock = viewer.window.add_plugin_dock_widget("napari-medtransformer", "Segment")
    qtbot.waitUntil(lambda: dock.models.model is not None, timeout=PATIENCE_MS)
    dock.run.click()
    qtbot.waitUntil(lambda: dock.state.slabs > 0, timeout=PATIENCE_MS)
    # how long it will take is known from the second window on
    qtbot.waitUntil(lambda: "left" in dock.progress.format(), timeout=PATIENCE_MS)
    qtbot.waitUntil(lambda: dock.state.layer is not None, timeout=PATIENCE_MS)
    layer = dock.state.layer
    clicked = time.thread_time()
    dock.cancel.click()
    assert time.thread_time() - clicked < 0.05
    assert not dock.state.running
    asked = time.monotonic()
    # the last waiting is for measuring what was kept
    qtbot.waitUntil(lambda: dock.queue.pending == 0, timeout=PATIENCE_MS)
    assert time.monotonic() - asked < 20  # on a loaded machine; alone it is a fraction of a second
    assert "kept" in dock.state.said
    kept = np.asarray(layer.data)
    assert layer in viewer.layers
    assert kept[: volume.shape[0] // 8].any()
    assert not kept[-volume.shape[0] // 8 :].any()


def test_closing_the_image_ends_its_run_and_the_next_one_goes(dock: SegmentDock, qtbot: Any, notifications) -> None:
    viewer = dock.controller.viewer
    gate = threading.Event()
    dock.queue.submit(gate.wait, label="")
    dock.run.click()
    viewer.layers.remove(viewer.layers[0])
    gate.set()
    qtbot.waitUntil(lambda: not dock.state.running, timeout=PATIENCE_MS)
    assert "the image was closed" in dock.state.said
    assert [heard.message for heard in notifications if str(heard.severity) == "error"] == []
    data, options, _ = hippocampus()[0]
    viewer.add_layer(Image(data, **options))
    run(dock, qtbot)


def test_what_is_found_lies_on_its_own_image_though_another_was_opened_meanwhile(dock: SegmentDock, qtbot: Any) -> None:
    controller, image = dock.controller, dock.controller.layer
    viewer = controller.viewer
    gate = threading.Event()
    dock.queue.submit(gate.wait, label="")
    dock.run.click()
    other = Image(np.asarray(image.data)[::-1].copy(), name="another", scale=image.scale, translate=image.translate)
    viewer.add_layer(other)
    qtbot.waitUntil(lambda: controller.layer is other)
    gate.set()
    qtbot.waitUntil(lambda: not dock.state.running and bool(dock.state.organs), timeout=PATIENCE_MS)
    found = dock.state.layer
    assert viewer.layers.index(image) < viewer.layers.index(found) < viewer.layers.index(other)
    assert image.name in dock.whose.text()
    assert not dock.whose.isHidden()
    assert dock.references.currentText() == "hippocampus parts", "the reference is one of the segmented image"
    dock.organs.itemDoubleClicked.emit(dock.organs.topLevelItem(1), 0)  # "where is it?"
    qtbot.wait(50)
    assert controller.layer is image
    assert viewer.layers.index(other) < viewer.layers.index(image) < viewer.layers.index(found)
    assert dock.whose.isHidden()
    dock.layer_choice.setCurrentIndex(dock.layer_choice.findText("another"))
    dock.layer_choice.activated.emit(dock.layer_choice.currentIndex())
    assert viewer.layers.index(found) < viewer.layers.index(other), "it goes where its image goes"
    controller.set_layer(image)  # worked on, and hidden
    dock.organs.itemDoubleClicked.emit(dock.organs.topLevelItem(1), 0)
    assert viewer.layers.index(other) < viewer.layers.index(found)


def test_what_is_found_on_one_frame_is_not_shown_on_another(make_napari_viewer, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    data = np.asarray(hippocampus()[0][0])
    viewer.add_layer(Image(np.stack([data, data[::-1]]), name="frames"))
    _, dock = viewer.window.add_plugin_dock_widget("napari-medtransformer", "Segment")
    qtbot.waitUntil(lambda: dock.models.model is not None, timeout=PATIENCE_MS)
    viewer.dims.set_point(0, 0)
    dock.options.uncertainty.setChecked(True)
    gate = threading.Event()
    dock.queue.submit(gate.wait, label="")
    dock.run.click()
    viewer.dims.set_point(0, 1)
    gate.set()
    qtbot.waitUntil(lambda: not dock.state.running and bool(dock.state.organs), timeout=PATIENCE_MS)
    found = [layer for layer in viewer.layers if layer.name != "frames"]
    assert not any(layer.visible for layer in found)
    assert "frame 0" in dock.whose.text()
    dock.organs.topLevelItem(0).setSelected(True)
    dock.refine.click()
    assert dock.controller.workspace.frame == 0
    assert viewer.dims.point[0] == 0
    assert [layer.visible for layer in found if "disagreement" not in layer.name] == [True, True]
    qtbot.waitUntil(lambda: not dock.refining.waiting, timeout=PATIENCE_MS)
    viewer.dims.set_point(0, 1)
    assert not any(layer.visible for layer in found)


def test_a_region_bounds_what_is_segmented(dock: SegmentDock, qtbot: Any) -> None:
    viewer = dock.controller.viewer
    image = dock.controller.layer
    assert dock.regions.currentText() == "Whole volume"
    dock.draw.click()
    shapes = viewer.layers.selection.active
    assert isinstance(shapes, Shapes)
    assert str(shapes.mode) == "add_rectangle"
    assert dock.regions.currentText() == "Box: region"
    assert not dock.run.isEnabled()  # nothing is drawn yet
    shapes.add_rectangles(np.array([[17, 8.6, 5], [17, 8.6, 25.4], [17, 40, 25.4], [17, 40, 5]], float))
    depth = dock.controller.workspace.volume.shape[0]
    assert dock.region() == ((0, 9, 5), (depth, 41, 26))
    shapes.add_rectangles(np.array([[25, 9, 5], [25, 9, 20], [25, 30, 20], [25, 30, 5]], float))
    assert dock.region() == ((17, 9, 5), (26, 41, 26))
    assert "z 17–25" in dock.region_line.text()
    dock.run.click()
    qtbot.waitUntil(lambda: not dock.state.running, timeout=PATIENCE_MS)
    labels = np.array(dock.state.layer.data)
    assert labels.shape == image.data.shape
    labels[17:26, 9:41, 5:26] = 0
    assert not labels.any()


def test_an_image_of_another_kind_raises_doubts(make_napari_viewer, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    rng = np.random.default_rng(0)
    volume = Volume.from_array(rng.integers(-1000, 300, (20, 60, 60)).astype(np.int16), (5.0, 3.0, 3.0), "CT")
    data, options, _ = image_layer(volume)
    viewer.add_layer(Image(data, **options))
    _, dock = viewer.window.add_plugin_dock_widget("napari-medtransformer", "Segment")
    qtbot.waitUntil(lambda: bool(dock.doubts.text()), timeout=PATIENCE_MS)
    assert "CT" in dock.doubts.text()
    assert "MR" in dock.doubts.text()


def test_a_box_settles_the_doubt_about_a_large_field_of_view(make_napari_viewer, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    data, _, _ = hippocampus()[0]
    tiled, options, _ = image_layer(Volume.from_array(np.tile(np.asarray(data), (3, 2, 3)), modality="MR"))
    image = viewer.add_layer(Image(tiled, **options))
    _, dock = viewer.window.add_plugin_dock_widget("napari-medtransformer", "Segment")
    qtbot.waitUntil(lambda: "much larger" in dock.doubts.text(), timeout=PATIENCE_MS)
    dock.draw.click()
    shapes = viewer.layers.selection.active
    for z in (2, 36):
        shapes.add_rectangles(np.array([[z, 2, 2], [z, 2, 34], [z, 50, 34], [z, 50, 2]], float))
    assert dock.region() == ((2, 2, 2), (37, 51, 35))
    qtbot.waitUntil(lambda: dock.queue.pending == 0, timeout=PATIENCE_MS)
    assert dock.doubts.text() == ""
    viewer.layers.selection.active = image
    dock.regions.setCurrentIndex(0)
    dock.regions.activated.emit(0)
    qtbot.waitUntil(lambda: "much larger" in dock.doubts.text(), timeout=PATIENCE_MS)


def test_a_region_is_found_wherever_the_layers_lie(make_napari_viewer) -> None:
    image = Image(np.zeros((10, 20, 30)), scale=(2, 0.5, 0.5), translate=(100, -3, 7))
    shapes = region_layer(image)
    assert region_of(shapes, image, (10, 20, 30)) is None
    shapes.add_rectangles(np.array([[4, 2, 3], [4, 2, 9], [4, 11, 9], [4, 11, 3]], float))
    assert region_of(shapes, image, (10, 20, 30)) == ((0, 2, 3), (10, 12, 10))
    # the same place in a layer of another grid: (z, y, x) in mm
    other = Shapes(ndim=3)
    world = np.array([image.data_to_world(corner) for corner in shapes.data[0]])
    other.add_rectangles(world)
    assert region_of(other, image, (10, 20, 30)) == ((0, 2, 3), (10, 12, 10))


def test_places_are_boxes_and_a_voxel_inside_even_of_hollow_labels() -> None:
    labels = np.zeros((9, 20, 20), np.uint8)
    z, y, x = np.ogrid[:9, :20, :20]
    ring = ((y - 10) ** 2 + (x - 10) ** 2 < 80) & ((y - 10) ** 2 + (x - 10) ** 2 > 40) & (z > 2) & (z < 7)
    labels[ring] = 7
    labels[0, 0, 0] = 2
    places = label_places(labels)
    assert set(places) == {2, 7}
    assert (places[2].start, places[2].stop, places[2].heart) == ((0, 0, 0), (1, 1, 1), (0, 0, 0))
    corners = np.argwhere(ring)
    assert places[7].start == tuple(corners.min(axis=0))
    assert places[7].extent == tuple(np.ptp(corners, axis=0) + 1)
    assert ring[places[7].heart]
