"""Adding a layer with as little of the window's time as napari allows: it cannot be left before the layer is there."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from napari.layers import Labels, Layer
from qtpy.QtWidgets import QWidget


def insert_quietly(viewer: Any, place: int, layer: Layer) -> None:
    """Insert a layer of ours into a viewer without selecting it; controls and drawing aids come when they are used.

    Selecting it, and then what was selected before, would show another layer's controls twice.
    """
    if isinstance(layer, Labels):
        defer_drawing_aids(layer)
    layers = viewer.layers
    # napari's own switch, which has no public name; where it is gone, the layer is selected as any other
    activates = getattr(layers, "_activate_on_insert", True)
    layers._activate_on_insert = False
    try:
        with _controls_on_demand(viewer):
            layers.insert(place, layer)
    finally:
        layers._activate_on_insert = activates


def defer_drawing_aids(layer: Labels) -> None:
    """Let the outline of the polygon tool and the circle of the brush be made when somebody takes the tool.

    napari makes both with every labels layer, which takes longer than all else about it.
    """
    for aid in getattr(layer, "_overlays", {}).values():
        if hasattr(aid, "enabled") and aid.visible and not aid.enabled:
            aid.visible = False
            aid.events.enabled.connect(_shower(aid))


def _shower(aid: Any) -> Any:
    """Makes a drawing aid visible; it does not keep it alive."""
    known = weakref.ref(aid)

    def show() -> None:
        present = known()
        if present is not None:
            present.visible = True

    return show


@contextmanager
def _controls_on_demand(viewer: Any) -> Iterator[None]:
    """Layers that are inserted meanwhile get their controls, sliders and boxes, once somebody selects them.

    napari makes them with the layer, a third of the time that it takes. In a window that keeps them otherwise than
    napari 0.9 does, they are made at once.
    """
    window = getattr(viewer, "window", None)
    container = getattr(getattr(window, "_qt_viewer", None), "controls", None)
    if not isinstance(getattr(container, "widgets", None), dict) or not hasattr(container, "_add"):
        yield
        return
    if not isinstance(container.widgets, _Controls):
        container.widgets = _Controls(container)
    with viewer.layers.events.inserted.blocker(container._add):
        yield


class _Controls(dict[Layer, QWidget]):
    """The controls of a window's layers, in place of napari's own dictionary: missing ones are made when asked for."""

    def __init__(self, container: Any) -> None:
        super().__init__(container.widgets)
        self._container = weakref.ref(container)

    def __missing__(self, layer: Layer) -> QWidget:
        container = self._container()
        if container is not None and layer in container.viewer.layers:
            container._add(SimpleNamespace(value=layer))
        elif isinstance(layer, Layer):  # taken out before anybody selected it: napari wants something to throw away
            self[layer] = QWidget()
        if layer not in self:
            raise KeyError(layer)
        return self[layer]
