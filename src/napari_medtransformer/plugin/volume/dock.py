"""The Volume dock: what the image is, how it is windowed, what lies under the cursor, other grids, and millilitres."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Layer
from napari.qt.threading import create_worker
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QGridLayout,
    QLabel,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_medtransformer.plugin.controller import controller_of, real_viewer
from napari_medtransformer.plugin.layers import image_layer
from napari_medtransformer.plugin.notify import report, reported, tell
from napari_medtransformer.plugin.volume.aids import aids_of
from napari_medtransformer.plugin.volume.facts import (
    facts_of,
    label_attributes,
    labels_on,
    other_grids,
    snapshot,
    windows_of,
)
from napari_medtransformer.plugin.widgets.choices import Choice, allow, letting_go, offer
from napari_medtransformer.plugin.widgets.columns import MARGIN, stacked
from napari_medtransformer.plugin.widgets.layer_choice import LayerChoice
from napari_medtransformer.plugin.widgets.style import GAP, Column, QuietLabel, quiet_style, row, section, tool_button
from napari_medtransformer.plugin.widgets.theming import ThemeFollower, dress
from napari_medtransformer.plugin.writers import label_names
from napari_medtransformer.volumes import (
    Volume,
    Window,
    label_statistics,
    resample_isotropic,
    resample_onto,
    write_statistics,
)

if TYPE_CHECKING:
    import napari

_NO_VOLUME = "Open a CT or MR volume."
_PRESETS_PER_ROW = 3
_LARGEST = 1e9
"""Bound of the level and width fields; no image stores greater values as more than noise."""


class VolumeDock(QWidget):
    """A face of the viewer's SessionController, for the image that is chosen there."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        viewer = real_viewer(napari_viewer)
        self._viewer = weakref.ref(viewer)
        self.controller = controller_of(viewer)
        self.controller.attach(self)
        self._layer: weakref.ref[Image] | None = None
        self._windows: list[Window] = []
        self._targets: list[tuple[Layer, Volume]] = []
        self._labels: list[Any] = []
        self.working = 0  # workers that run

        body = stacked(
            self._image_section(),
            self._window_section(),
            self._cursor_section(),
            self._grid_section(),
            self._labels_section(),
            margin=MARGIN,
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(Column(body))

        aids_of(viewer).moved.connect(self._show_readout)
        self.controller.layer_changed.connect(self._on_layer)
        events = viewer.layers.events
        for emitter in (events.inserted, events.removed):
            emitter.connect(self._on_layers)
        self.destroyed.connect(letting_go(viewer.layers, ("inserted", "removed"), self._on_layers))
        self.layer_choice.follow(viewer, self.controller)
        self._theme = ThemeFollower(viewer, self)
        self._on_layer()

    # ------------------------------------------------------------------ building

    def _image_section(self) -> QWidget:
        frame, layout = section("Image")
        self.layer_choice = LayerChoice(Image)
        self.layer_choice.setToolTip("The image layer that this dock is about")
        layout.addWidget(self.layer_choice)
        self.facts = QuietLabel()
        layout.addWidget(self.facts)
        return frame

    def _window_section(self) -> QWidget:
        frame, layout = section("Window")
        self._presets = QGridLayout()
        self._presets.setSpacing(GAP)
        self.presets: list[QToolButton] = []
        layout.addLayout(self._presets)
        self.level, self.width_field = _field("Middle grey"), _field("From black to white")
        self.width_field.setMinimum(0)
        for field in (self.level, self.width_field):
            field.valueChanged.connect(self._on_fields)
        layout.addLayout(row(_caption("Level"), self.level))
        layout.addLayout(row(_caption("Width"), self.width_field))
        self.for_model = QCheckBox("The model sees it so too")
        self.for_model.setToolTip(
            "On: prompts are answered through the window on screen, from the next prompt on.\n"
            "Off: the model keeps the window that it has now, whatever you look at."
        )
        self.for_model.toggled.connect(self.controller.set_displayed_contrast)
        self.model_line = QuietLabel()
        layout.addWidget(self.for_model)
        layout.addWidget(self.model_line)
        self.controller.model_window.changed.connect(self._show_model_window)
        self._show_model_window()
        return frame

    def _cursor_section(self) -> QWidget:
        frame, layout = section("Under the cursor")
        self.readout = QuietLabel()
        self.readout.setMinimumHeight(3 * self.readout.fontMetrics().height())  # else the dock jumps with every move
        layout.addWidget(self.readout)
        return frame

    def _grid_section(self) -> QWidget:
        frame, layout = section("Resample")
        self.isotropic = tool_button(None, "", text="Resample to isotropic")
        self.isotropic.clicked.connect(self._resample_isotropic)
        layout.addLayout(row(self.isotropic))
        self.targets = Choice("The layer whose grid to take")
        self.onto = tool_button(None, "", text="Resample to that layer's grid")
        self.onto.clicked.connect(self._resample_onto)
        layout.addWidget(self.targets)
        layout.addLayout(row(self.onto))
        return frame

    def _labels_section(self) -> QWidget:
        frame, layout = section("Labels")
        self.labels = Choice("The labels to measure")
        self.measure = tool_button(None, "", text="Label volumes…")
        self.measure.clicked.connect(self._ask_for_table)
        layout.addWidget(self.labels)
        layout.addLayout(row(self.measure))
        return frame

    # ------------------------------------------------------------------ showing

    @property
    def volume(self) -> Volume | None:
        """The chosen image's volume."""
        workspace = self.controller.workspace
        return None if workspace is None else workspace.volume

    def _on_layer(self) -> None:
        """Another image was chosen."""
        previous = self._layer() if self._layer is not None else None
        if previous is not None:
            previous.events.contrast_limits.disconnect(self._show_window)
        layer = self.controller.layer
        self._layer = None if layer is None else weakref.ref(layer)
        if layer is not None:
            layer.events.contrast_limits.connect(self._show_window)
            self.destroyed.connect(letting_go(layer, ("contrast_limits",), self._show_window))
        volume = self.volume
        lines = [f"{caption}: {text}" for caption, text in facts_of(volume).items()] if volume is not None else []
        self.facts.setText("\n".join(lines) or _NO_VOLUME)
        self._offer_windows([] if volume is None else windows_of(volume))
        self._show_readout("")
        self._show_window()
        self._show_model_window()
        self._on_layers()

    def _offer_windows(self, windows: Sequence[Window]) -> None:
        for button in self.presets:
            self._presets.removeWidget(button)
            button.hide()  # it lives on until the event loop turns
            button.deleteLater()
        self._windows = list(windows)
        self.presets = []
        for place, window in enumerate(windows):
            tip = f"Level {window.level:.5g}, width {window.width:.5g}"
            button = tool_button(None, tip, text=window.name, checkable=True)
            button.clicked.connect(lambda _=False, window=window: self.set_window(window))
            self._presets.addWidget(button, *divmod(place, _PRESETS_PER_ROW))
            self.presets.append(button)

    def set_window(self, window: Window) -> None:
        """Show the chosen image in a window."""
        layer = self.controller.layer
        if layer is not None:
            layer.contrast_limits = (window.low, window.high)
            self._show_window()

    def _on_fields(self) -> None:
        least = 10.0 ** -self.width_field.decimals()
        self.set_window(Window.from_level_width(self.level.value(), max(self.width_field.value(), least)))

    def _show_model_window(self) -> None:
        """Whether the model sees what is on screen, and if not, what it sees."""
        follows, layer, volume = self.controller.model_window.as_displayed, self.controller.layer, self.volume
        self.for_model.setChecked(follows)
        if follows or layer is None or volume is None:
            self.model_line.hide()
            return
        low, high = self.controller.model_window.of(layer, volume)
        self.model_line.setText(f"The model sees level {(low + high) / 2:.5g}, width {high - low:.5g}.")
        self.model_line.show()

    def _show_window(self, event: Any = None) -> None:
        layer = self.controller.layer
        for field in (self.level, self.width_field):
            field.setEnabled(layer is not None)
        if layer is None:
            return
        low, high = (float(limit) for limit in layer.contrast_limits)
        tolerance = 1e-4 * (high - low)
        for field, value in ((self.level, (low + high) / 2), (self.width_field, high - low)):
            field.blockSignals(True)
            # More digits for images of small values, such as a map of diffusion.
            field.setDecimals(1 if high - low >= 100 else 3 if high - low >= 1 else 6)
            field.setSingleStep(max((high - low) / 40, 1e-6))
            if abs(field.value() - value) > tolerance:
                field.setValue(value)
            field.blockSignals(False)
        for button, window in zip(self.presets, self._windows):
            button.setChecked(abs(window.low - low) <= tolerance and abs(window.high - high) <= tolerance)

    def _show_readout(self, text: str) -> None:
        self.readout.setText(text.replace(" · ", "\n") or "Move over the image.")

    def _on_layers(self, event: Any = None) -> None:
        """Layers came or went: offer those that fit."""
        viewer, volume, layer = self._viewer(), self.volume, self.controller.layer
        known = viewer is not None and volume is not None and layer is not None
        self._targets = other_grids(viewer.layers, volume) if known else []
        self._labels = labels_on(viewer.layers, volume, layer) if known else []
        offer(self.targets, [(target.name, None) for target, _ in self._targets], "no layer on another grid")
        offer(self.labels, [(labels.name, None) for labels in self._labels], "no labels on this image")
        idle = "it is running" if self.working else ""
        missing = "" if known else _NO_VOLUME
        grids = "" if self._targets else "no other layer has another grid"
        here = "" if self._labels else "no labels layer lies on this image"
        allow(self.isotropic, "A new layer on cubic voxels, upright in the patient; this one stays", missing or idle)
        allow(self.onto, "A new layer of this image on the other layer's voxels", missing or idle or grids)
        allow(self.measure, "Write names, millilitres and values of all labels as CSV or JSON", missing or idle or here)

    # ------------------------------------------------------------------ doing

    def _resample_isotropic(self) -> None:
        volume, name = self.volume, self.controller.layer.name
        self._work(lambda: resample_isotropic(volume), lambda result: self._add(result, f"{name} isotropic"))

    def _resample_onto(self) -> None:
        volume, name = self.volume, self.controller.layer.name
        target, grid = self._targets[self.targets.currentIndex()]
        title = f"{name} on {target.name}"
        self._work(lambda: resample_onto(volume, grid), lambda result: self._add(result, title))

    def _add(self, volume: Volume, name: str) -> None:
        """A result as a layer that looks like the one it was made from."""
        viewer, layer = self._viewer(), self.controller.layer
        if viewer is None:
            return
        data, options, _ = image_layer(volume)
        if layer is not None:
            options["contrast_limits"] = tuple(layer.contrast_limits)
        viewer.add_layer(Image(data, **options | {"name": name}))

    def _ask_for_table(self) -> None:
        labels = self._labels[self.labels.currentIndex()]
        source = self.volume.source
        folder = source.path.parent if source is not None else Path.cwd()
        suggestion = str(folder / f"{self.volume.name}_volumes.csv")
        path, _ = QFileDialog.getSaveFileName(self, "Label volumes", suggestion, "Table (*.csv);;JSON (*.json)")
        if path:
            self.write_table(labels, path)

    def write_table(self, labels: Any, path: str | Path) -> None:
        """Write names, millilitres and values of a labels layer's labels as CSV or JSON, by the suffix."""
        volume = self.volume
        with reported():
            values = snapshot(labels)
            names = label_names(label_attributes(labels))
            self._work(
                lambda: write_statistics(label_statistics(values, volume, names), path),
                lambda written: tell(f"Saved {written}."),
            )

    def _work(self, function: Callable[[], Any], on_done: Callable[[Any], None]) -> None:
        """Run something slow beside the worker that answers clicks; its errors become notifications."""
        self.working += 1
        self._on_layers()
        worker = create_worker(
            function,
            _start_thread=False,
            _connect={"returned": on_done, "errored": report, "finished": self._work_ended},
        )
        worker.start()

    def _work_ended(self) -> None:
        self.working -= 1
        self._on_layers()


def _field(tooltip: str) -> QDoubleSpinBox:
    field = QDoubleSpinBox()
    field.setToolTip(tooltip)
    field.setRange(-_LARGEST, _LARGEST)
    field.setKeyboardTracking(False)
    field.setMinimumWidth(60)
    field.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return field


def _caption(text: str) -> QLabel:
    label = QLabel(text)
    dress(label, quiet_style)
    label.setFixedWidth(40)
    return label
