"""The prompts of a session on the canvas: points with their sign, boxes, each removable and movable by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from napari.layers import Layer, Points, Shapes

from napari_medtransformer.plugin.layer_volume import SlicePoint, layer_shape, same_place
from napari_medtransformer.plugin.prompt_commands import PromptCommands
from napari_medtransformer.plugin.style import NEGATIVE, POSITIVE
from napari_medtransformer.prompting.prompts import BoxPrompt, PointPrompt, Prompt

POINT_PIXELS = 12
"""Largest size of a point on screen."""
OUTLINE_PIXELS = 1.5
"""Of its outline: napari draws half of the smallest size a layer allows, at least."""
BOX_EDGE_PIXELS = 2.0


class PromptLayers:
    """A Points and a Shapes layer that mirror a session's prompts.

    What the user does to the points with napari's own tools becomes commands. Layers are made when first needed, and
    again if the user deleted them.
    """

    def __init__(
        self,
        add: Callable[[Layer], None],
        image: Layer,
        commands: PromptCommands,
    ) -> None:
        self._add = add
        self._image = image
        self._commands = commands
        self._syncing = False
        self._point_ids: list[int] = []
        self._shown: tuple[Any, ...] = ()
        self.points: Points | None = None
        self.boxes: Shapes | None = None

    def forget(self, layer: Layer) -> None:
        """A layer was taken out of the viewer."""
        if layer is self.points:
            self.points, self._shown = None, ()
        elif layer is self.boxes:
            self.boxes, self._shown = None, ()

    def sync(self, prompts: Mapping[int, Prompt], colours: Mapping[int, str], preview: BoxPrompt | None = None) -> None:
        """Show these prompts. colours: of each object. preview: a box that is being drawn."""
        shown = (tuple(prompts.items()), tuple(colours.items()), preview)
        if shown == self._shown:
            return
        self._syncing = True
        try:
            self._show_points({i: p for i, p in prompts.items() if isinstance(p, PointPrompt)})
            boxes = [p for p in prompts.values() if isinstance(p, BoxPrompt)]
            self._show_boxes(boxes if preview is None else [*boxes, preview], colours)
            self._shown = shown
        finally:
            self._syncing = False

    def _show_points(self, points: Mapping[int, PointPrompt]) -> None:
        if self.points is None:
            if not points:
                return
            self.points = self._make_points()
            self._add(self.points)
        layer = self.points
        self._point_ids = list(points)
        layer.selected_data = set()
        layer.data = np.array([self._layer_position(p.position_zyx) for p in points.values()]).reshape(-1, layer.ndim)
        layer.features = {
            "prompt": list(points),
            "object": [p.object_id for p in points.values()],
            "sign": ["+" if p.positive else "−" for p in points.values()],
            "plane": [("axial", "coronal", "sagittal")[p.axis] for p in points.values()],
        }
        if points:
            layer.symbol = ["disc" if p.positive else "x" for p in points.values()]
            layer.face_color = [POSITIVE if p.positive else NEGATIVE for p in points.values()]

    def _show_boxes(self, boxes: list[BoxPrompt], colours: Mapping[int, str]) -> None:
        if self.boxes is None:
            if not boxes:
                return
            self.boxes = self._make_boxes()
            self._add(self.boxes)
        layer = self.boxes
        layer.data = []
        if boxes:
            layer.add_rectangles(
                [self._corners(box) for box in boxes],
                edge_width=BOX_EDGE_PIXELS / 4,
                edge_color=[colours.get(box.object_id, "#ffffff") for box in boxes],
                face_color="transparent",
            )
        layer.features = {"object": [box.object_id for box in boxes]}

    def _make_points(self) -> Points:
        layer = Points(
            ndim=self._image.ndim,
            name="prompt points",
            size=marker_size(self._image),
            canvas_size_limits=(2 * OUTLINE_PIXELS, POINT_PIXELS),
            border_width=0.05,
            border_color="white",
            **same_place(self._image),
        )
        layer.events.data.connect(self._on_points_edited)
        return layer

    def _make_boxes(self) -> Shapes:
        return Shapes(ndim=self._image.ndim, name="prompt boxes", opacity=1.0, **same_place(self._image))

    def _on_points_edited(self, event: Any) -> None:
        if self._syncing or self.points is None:
            return
        action = str(getattr(event.action, "value", event.action))
        indices = [int(i) % max(1, len(self._point_ids)) for i in np.ravel(event.data_indices)]
        if action == "removed":
            self._commands.remove([self._point_ids[i] for i in indices])
        elif action == "changed":
            self._commands.move_points(
                {self._point_ids[i]: self._volume_position(self.points.data[i]) for i in indices}
            )

    def _layer_position(self, zyx: tuple[float, float, float]) -> tuple[float, ...]:
        return zyx[-self._image.ndim :]

    def _volume_position(self, position: np.ndarray) -> tuple[float, float, float]:
        z, y, x = (0.0,) * (3 - len(position)) + tuple(float(p) for p in position)
        return z, y, x

    def _corners(self, box: BoxPrompt) -> np.ndarray:
        """The four corners (4, ndim): a half-open box of voxels ends half a voxel before its stop."""
        rows, columns = (axis for axis in range(3) if axis != box.axis)
        corners = np.tile(np.asarray(box.start_zyx, dtype=float), (4, 1))
        start, stop = np.asarray(box.start_zyx) - 0.5, np.asarray(box.stop_zyx) - 0.5
        corners[:, rows] = [start[rows], start[rows], stop[rows], stop[rows]]
        corners[:, columns] = [start[columns], stop[columns], stop[columns], start[columns]]
        return corners[:, -self._image.ndim :]


def marker_size(image: Layer) -> float:
    """The size of a point in voxels: a fitted view shows it at its largest, and picking it needs an aimed click."""
    return max(layer_shape(image)) / 40


def box_between(a: SlicePoint, b: SlicePoint, object_id: int) -> BoxPrompt:
    """The box whose corners are the voxels under two mouse positions on one slice, both included."""
    low = [float(min(i, j)) for i, j in zip(a.voxel, b.voxel)]
    high = [float(max(i, j) + 1) for i, j in zip(a.voxel, b.voxel)]
    high[a.axis] = low[a.axis] = float(a.voxel[a.axis])
    return BoxPrompt((low[0], low[1], low[2]), (high[0], high[1], high[2]), object_id, a.axis)
