"""The prompts of a session on the canvas: points with their sign, and lines for everything that has a shape."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from napari.layers import Layer, Points, Shapes
from napari.utils.colormaps.standardize_color import transform_color
from qtpy.QtCore import QTimer
from qtpy.QtGui import QGuiApplication

from napari_medtransformer.plugin.layer_volume import SlicePoint, layer_shape, same_place
from napari_medtransformer.plugin.prompts.commands import PromptCommands
from napari_medtransformer.plugin.prompts.sketches import STROKE_ALPHA, sketches_over
from napari_medtransformer.plugin.prompts.tools import Sketch
from napari_medtransformer.plugin.widgets.style import NEGATIVE, POSITIVE
from napari_medtransformer.prompting.drawing import in_volume, prompt_outlines
from napari_medtransformer.prompting.prompts import BoxPrompt, MaskPrompt, PointPrompt, Prompt, ScribblePrompt

POINT_PIXELS = 12
"""Largest size of a point on screen."""
OUTLINE_PIXELS = 1.5
"""Of its outline, where the point has its largest size."""
LINE_SHARE = 1 / 512
"""Width of a prompt's line, of the image's longest side: a line or two of pixels on screen in a fitted view."""
NAMED_MS = 15
"""What a point is called is written down this long after it was shown: after it was drawn, and with the dock's news."""
_SELECTED = "#ffffff"
_CLEAR = "#00000000"


class PromptLayers:
    """A Points and a Shapes layer that mirror a session's prompts, and sketches that are none yet.

    What the user does to the points with napari's own tools becomes commands. Layers are made when first needed, and
    again if the user deleted them.
    """

    def __init__(
        self,
        add: Callable[[Layer], None],
        image: Layer,
        commands: PromptCommands,
        turn_here: Callable[[], bool] = lambda: True,
    ) -> None:
        """add: puts a layer into the viewer. turn_here: makes commands be about these prompts; False if they cannot."""
        self._add = add
        self._image = image
        self._commands = commands
        self._turn_here = turn_here
        self._syncing = False
        self._point_ids: list[int] = []
        self._shown_points: tuple[Any, ...] = ()
        self._shown_lines: tuple[Any, ...] = ()
        self._sketches: dict[str, tuple[Sketch, ...]] = {}
        self.points: Points | None = None
        self.shapes: Shapes | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Those that are there."""
        return tuple(layer for layer in (self.points, self.shapes) if layer is not None)

    def forget(self, layer: Layer) -> None:
        """A layer was taken out of the viewer."""
        if layer is self.points:
            self.points, self._shown_points = None, ()
            self._sketches.clear()  # they lay on it
        elif layer is self.shapes:
            self.shapes, self._shown_lines = None, ()

    def sync(
        self, prompts: Mapping[int, Prompt], colours: Mapping[int, str], selected: frozenset[int] = frozenset()
    ) -> None:
        """Show these prompts. colours: of each object. selected: prompts that are marked."""
        points = {i: prompt for i, prompt in prompts.items() if isinstance(prompt, PointPrompt)}
        lines = {i: prompt for i, prompt in prompts.items() if not isinstance(prompt, PointPrompt)}
        shown_points = (tuple(points.items()), selected & points.keys())
        shown_lines = (tuple(lines.items()), tuple(colours.items()), selected & lines.keys())
        self._syncing = True
        try:
            if shown_points != self._shown_points:
                self._show_points(points, selected)
                self._shown_points = shown_points
            had_lines = self._shown_lines and self._shown_lines[0]
            if (lines or had_lines) and shown_lines != self._shown_lines:
                self._show_lines(lines, colours, selected)
                self._shown_lines = shown_lines
        finally:
            self._syncing = False

    @property
    def sketched(self) -> tuple[Sketch, ...]:
        """Lines on the canvas that are no prompts."""
        return tuple(one for group in self._sketches.values() for one in group)

    def sketch(self, sketches: tuple[Sketch, ...], name: str = "drawing") -> None:
        """Show lines that are no prompts, in the place of those shown before under that name; none takes them away."""
        if sketches == self._sketches.get(name, ()):
            return
        self._sketches[name] = sketches
        if self.points is not None or sketches:
            sketches_over(self.show_points(), self._line_width).sketches = self.sketched

    def show_points(self) -> Points:
        """The layer of points, made if there is none."""
        if self.points is None:
            self.points = self._make_points()
            self._add(self.points)
        return self.points

    def _show_points(self, points: Mapping[int, PointPrompt], selected: frozenset[int]) -> None:
        if self.points is None and not points:
            return
        layer = self.show_points()
        self._point_ids = list(points)
        size = marker_size(self._image)
        looks = [_point_look(prompt) for prompt in points.values()]
        marked = bool(layer.selected_data)
        with quietly(layer):
            layer.selected_data = set()
            positions = [self._layer_position(p.position_zyx) for p in points.values()]
            layer.data = np.array(positions).reshape(-1, layer.ndim)
            if looks:
                layer.symbol = [symbol for symbol, _ in looks]
                layer.size = [1.6 * size if i in selected else size for i in points]
            colours = transform_color([colour for _, colour in looks]) if looks else np.zeros((0, 4))
            if not np.array_equal(layer.face_color, colours):
                layer.face_color = colours
        layer.refresh(extent=False, thumbnail=False, highlight=marked)
        known = weakref.ref(self)
        QTimer.singleShot(NAMED_MS, lambda: (mirror := known()) is not None and mirror._name_points(points))

    def _name_points(self, points: Mapping[int, PointPrompt]) -> None:
        """Say of every point what it is, unless others are shown by now: a table that takes longer than the points."""
        layer = self.points
        if layer is None or self._point_ids != list(points) or len(layer.data) != len(points):
            return
        with quietly(layer), layer.text.events.blocker_all():  # points without texts need not be drawn anew for it
            layer.features = {
                "prompt": list(points),
                "object": [p.object_id for p in points.values()],
                "sign": ["+" if p.positive else "−" for p in points.values()],
                "plane": [("axial", "coronal", "sagittal")[p.axis] for p in points.values()],
            }
        if set(layer.events.features.callbacks) != {layer.events}:
            layer.events.features()  # for nobody, it would only have the list of layers painted once more

    def _show_lines(self, lines: Mapping[int, Prompt], colours: Mapping[int, str], selected: frozenset[int]) -> None:
        layer = self.show_shapes()
        outlines: list[np.ndarray] = []
        edges: list[str] = []
        faces: list[str] = []
        widths: list[float] = []
        kinds: list[str] = []
        owners: list[tuple[int, Prompt]] = []
        for number, prompt in lines.items():
            edge, face = _line_colours(prompt, colours)
            key = prompt.key
            for line in prompt_outlines(prompt):
                filled = isinstance(prompt, ScribblePrompt)
                at = in_volume(line, key.axis, key.index)[:, -layer.ndim :]
                outlines.append(at if filled else _closed(at))
                kinds.append("polygon" if filled else "path")
                edges.append(_SELECTED if number in selected else edge)
                faces.append(face)
                widths.append(self._line_width * (2 if number in selected else 1))
                owners.append((number, prompt))
        with layer.block_thumbnail_update():
            layer.data = []
            if outlines:
                layer.add(outlines, shape_type=kinds, edge_width=widths, edge_color=edges, face_color=faces)
            layer.features = {
                "prompt": [number for number, _ in owners],
                "object": [prompt.key.object_id for _, prompt in owners],
                "kind": [_kind(prompt) for _, prompt in owners],
                "sign": [_sign(prompt) for _, prompt in owners],
            }

    def show_shapes(self) -> Shapes:
        """The layer of lines, made if there is none."""
        if self.shapes is None:
            self.shapes = Shapes(
                ndim=min(self._image.ndim, 3), name=f"{self._image.name} shapes", opacity=1, **same_place(self._image)
            )
            self._add(self.shapes)
        return self.shapes

    def _make_points(self) -> Points:
        layer = Points(
            ndim=min(self._image.ndim, 3),
            name=f"{self._image.name} points",
            size=marker_size(self._image),
            canvas_size_limits=no_wider_than(1.6 * POINT_PIXELS),
            border_width=OUTLINE_PIXELS / POINT_PIXELS,
            border_color="white",
            **same_place(self._image),
        )
        layer.events.data.connect(self._on_points_edited)
        return layer

    def _on_points_edited(self, event: Any) -> None:
        if self._syncing or self.points is None:
            return
        action = str(getattr(event.action, "value", event.action))
        if action not in ("added", "removed", "changed") or not self._turn_here():
            return
        count = len(self._point_ids)
        if action == "added":
            self._shown_points = ()  # these points become prompts, and are shown as such
            self._commands.add_points([self._volume_position(place) for place in self.points.data[count:]])
            return
        indices = [int(i) % count for i in np.ravel(event.data_indices) if -count <= i < count]
        if action == "removed":
            self._commands.remove([self._point_ids[i] for i in indices])
        else:
            self._commands.move_points(
                {self._point_ids[i]: self._volume_position(self.points.data[i]) for i in indices}
            )

    def _layer_position(self, zyx: tuple[float, float, float]) -> tuple[float, ...]:
        return zyx[-min(self._image.ndim, 3) :]

    def _volume_position(self, position: np.ndarray) -> tuple[float, float, float]:
        z, y, x = (0.0,) * (3 - len(position)) + tuple(float(p) for p in position)
        return z, y, x

    @property
    def _line_width(self) -> float:
        return max(0.5, LINE_SHARE * max(layer_shape(self._image)[-3:]))


@contextmanager
def quietly(layer: Layer) -> Iterator[None]:
    """Many changes of a layer of ours without a redraw for each of them; refresh it afterwards.

    A setter of napari slices, uploads, draws a thumbnail and measures the extent of all layers anew: a click that set
    six of them would be answered a tenth of a second later.
    """
    with layer.events.blocker_all(), layer._block_refresh():
        yield


def _point_look(prompt: PointPrompt) -> tuple[str, str]:
    """(symbol, colour) of a sign."""
    return ("disc", POSITIVE) if prompt.positive else ("x", NEGATIVE)


def _closed(line: np.ndarray) -> np.ndarray:
    """A line back to its start. As paths, outlines cost a tenth of polygons, whose inside is cut into triangles."""
    return np.concatenate([line, line[:1]])


def _line_colours(prompt: Prompt, colours: Mapping[int, str]) -> tuple[str, str]:
    """(edge, face): boxes and masks in their object's colour, strokes and lassos in that of their sign."""
    if isinstance(prompt, BoxPrompt | MaskPrompt):
        return colours.get(prompt.object_id, "#ffffff"), _CLEAR
    sign = POSITIVE if prompt.positive else NEGATIVE
    return sign, sign + STROKE_ALPHA if isinstance(prompt, ScribblePrompt) else _CLEAR


def _kind(prompt: Prompt) -> str:
    return type(prompt).__name__.removesuffix("Prompt").lower()


def _sign(prompt: Prompt) -> str:
    if isinstance(prompt, BoxPrompt | MaskPrompt):
        return ""
    return "+" if prompt.positive else "−"


def marker_size(image: Layer) -> float:
    """The size of a point in voxels: a fitted view shows it at its largest, and picking it needs an aimed click."""
    return max(layer_shape(image)[-3:]) / 40


def no_wider_than(pixels: float) -> tuple[float, float]:
    """The limits of points on the canvas, which napari counts in a screen's own, finer pixels where it has such.

    Pixels are those of docks and texts. napari keeps a point of no size at the corner: at least 0 hides it.
    """
    finer = QGuiApplication.instance()
    return 0, pixels * (finer.devicePixelRatio() if isinstance(finer, QGuiApplication) else 1)


def box_between(a: SlicePoint, b: SlicePoint, object_id: int) -> BoxPrompt:
    """The box whose corners are the voxels under two mouse positions on one slice, both included."""
    low = [float(min(i, j)) for i, j in zip(a.voxel, b.voxel)]
    high = [float(max(i, j) + 1) for i, j in zip(a.voxel, b.voxel)]
    high[a.axis] = low[a.axis] = float(a.voxel[a.axis])
    return BoxPrompt((low[0], low[1], low[2]), (high[0], high[1], high[2]), object_id, a.axis)
