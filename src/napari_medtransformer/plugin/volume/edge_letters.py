"""Letters on dark grounds at the canvas' edges, whose grounds are built again only where they change."""

from __future__ import annotations

from typing import Any

from napari._vispy.overlays.text import VispyTextOverlay
from napari._vispy.utils.visual import overlay_to_visual
from napari.components.overlays import TextOverlay


class EdgeLetter(TextOverlay):
    """A letter at an edge of the canvas. A type of its own, so that it is drawn by `DrawnLetter`."""


class DrawnLetter(VispyTextOverlay):
    """Draws as any text of napari's, but leaves its ground alone while nothing about it has changed.

    napari sets up the grounds of all texts anew whenever a layer comes, goes, is shown or hidden, and vispy then
    compiles a program for each: for four letters that takes the window longer than the layer itself.
    """

    _ground: tuple[Any, ...] | None = None

    def _on_box_change(self) -> None:
        overlay, colour = self.overlay, self.overlay.box_color
        ground = (
            overlay.box and self._should_be_visible(),
            id(self.node.parent),
            (float(self.x_size), float(self.y_size)),
            tuple(self.viewer.canvas.overlay_tiling.padding),
            tuple(self.viewer.canvas.background_color if colour is None else colour),
            self.node.order,
            id(self.node.transform),
        )
        if ground != self._ground:
            super()._on_box_change()
            self._ground = ground


overlay_to_visual[EdgeLetter] = DrawnLetter
