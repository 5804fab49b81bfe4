"""Mouse on the canvas: a click is a point, a drag with the box tool a box, any other drag pans as ever."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medtransformer.plugin.layer_volume import SlicePoint, layer_shape, slice_point

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController

CLICK_RADIUS = 4.0
"""Canvas pixels that a hand may tremble between press and release of one click."""


class Tool(Enum):
    """What a click on the canvas means."""

    PAN = "pan"
    POINT = "point"
    BOX = "box"


class CanvasTools:
    """The viewer's mouse callbacks while a dock is open. `detach` takes them away again."""

    def __init__(self, viewer: Any, controller: SessionController) -> None:
        self._viewer = weakref.ref(viewer)
        self._controller = weakref.ref(controller)
        # napari's zoom on a double click would turn two quick clicks into a jump of the view.
        self._zooming = [f for f in viewer.mouse_double_click_callbacks if f.__name__ == "double_click_to_zoom"]
        viewer.mouse_drag_callbacks.append(self._on_drag)
        viewer.mouse_move_callbacks.append(self._on_move)

    def detach(self) -> None:
        """Give the viewer back its own mouse."""
        viewer = self._viewer()
        if viewer is None:
            return
        for callbacks, callback in (
            (viewer.mouse_drag_callbacks, self._on_drag),
            (viewer.mouse_move_callbacks, self._on_move),
        ):
            if callback in callbacks:
                callbacks.remove(callback)
        self.allow_double_click_zoom(True)

    def allow_double_click_zoom(self, allowed: bool) -> None:
        """Whether a double click zooms, as in plain napari."""
        viewer = self._viewer()
        if viewer is None:
            return
        for callback in self._zooming:
            present = callback in viewer.mouse_double_click_callbacks
            if allowed and not present:
                viewer.mouse_double_click_callbacks.append(callback)
            elif present and not allowed:
                viewer.mouse_double_click_callbacks.remove(callback)

    def _on_drag(self, viewer: Any, event: Any) -> Iterator[None]:
        controller = self._controller()
        if controller is None or event.button != 1 or "Alt" in event.modifiers or not _mouse_is_free(viewer):
            return
        pressed_at = np.asarray(event.pos, dtype=float)
        start = self._point(viewer, event, controller)
        boxing = controller.tool is Tool.BOX and start is not None
        if boxing:
            event.handled = True  # the drag draws; it must not move the view
        moved = False
        yield
        while event.type == "mouse_move":
            moved = moved or float(np.abs(np.asarray(event.pos) - pressed_at).max()) > CLICK_RADIUS
            if boxing and moved:
                controller.preview_box(start, self._clamped(viewer, event, controller))
            yield
        controller.preview_box(None, None)
        if boxing and moved:
            controller.box_drawn(start, self._clamped(viewer, event, controller))
        elif not moved:
            controller.clicked(start, other_sign="Shift" in event.modifiers)

    def _on_move(self, viewer: Any, event: Any) -> None:
        controller = self._controller()
        if controller is not None and controller.follows_cursor and not event.is_dragging:
            controller.hovered(self._point(viewer, event, controller))

    def _point(self, viewer: Any, event: Any, controller: SessionController) -> SlicePoint | None:
        layer = controller.layer
        if layer is None or viewer.dims.ndisplay != 2:
            return None
        return slice_point(layer, event.position, event.dims_displayed, viewer.dims.ndim)

    def _clamped(self, viewer: Any, event: Any, controller: SessionController) -> SlicePoint | None:
        """The position, or the nearest one inside the volume: a box may be drawn past the image's edge."""
        layer = controller.layer
        if layer is None:
            return None
        world = np.asarray(event.position, dtype=float)
        inside = np.asarray(layer.world_to_data(world), dtype=float)
        shape = np.asarray(layer_shape(layer))
        nearest = np.clip(inside, 0, shape - 1)
        moved = world.copy()
        moved[-layer.ndim :] = np.asarray(layer.data_to_world(nearest))[-layer.ndim :]
        return slice_point(layer, moved, event.dims_displayed, viewer.dims.ndim)


def _mouse_is_free(viewer: Any) -> bool:
    """Whether no layer is being painted, edited or selected on just now."""
    active = viewer.layers.selection.active
    return active is None or str(active.mode) == "pan_zoom"
