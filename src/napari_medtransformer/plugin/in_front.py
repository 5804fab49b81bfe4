"""The image that is worked on is the one that is seen: what a click meets is never hidden behind another image."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QObject, QTimer, Signal

from napari_medtransformer.plugin.widgets.layer_choice import HEATMAP_KEY

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController
    from napari_medtransformer.plugin.open_volumes import OpenVolumes

_HIDING = {"opaque", "translucent", "translucent_no_depth"}
"""The ways to blend that show nothing of what lies beneath, as long as the layer lets nothing through."""
_TELLING = {"inserted", "removed", "reordered", "visible", "opacity", "blending", "colormap"}
"""The events of a list of layers after which another image may be seen."""


class InFront(QObject):
    """Finds the images that hide the one that is worked on, and puts them behind it; keeps no viewer alive.

    One that is opened over it is worked on from then on, unless unsaved work would get out of sight: then a dock asks,
    and no prompt is put on what cannot be seen.
    """

    changed = Signal()  # which images hide it

    def __init__(self, viewer: Any, controller: SessionController, volumes: OpenVolumes) -> None:
        super().__init__()
        self._viewer, self._controller = weakref.ref(viewer), weakref.ref(controller)
        self._volumes = volumes
        self._told: list[int] = []
        self._opened: list[weakref.ref[Image]] = []
        # One look after all that comes in one go, as several files that are dropped together.
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(0)
        self._soon.timeout.connect(self._look)
        self._listening = [
            (viewer.layers.events, self._on_layers),
            (viewer.dims.events.current_step, self._look_soon),
            (viewer.dims.events.order, self._look_soon),
            (viewer.dims.events.ndisplay, self._look_soon),
            (viewer.canvas.grid.events.enabled, self._look_soon),
        ]
        for emitter, callback in self._listening:
            emitter.connect(callback)
        controller.layer_changed.connect(self._soon.start)

    def detach(self) -> None:
        """Stop looking."""
        self._soon.stop()
        for emitter, callback in self._listening:
            emitter.disconnect(callback)
        self._listening.clear()

    @property
    def hiding(self) -> list[Image]:
        """The images that hide the one that is worked on where the viewer is, the uppermost last."""
        viewer, controller = self._viewer(), self._controller()
        layer = controller.layer if controller is not None else None
        if viewer is None or layer is None or layer not in viewer.layers:
            return []
        if viewer.dims.ndisplay != 2 or viewer.canvas.grid.enabled:  # in a grid images lie side by side
            return []
        # One that is switched off is hidden by any other that is seen.
        first = viewer.layers.index(layer) + 1 if layer.visible else 0
        return [other for other in viewer.layers[first:] if other is not layer and _hides(viewer, other, layer)]

    @property
    def in_words(self) -> str:
        """What hides the image that is worked on; empty if nothing does."""
        hiding, controller = self.hiding, self._controller()
        if not hiding or controller is None:
            return ""
        return f"“{hiding[-1].name}” hides “{controller.layer.name}”, which is worked on: choose one of them."

    def turn_to_hiding(self) -> None:
        """Work on the uppermost image that hides the present one."""
        hiding, controller = self.hiding, self._controller()
        if hiding and controller is not None:
            controller.set_layer(hiding[-1])

    def bring(self) -> None:
        """Show the image that is worked on: what hides it is put behind it, with its masks and prompts."""
        viewer, controller = self._viewer(), self._controller()
        if viewer is None or controller is None or controller.layer is None:
            return
        controller.layer.visible = True
        hiding, layers = self.hiding, viewer.layers
        behind = [*hiding, *(drawn for image in hiding for drawn in self._volumes.drawn_on(image))]
        places = sorted(layers.index(layer) for layer in behind if layer in layers)
        if places:
            layers.move_multiple(places, layers.index(controller.layer))
        if layers.selection.active in hiding:
            layers.selection.active = controller.layer

    def _on_layers(self, event: Any) -> None:
        """The list of layers, or one of them, has changed somehow."""
        if event.type == "inserted" and _is_anatomy(event.value):
            self._opened.append(weakref.ref(event.value))
        if event.type in _TELLING:
            self._soon.start()

    def _look_soon(self, event: Any = None) -> None:
        self._soon.start()

    def _look(self) -> None:
        opened, self._opened = [reference() for reference in self._opened], []
        hiding, controller = self.hiding, self._controller()
        if controller is None:
            return
        if hiding and hiding[-1] in opened and not hiding[-1].rgb and not self._volumes.unfinished(controller.layer):
            self.turn_to_hiding()
            hiding = self.hiding
        told = [id(layer) for layer in hiding]
        if told != self._told:
            self._told = told
            self.changed.emit()


def _is_anatomy(layer: Any) -> bool:
    """Whether it is an image, and no map of ours on one."""
    return isinstance(layer, Image) and HEATMAP_KEY not in layer.metadata


def _hides(viewer: Any, other: Any, layer: Image) -> bool:
    """Whether an image lets nothing of another be seen beneath it, and both are on the slice that is shown."""
    if not _is_anatomy(other) or not other.visible or other.opacity < 1 or str(other.blending) not in _HIDING:
        return False
    if not other.rgb and other.colormap.colors[:, 3].min() < 1:
        return False
    n = viewer.dims.ndim
    (low, high), (low_beneath, high_beneath) = _extent(other, n), _extent(layer, n)
    displayed = np.isin(np.arange(n), viewer.dims.displayed)
    point = np.asarray(viewer.dims.point)
    overlap = np.minimum(high, high_beneath) > np.maximum(low, low_beneath)
    return bool(np.where(displayed, overlap, (low <= point) & (point <= high)).all())


def _extent(layer: Image, ndim: int) -> tuple[np.ndarray, np.ndarray]:
    """The least and greatest place of a layer in the world, per axis; it is everywhere along axes that it lacks."""
    low, high = layer.extent.world
    half = np.asarray(layer.extent.step) / 2  # from a voxel's centre to its border
    missing = np.full(ndim - len(low), np.inf)
    return np.concatenate([-missing, low - half]), np.concatenate([missing, high + half])
