"""What every viewer with a medical volume shows, dock or no dock: letters at the edges, the place under the cursor.

A viewer is accompanied from the first volume that a reader or sample opens in it, or the first dock. It is held weakly
and what belongs to it ends with it.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any

from napari.layers import Layer
from qtpy.QtCore import QCoreApplication, QObject, QThread, Signal

from napari_medtransformer.plugin import planes
from napari_medtransformer.plugin.volume.cursor_readout import Cursor, is_image_of, readout_of_layers, volume_on
from napari_medtransformer.plugin.widgets.layer_choice import HEATMAP_KEY
from napari_medtransformer.volumes import Volume

_accompanied: weakref.WeakKeyDictionary[Any, VolumeAids] = weakref.WeakKeyDictionary()


def aids_of(viewer: Any) -> VolumeAids:
    """The one VolumeAids of a viewer, made at the first call."""
    viewer = getattr(viewer, "__wrapped__", viewer)
    aids = _accompanied.get(viewer)
    if aids is None:
        aids = _accompanied[viewer] = VolumeAids(viewer)
    return aids


def accompany_open_viewers() -> None:
    """Accompany every viewer there is; a reader is not told which one it reads for.

    Without a window, or outside its thread, nothing happens: npe2 also reads for scripts.
    """
    application, module = QCoreApplication.instance(), sys.modules.get("napari.viewer")
    if application is None or module is None or QThread.currentThread() is not application.thread():
        return
    current = module.current_viewer()
    for viewer in {*getattr(module.Viewer, "_instances", ()), *([] if current is None else [current])}:
        aids_of(viewer)


class VolumeAids(QObject):
    """Letters the edges of the canvas for the topmost visible volume, and completes napari's status line."""

    moved = Signal(str)  # what lies under the cursor; empty where no volume is

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self._assumed: weakref.WeakKeyDictionary[Layer, Volume] = weakref.WeakKeyDictionary()
        self._turned = False
        dims, layers = viewer.dims.events, viewer.layers.events
        for emitter in (dims.order, dims.ndisplay, dims.ndim, layers.inserted, layers.removed, layers.reordered):
            emitter.connect(self._on_change)
        layers.inserted.connect(self._on_inserted)
        for layer in viewer.layers:
            layer.events.visible.connect(self._on_change)
        # Last: the status bar has shown napari's own line by then, and shows this one over it.
        viewer.events.status.connect(self._on_status, position="last")
        self.show()

    def assume(self, layer: Layer, volume: Volume) -> None:
        """Take a layer of another reader for this volume, whose place in the patient had to be assumed."""
        if volume_on(layer) is None and layer.ndim in (3, 4):
            self._assumed[layer] = volume
        self.show()

    def volume_of(self, layer: Layer) -> Volume | None:
        """The volume whose grid a layer lies on, as told by its reader or assumed."""
        return volume_on(layer) or self._assumed.get(layer)

    def show(self) -> None:
        """Turn the plane upright and letter its edges for the topmost visible volume; an image before labels."""
        viewer = self._viewer()
        if viewer is None:
            return
        found = [
            (is_image_of(layer, volume), volume)
            for layer in viewer.layers
            if layer.visible and HEATMAP_KEY not in layer.metadata and (volume := self.volume_of(layer)) is not None
        ]
        images = [volume for is_image, volume in found if is_image]
        shown = next(iter([*images[::-1], *(volume for _, volume in reversed(found))]), None)
        if any(self.volume_of(layer) is not None for layer in viewer.layers):
            planes.turn_upright(viewer)
            self._turned = True
        elif self._turned:
            planes.turn_back(viewer)
            self._turned = False
        planes.show_directions(viewer, shown)

    def _on_change(self, event: Any = None) -> None:
        self.show()

    def _on_inserted(self, event: Any) -> None:
        event.value.events.visible.connect(self._on_change)

    def _on_status(self, event: Any) -> None:
        viewer, status = self._viewer(), event.value
        if viewer is None:
            return
        found = self._under_cursor(viewer) if _is_about_cursor(viewer, status) else None
        text = "" if found is None else found[1]
        if found is not None and not (isinstance(status, dict) and status.get("coordinates") == text):
            record = status if isinstance(status, dict) else {"source_type": "", "plugin": ""}
            viewer.status = record | {"layer_base": found[0].name, "coordinates": text}
        self.moved.emit(text)

    def _under_cursor(self, viewer: Any) -> tuple[Layer, str] | None:
        active = viewer.layers.selection.active
        if active is not None and active._type_string in ("image", "labels") and self.volume_of(active) is None:
            return None  # the user looks at something else, of which napari's line tells
        if viewer.dims.ndisplay != 2:
            return None
        cursor = Cursor(viewer.cursor.position, viewer.dims.displayed, viewer.dims.ndim)
        return readout_of_layers(viewer.layers, active, cursor, self.volume_of)


def _is_about_cursor(viewer: Any, status: Any) -> bool:
    """napari tells of the cursor in a record for one selected layer, in a line for none or for several."""
    if isinstance(status, dict):
        return True
    return bool(viewer.mouse_over_canvas) and (status == "Ready" or " » " in status or status == "[empty]")
