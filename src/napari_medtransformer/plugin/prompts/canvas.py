"""Mouse on the canvas: clicks and drags go to the tool that is chosen; what it does not want pans as ever."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medtransformer.plugin.layer_volume import SlicePoint, nearest_inside, slice_point
from napari_medtransformer.plugin.prompts.tools import Tool

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController

CLICK_RADIUS = 4.0
"""Canvas pixels that a hand may tremble between press and release of one click."""

__all__ = ["CLICK_RADIUS", "CanvasTools", "Tool"]


class CanvasTools:
    """The viewer's mouse callbacks while a dock is open. `detach` takes them away again."""

    def __init__(self, viewer: Any, controller: SessionController) -> None:
        self._viewer = weakref.ref(viewer)
        self._controller = weakref.ref(controller)
        # napari's zoom on a double click would turn two quick clicks into a jump of the view.
        self._zooming = [f for f in viewer.mouse_double_click_callbacks if f.__name__ == "double_click_to_zoom"]
        self._listening = [
            (viewer.mouse_drag_callbacks, self._on_drag),
            (viewer.mouse_move_callbacks, self._on_move),
            (viewer.mouse_double_click_callbacks, self._on_double_click),
        ]
        self.attach()

    def attach(self) -> None:
        """Listen to the mouse; a double click zooms with the tool that only moves the view."""
        for callbacks, callback in self._listening:
            if callback not in callbacks:
                callbacks.append(callback)
        controller = self._controller()
        self.allow_double_click_zoom(controller is not None and controller.tool is Tool.PAN)

    def detach(self) -> None:
        """Give the viewer back its own mouse."""
        if self._viewer() is None:
            return
        for callbacks, callback in self._listening:
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
        controller.view.touch()
        pressed_at = np.asarray(event.pos, dtype=float)
        start = self._point(viewer, event)
        other_sign = "Shift" in event.modifiers
        drawing = start is not None and controller.gestures.begin(start, other_sign)
        # The canvas would draw the whole scene twice more to find out what a press that is not handled has hit.
        panning = start is not None and not drawing and controller.tool is not Tool.PAN and _can_be_panned(viewer)
        if drawing or panning:
            event.handled = True  # the drag draws or pans here; the canvas must not move the view
        grabbed = np.asarray(event.position, dtype=float)
        moved = False
        yield
        while event.type == "mouse_move":
            moved = moved or float(np.abs(np.asarray(event.pos) - pressed_at).max()) > CLICK_RADIUS
            if drawing and moved:
                controller.gestures.drag(self._clamped(viewer, event))
            elif panning and moved:
                _pan(viewer, grabbed - np.asarray(event.position, dtype=float))
            yield
        if drawing and moved:
            controller.gestures.finish(self._clamped(viewer, event))
        else:
            controller.gestures.abandon()
            if not moved:
                controller.clicked(start, other_sign=other_sign)

    def _on_double_click(self, viewer: Any, event: Any) -> None:
        controller = self._controller()
        if controller is not None and _mouse_is_free(viewer):
            controller.gestures.close_polygon()

    def _on_move(self, viewer: Any, event: Any) -> None:
        controller = self._controller()
        if controller is None:
            return
        controller.view.touch()
        if controller.wants_moves and not event.is_dragging:
            controller.hovered(self._point(viewer, event))

    def _point(self, viewer: Any, event: Any) -> SlicePoint | None:
        layer = self._controller().layer
        if layer is None or viewer.dims.ndisplay != 2 or self._controller().in_front.hiding:
            return None
        return slice_point(layer, event.position, event.dims_displayed, viewer.dims.ndim)

    def _clamped(self, viewer: Any, event: Any) -> SlicePoint | None:
        """The position, or the nearest one inside the volume: a hand may draw past the image's edge."""
        layer = self._controller().layer
        if layer is None:
            return None
        world = nearest_inside(layer, event.position)
        return slice_point(layer, world, event.dims_displayed, viewer.dims.ndim)


def _can_be_panned(viewer: Any) -> bool:
    """Whether a drag moves a view that we know how to move; else the canvas does."""
    return bool(viewer.dims.ndisplay == 2 and viewer.scene.camera.mouse_pan and not viewer.canvas.grid.enabled)


def _pan(viewer: Any, world: np.ndarray) -> None:
    """Move the view by so much of the world."""
    camera, displayed = viewer.scene.camera, list(viewer.dims.displayed)
    depth, *centre = camera.center
    camera.center = (depth, *(np.asarray(centre) + world[displayed]))


def _mouse_is_free(viewer: Any) -> bool:
    """Whether no layer is being painted, edited or selected on just now."""
    active = viewer.layers.selection.active
    return active is None or str(active.mode) == "pan_zoom"
