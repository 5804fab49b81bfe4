"""The demo: the sample CT, both docks, one click in the liver, and what every head attends to from there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_medtransformer.errors import CannotWrite, MedTransformerError
from napari_medtransformer.plugin.attention.dock import AttentionDock
from napari_medtransformer.plugin.controller import SessionController, controller_of
from napari_medtransformer.plugin.docking import put_below
from napari_medtransformer.plugin.layer_volume import SlicePoint
from napari_medtransformer.plugin.layers import image_layer
from napari_medtransformer.plugin.planes import set_plane
from napari_medtransformer.plugin.prompts.dock import PromptDock
from napari_medtransformer.volumes.reading import read_labels, read_volume
from napari_medtransformer.volumes.sample_data import sample_label_names, sample_path

logger = logging.getLogger(__name__)

WINDOW = (1600, 1000)
PROMPT_WIDTH = 340
PATIENCE_S = 180.0
"""Loading torch and the model for the first time takes seconds; this long is a fault."""
SETTLE_S = 0.4
"""For the window to be laid out and drawn before a screenshot."""


def run_demo(headless: bool = False, screenshots: Path | None = None) -> list[Path]:
    """Open napari on the sample CT with both docks.

    By hand: the window stays until it is closed. headless: click the liver, write screenshots of the whole window into
    the folder `screenshots` (made if need be), and close. Returns the paths written.
    Raises CannotWrite, and any error of loading the sample or the model.
    """
    if screenshots is not None:
        _make_folder(screenshots)
    viewer = napari.Viewer(title="MedTransformer")
    try:
        controller = open_demo(viewer)
        if headless:
            return _tour(viewer, controller, screenshots)
        napari.run()
        return []
    finally:
        if headless:
            viewer.close()


def open_demo(viewer: Any) -> SessionController:
    """The sample CT and both docks in a viewer: Prompt at the right, Attention as a strip below the canvas."""
    data, options, _ = image_layer(read_volume(sample_path("example_ct.nii.gz")))
    viewer.add_layer(Image(data, interpolation2d="linear", **options))
    prompt = viewer.window.add_dock_widget(PromptDock(viewer), name="Prompt", area="right")
    attention = viewer.window.add_dock_widget(AttentionDock(viewer), name="Attention", area="bottom")
    viewer.window.resize(*WINDOW)
    main = prompt.parent()
    main.resizeDocks([prompt], [PROMPT_WIDTH], Qt.Orientation.Horizontal)
    put_below(main, attention)
    QApplication.processEvents()  # the canvas gets its size, which the view is fitted to
    set_plane(viewer, 0)
    go_to(viewer, organ_centre("liver"))
    return controller_of(viewer)


def organ_centre(name: str) -> tuple[int, int, int]:
    """The voxel (z, y, x) of an organ of the sample CT nearest to its centre on its largest axial slice."""
    labels = read_labels(sample_path("example_seg_fast_force_split.nii.gz")).data
    number = next(number for number, known in sample_label_names("total").items() if known == name)
    organ = labels == number
    z = int(np.argmax(organ.sum(axis=(1, 2))))
    inside = np.argwhere(organ[z])
    y, x = inside[np.argmin(((inside - inside.mean(axis=0)) ** 2).sum(axis=1))]
    return z, int(y), int(x)


def go_to(viewer: Any, zyx: tuple[int, int, int]) -> None:
    """Show the slices through a voxel of the first layer."""
    world = viewer.layers[0].data_to_world(zyx)
    for axis, position in enumerate(world):
        viewer.dims.set_point(axis, float(position))


def settle(controller: SessionController, done: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Let the window live until `done()`. Raises MedTransformerError if the model failed or it takes too long."""
    end = time.monotonic() + patience_s
    while not done():
        QApplication.processEvents()
        if controller.models.fault:
            raise MedTransformerError(controller.models.fault)
        if time.monotonic() > end:
            raise MedTransformerError(f"the demo waited {patience_s:.0f} s in vain ({controller.busy or 'idle'}).")
        time.sleep(0.005)
    end = time.monotonic() + SETTLE_S
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.005)


def _tour(viewer: Any, controller: SessionController, folder: Path | None) -> list[Path]:
    written: list[Path] = []
    controller.preferences = replace(controller.preferences, autosave=False)  # nobody's work, so nothing to offer

    def picture(name: str) -> None:
        if folder is not None:
            written.append(_screenshot(viewer, folder / f"{name}.png"))

    def idle() -> bool:
        return controller.queue.pending == 0

    for widget in QApplication.allWidgets():
        if isinstance(widget, AttentionDock):
            widget.tour.hide()  # the pictures are of the dock as it is from the second start on
    settle(controller, lambda: controller.session is not None and idle())
    picture("01-open")
    liver = organ_centre("liver")
    controller.clicked(SlicePoint((float(liver[0]), float(liver[1]), float(liver[2])), axis=0))
    settle(controller, idle)
    controller.actions.rename_object(1, "liver")
    settle(controller, idle)
    picture("02-liver-click")
    controller.attention.find_head()
    settle(controller, idle)
    picture("03-attention")
    set_plane(viewer, 1)
    go_to(viewer, liver)
    settle(controller, idle)
    controller.clicked(SlicePoint((float(liver[0]), float(liver[1]), float(liver[2])), axis=1))
    settle(controller, idle)
    picture("04-coronal")
    return written


def _screenshot(viewer: Any, path: Path) -> Path:
    try:
        viewer.window.screenshot(str(path), canvas_only=False, flash=False)
    except OSError as error:
        raise CannotWrite(f"{path} was not written: {error.strerror or error}.") from error
    logger.info("wrote %s", path)
    return path


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"the folder {folder} cannot be made: {error.strerror or error}. Choose another.") from error
