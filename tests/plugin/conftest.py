"""A real viewer on a screen, real mouse events on its canvas, and the bundled model."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

PATIENCE_MS = 180_000  # a loaded machine may take long; what is tested is that it comes, benchmarks say how fast


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preferences, kept sessions and encoded slices of a test are its own, and gone with it.

    No neighbours are encoded ahead: most tests look at a slice or two.
    """
    folder = tmp_path_factory.mktemp("home")
    preferences = folder / "preferences.json"
    preferences.write_text('{"reach": 0, "disk_gb": 0}')
    monkeypatch.setenv("MEDT_PREFERENCES", str(preferences))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    monkeypatch.setattr("napari_medtransformer.prompting.embedding_store.default_folder", lambda: folder / "embeddings")


@pytest.fixture(scope="session", autouse=True)
def quick_windows() -> Iterator[None]:
    """What napari does anew for every window, half a second of each, is done once or not at all.

    Manifests of installed plugins are read once; they stay the same. Settings, which every window resets, are not
    written to their file at every change; they are every process's own.
    """
    from napari.settings._base import EventedConfigFileSettings
    from npe2.manifest import _bases

    read: dict[str, Any] = {}
    parse = getattr(_bases, "_load_yaml_no_duplicates", None)  # npe2's own name for it, not of all its versions

    def parse_once(stream: Any) -> Any:
        text = stream.read()
        if text not in read:
            read[text] = parse(text)
        return copy.deepcopy(read[text])

    with pytest.MonkeyPatch.context() as patch:
        if parse is not None:
            patch.setattr(_bases, "_load_yaml_no_duplicates", parse_once)
        patch.setattr(EventedConfigFileSettings, "_maybe_save", lambda _: None)
        yield


@pytest.fixture(scope="session")
def click_model() -> Any:
    """The bundled model with its own weights, loaded once."""
    from napari_medtransformer.models.registry import load_model

    return load_model("medt-click-tiny", device="cpu")


UPPER_SLICES = slice(96, 112)
"""Of the sample CT: those about the liver's largest slice. A small volume keeps the tests short."""


@pytest.fixture(scope="session")
def torso_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The upper slices of the sample CT as a file of their own."""
    from napari_medtransformer.volumes.sample_data import sample_path

    path = tmp_path_factory.mktemp("torso") / "torso_ct.nii.gz"
    nib.save(nib.load(sample_path("example_ct.nii.gz")).slicer[:, :, UPPER_SLICES], path)
    return path


@pytest.fixture
def torso(torso_file: Path) -> Callable[[], Any]:
    """A function that makes an image layer of the torso, as the reader does."""
    from napari.layers import Image

    from napari_medtransformer.plugin.layers import image_layer
    from napari_medtransformer.volumes import read_volume

    def make() -> Image:
        data, options, _ = image_layer(read_volume(torso_file))
        return Image(data, **options)

    return make


@pytest.fixture(scope="session")
def liver() -> tuple[int, int, int]:
    """The torso's voxel at the centre of the liver on its largest slice, known from the sample's labels."""
    from napari_medtransformer.plugin.demo import organ_centre

    z, y, x = organ_centre("liver")
    return z - UPPER_SLICES.start, y, x


@dataclass
class Desk:
    """A viewer with a controller, and a hand on the mouse."""

    viewer: Any
    controller: Any
    qtbot: Any

    @property
    def canvas(self) -> Any:
        return self.viewer.window._qt_viewer.canvas

    def wait(self) -> None:
        """Until the worker has nothing left to do and everything it reported is shown."""
        self.qtbot.waitUntil(lambda: self.controller.queue.pending == 0, timeout=PATIENCE_MS)
        self.qtbot.wait(20)

    def pixel_of(self, layer: Any, zyx: tuple[float, ...]) -> tuple[int, int]:
        """Where a voxel of a layer lies on the canvas: (x, y) in widget pixels. Oracle: the view's corners."""
        displayed = list(self.viewer.dims.displayed)
        world = np.asarray(layer.data_to_world(zyx), dtype=float)[displayed]
        (top, left), (bottom, right) = np.asarray(self.canvas._viewbox_corners_in_world)[:, displayed]
        width, height = self.canvas.view.rect.size
        x = (world[1] - left) / (right - left) * width
        y = (world[0] - top) / (bottom - top) * height
        return round(x), round(y)

    def click(self, layer: Any, zyx: tuple[float, ...], *, shift: bool = False) -> None:
        """Press and release the left button over a voxel."""
        from qtpy.QtCore import QPoint, Qt

        x, y = self.pixel_of(layer, zyx)
        modifier = Qt.KeyboardModifier.ShiftModifier if shift else Qt.KeyboardModifier.NoModifier
        self.qtbot.mouseClick(self.canvas.native, Qt.MouseButton.LeftButton, modifier, QPoint(x, y))

    def drag(self, layer: Any, start: tuple[float, ...], stop: tuple[float, ...]) -> None:
        """Press over one voxel, move in steps, release over another."""
        self.stroke(layer, [start, stop])

    def stroke(
        self, layer: Any, path: Sequence[tuple[float, ...]], *, shift: bool = False, release: bool = True
    ) -> None:
        """Press over the first voxel of a path, move along it in steps, release over the last unless told not to."""
        from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        pixels = [np.array(self.pixel_of(layer, zyx), dtype=float) for zyx in path]
        native, left = self.canvas.native, Qt.MouseButton.LeftButton
        held = Qt.KeyboardModifier.ShiftModifier if shift else Qt.KeyboardModifier.NoModifier
        self.qtbot.mousePress(native, left, held, QPoint(*pixels[0].astype(int)))
        steps = 10 if len(pixels) == 2 else 3
        for a, b in itertools.pairwise(pixels):
            for share in np.linspace(1 / steps, 1, steps):
                point = QPointF(*(a + share * (b - a)))
                QApplication.sendEvent(
                    native, QMouseEvent(QEvent.Type.MouseMove, point, native.mapToGlobal(point), left, left, held)
                )
                self.qtbot.wait(12)  # faster than any hand, and moves may be left out
        if release:
            self.qtbot.mouseRelease(native, left, held, QPoint(*pixels[-1].astype(int)))

    def hover(self, layer: Any, zyx: tuple[float, ...]) -> None:
        """Move the mouse over a voxel without a button."""
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        point, none, free = QPointF(*self.pixel_of(layer, zyx)), Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier
        native = self.canvas.native
        QApplication.sendEvent(
            native, QMouseEvent(QEvent.Type.MouseMove, point, native.mapToGlobal(point), none, none, free)
        )

    def show(self, zyx: tuple[float, ...]) -> None:
        """Show the slices through a voxel of the controller's layer."""
        for axis, position in enumerate(self.controller.layer.data_to_world(zyx)):
            self.viewer.dims.set_point(axis, float(position))
        self.qtbot.wait(50)

    def prompt(self, zyx: tuple[float, ...], axis: int = 0, *, other_sign: bool = False) -> None:
        """What a click on a voxel calls."""
        from napari_medtransformer.plugin.layer_volume import SlicePoint

        z, y, x = (float(p) for p in zyx)
        self.controller.clicked(SlicePoint((z, y, x), axis), other_sign=other_sign)

    def key(self, key: Any, modifier: Any = None) -> None:
        """Press a key while the canvas has the focus."""
        from qtpy.QtCore import Qt

        self.qtbot.keyClick(self.canvas.native, key, modifier or Qt.KeyboardModifier.NoModifier)


@pytest.fixture
def open_desk(make_napari_viewer: Any, qtbot: Any, click_model: Any) -> Iterator[Callable[..., Desk]]:
    """A function that opens a viewer on layers, with the controller and, unless model=None, the bundled model."""
    from napari_medtransformer.plugin.controller import controller_of

    desks: list[Desk] = []

    def open_it(*layers: Any, model: Any = click_model) -> Desk:
        viewer = make_napari_viewer(show=True)
        viewer.window.resize(800, 600)
        for layer in layers:
            viewer.add_layer(layer)
        controller = controller_of(viewer)
        if model is not None:
            controller.models.use(model)
        images = [layer for layer in layers if layer.__class__.__name__ == "Image"]
        if images:
            controller.set_layer(images[-1])
        desk = Desk(viewer, controller, qtbot)
        desks.append(desk)
        qtbot.wait(100)
        viewer.reset_view()
        qtbot.wait(100)
        desk.wait()
        return desk

    yield open_it
    for desk in desks:
        desk.controller.close()
        desk.controller.queue.wait()
    desks.clear()


@pytest.fixture
def notifications() -> Iterator[list[Any]]:
    """Everything that napari would show as a notification."""
    from napari.utils.notifications import notification_manager

    before = len(notification_manager.records)
    heard: list[Any] = []
    notification_manager.notification_ready.connect(heard.append)
    yield heard
    notification_manager.notification_ready.disconnect(heard.append)
    del notification_manager.records[before:]


@pytest.fixture
def docked(open_desk):
    """A desk with the Prompt dock at its right: docked(*layers) -> (desk, dock)."""

    from napari_medtransformer.plugin.prompts.dock import PromptDock

    def open_it(*layers):
        desk = open_desk(*layers)
        dock = PromptDock(desk.viewer)
        desk.viewer.window.add_dock_widget(dock, name="Prompt", area="right")
        desk.qtbot.wait(50)
        return desk, dock

    return open_it
