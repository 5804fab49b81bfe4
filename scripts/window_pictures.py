"""Make the pictures of the window in the README and the guide from the sample data: a real viewer, real models.

`make docs-figures` runs it, under a virtual display where there is no screen: demo, liver-click, coronal, prompts,
segment-table, segment-uncertainty and segment-refine in docs/images.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari._qt.dialogs.qt_notification import NapariQtNotification
from napari.layers import Image, Labels
from PIL import Image as Picture
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication
from scipy.ndimage import distance_transform_edt
from skimage.measure import find_contours
from skimage.morphology import convex_hull_image, dilation, disk

from napari_medtransformer.plugin.demo import go_to, organ_centre, run_demo, settle
from napari_medtransformer.plugin.layers import image_layer
from napari_medtransformer.plugin.planes import set_plane
from napari_medtransformer.plugin.prompts.dock import PromptDock
from napari_medtransformer.plugin.samples import hippocampus
from napari_medtransformer.plugin.segment.dock import SegmentDock
from napari_medtransformer.prompting.masks import PackedMask
from napari_medtransformer.prompting.prompts import BoxPrompt, LassoPrompt, PointPrompt, ScribblePrompt
from napari_medtransformer.volumes.reading import read_labels, read_volume
from napari_medtransformer.volumes.sample_data import sample_label_names, sample_path

logger = logging.getLogger("window_pictures")
FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
OF_THE_DEMO = {"02-liver-click": "liver-click", "03-attention": "demo", "04-coronal": "coronal"}
DOCK_WIDTH = 360
COLOURS, MAX_BYTES = 256, 380_000
"""Of a picture that would be larger: its palette."""


def main() -> int:
    """Write every picture."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MEDT_PREFERENCES"] = str(Path(folder, "preferences.json"))  # those of nobody
        os.environ["XDG_STATE_HOME"] = folder
        for path in run_demo(headless=True, screenshots=Path(folder)):
            if path.stem in OF_THE_DEMO:
                save(Picture.open(path), OF_THE_DEMO[path.stem])
        prompts()
        segment()
    return 0


def prompts() -> None:
    """Every kind of prompt on one slice of the CT, with the preview on."""
    volume = read_volume(sample_path("example_ct.nii.gz"))
    labels = read_labels(sample_path("example_seg_fast_force_split.nii.gz")).data
    numbers = {name: number for number, name in sample_label_names("total").items()}
    z, y, x = organ_centre("liver")
    viewer = napari.Viewer()
    data, options, _ = image_layer(volume)
    viewer.add_layer(Image(data, interpolation2d="linear", **options))
    dock = PromptDock(viewer)
    widen(viewer.window.add_dock_widget(dock, name="Prompt", area="right"))
    viewer.window.resize(1600, 1000)
    controller = dock.controller
    controller.preferences = replace(controller.preferences, autosave=False)  # nobody's work, so nothing to offer
    wait(controller, lambda: controller.session is not None)
    set_plane(viewer, 0)
    go_to(viewer, (z, y, x))

    def mask(name: str) -> np.ndarray:
        return labels[z] == numbers[name]

    stroke = np.zeros(labels.shape[1:], bool)
    stroke[y - 8 : y + 9, x - 1 : x + 1] = True
    spleen = find_contours(dilation(convex_hull_image(mask("spleen")), disk(2)).astype(float), 0.5)[0][::4]
    rows, columns = np.nonzero(mask("vertebrae_T12"))
    stomach = np.unravel_index(np.argmax(distance_transform_edt(mask("stomach"))), labels.shape[1:])
    drawn: dict[str, list[Any]] = {
        "liver": [ScribblePrompt(PackedMask.pack(stroke), z, True, 1, 0)],
        "spleen": [LassoPrompt(tuple((float(z), float(a), float(b)) for a, b in spleen), True, 2, 0)],
        "vertebra": [BoxPrompt((z, rows.min(), columns.min()), (z, rows.max() + 1, columns.max() + 1), 3, 0)],
        "stomach": [
            PointPrompt((z, float(stomach[0]), float(stomach[1])), True, 4, 0),
            PointPrompt((z, float(stomach[0]) + 12, float(stomach[1]) - 8), False, 4, 0),
        ],
    }
    for number, (name, given) in enumerate(drawn.items(), 1):
        if number > 1:
            controller.actions.new_object()
        for prompt in given:
            controller.prompting.add(prompt)
            wait(controller)
        controller.actions.rename_object(number, name)
    hover(viewer, (z, int(stomach[0]), int(stomach[1]) - 2))
    finish(viewer, controller, "prompts")


def segment() -> None:
    """The hippocampus segmented, with where the model is unsure, and one part of it handed over to be refined."""
    viewer = napari.Viewer()
    for data, options, kind in hippocampus():
        made = (Image if kind == "image" else Labels)(data, **options)
        made.visible = kind == "image"
        viewer.add_layer(made)
    dock = SegmentDock(viewer)
    widen(viewer.window.add_dock_widget(dock, name="Segment", area="right"))
    viewer.window.resize(1400, 860)
    viewer.layers.selection.active = viewer.layers[0]
    controller = dock.controller
    controller.preferences = replace(controller.preferences, autosave=False)  # nobody's work, so nothing to offer
    wait(controller, lambda: dock.models.model is not None)
    dock.options.uncertainty.setChecked(True)
    dock.run.click()
    wait(controller, lambda: not dock.state.running and bool(dock.state.organs))
    dock.compare.click()
    wait(controller, lambda: bool(dock.state.agreement))
    z = int(np.argmax((read_labels(sample_path("hippocampus_003_labels.nii.gz")).data > 0).sum(axis=(1, 2))))
    set_plane(viewer, 0)
    go_to(viewer, (z, 20, 20))
    layers = {layer.name: layer for layer in viewer.layers}
    unsure = next(layer for name, layer in layers.items() if name.endswith("uncertainty"))
    found = [layer for layer in viewer.layers if isinstance(layer, Labels) and layer.visible]
    for layer in viewer.layers:
        layer.visible = layer in (viewer.layers[0], *found)
    hover(viewer, (z, 22, 18))
    finish(viewer, controller, "segment-table", close=False)
    for layer in found:
        layer.visible = False
    unsure.visible = True
    finish(viewer, controller, "segment-uncertainty", close=False)
    unsure.visible = False
    for layer in found:
        layer.visible = True
    dock.organs.topLevelItem(0).setSelected(True)
    dock.refine.click()
    wait(controller, lambda: controller.session is not None and bool(controller.session.objects))
    finish(viewer, controller, "segment-refine")


def widen(dock: Any) -> None:
    """Make a dock so wide that names are not shortened."""
    dock.parent().resizeDocks([dock], [DOCK_WIDTH], Qt.Orientation.Horizontal)


def wait(controller: Any, done: Callable[[], bool] = lambda: True) -> None:
    """Until it is so, and the worker is idle."""
    settle(controller, lambda: done() and controller.queue.pending == 0)


def hover(viewer: Any, zyx: tuple[int, int, int]) -> None:
    """Rest the mouse over a voxel of the first layer."""
    QApplication.processEvents()
    canvas = viewer.window._qt_viewer.canvas
    displayed = list(viewer.dims.displayed)
    world = np.asarray(viewer.layers[0].data_to_world(zyx))[displayed]
    (top, left), (bottom, right) = np.asarray(canvas._viewbox_corners_in_world)[:, displayed]
    width, height = canvas.view.rect.size
    point = QPointF((world[1] - left) / (right - left) * width, (world[0] - top) / (bottom - top) * height)
    none, free = Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier
    where = canvas.native.mapToGlobal(point)
    QApplication.sendEvent(canvas.native, QMouseEvent(QEvent.Type.MouseMove, point, where, none, none, free))


def finish(viewer: Any, controller: Any, name: str, *, close: bool = True) -> None:
    """The window as it is, once everything is drawn."""
    wait(controller)
    for message in viewer.window._qt_window.findChildren(NapariQtNotification):
        message.close()
    save(Picture.fromarray(viewer.window.screenshot(canvas_only=False, flash=False)), name)
    if close:
        controller.close()
        viewer.close()


def save(picture: Picture.Image, name: str) -> None:
    """Write a picture into docs/images."""
    path = FOLDER / f"{name}.png"
    whole = picture.convert("RGB")
    whole.save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        whole.quantize(COLOURS, kmeans=1).save(path, optimize=True)
    logger.info("wrote %s", path)


if __name__ == "__main__":
    sys.exit(main())
