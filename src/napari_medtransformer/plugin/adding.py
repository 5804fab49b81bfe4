"""Adding a layer with as little of the window's time as napari allows: it cannot be left before the layer is there."""

from __future__ import annotations

import weakref
from typing import Any

from napari.layers import Labels, Layer


def insert_quietly(layers: Any, place: int, layer: Layer) -> None:
    """Insert a layer of ours into a viewer's list without selecting it; drawing aids come when they are used.

    Selecting it, and then what was selected before, would show another layer's controls twice.
    """
    if isinstance(layer, Labels):
        defer_drawing_aids(layer)
    # napari's own switch, which has no public name; where it is gone, the layer is selected as any other
    activates = getattr(layers, "_activate_on_insert", True)
    layers._activate_on_insert = False
    try:
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
