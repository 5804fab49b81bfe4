"""Lines that follow the mouse: a box being drawn, a stroke being painted, the outline that a click would give.

As shapes of a layer, each move of the mouse has napari paint a row of its list, make tables and triangles anew and
compile programs: 36 to 40 ms of the window's own work while a box was drawn. Here it is one small visual on the canvas,
whose triangles are sent and drawn in one call: 12 to 23 ms (docs/benchmarks.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from napari._vispy.overlays.base import LayerOverlayMixin, VispySceneOverlay
from napari._vispy.utils.gl import BLENDING_MODES
from napari._vispy.utils.visual import overlay_to_visual
from napari.components.overlays import SceneOverlay
from napari.layers import Layer
from napari.layers.base._base_constants import Blending
from napari.utils.colormaps.standardize_color import transform_color
from vispy.gloo import VertexBuffer
from vispy.scene.visuals import create_visual_node
from vispy.visuals import Visual

from napari_medtransformer.plugin.prompts.tools import Sketch

_KEY = "medt_sketches"
_SHARPEST = 2.0
"""A corner reaches out by so many half widths at most."""
STROKE_ALPHA = "73"
"""Of a painted stroke, so that the anatomy is seen through it."""
_NOTHING = np.zeros((0, 2), np.float32)

_VERTEX = """
attribute vec2 a_position;
attribute vec4 a_colour;
varying vec4 v_colour;
void main() {
    v_colour = a_colour;
    gl_Position = $transform(vec4(a_position, 0., 1.));
}
"""
_FRAGMENT = """
varying vec4 v_colour;
void main() {
    gl_FragColor = v_colour;
}
"""


def ribbon(line: np.ndarray, width: float, *, closed: bool = False) -> np.ndarray:
    """Triangles (3 m, 2) that cover a line (n, 2) of a width; closed: joined up. A line of one place is a square."""
    line = np.asarray(line, np.float64)
    if not len(line):
        return _NOTHING
    line = line[np.r_[True, (np.diff(line, axis=0) != 0).any(axis=1)]]
    if closed and len(line) > 1 and (line[0] == line[-1]).all():
        line = line[:-1]
    if len(line) == 1:
        line, closed = line + np.array([(0, -width / 2), (0, width / 2)]), False
    closed = closed and len(line) > 2
    path = np.concatenate([line, line[:1]]) if closed else line
    along = np.diff(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = along[:, ::-1] * (-1, 1)
    before = np.concatenate([across[-1:] if closed else across[:1], across])
    after = np.concatenate([across, across[:1] if closed else across[-1:]])
    corner = (before + after) / np.maximum(1 + (before * after).sum(axis=1, keepdims=True), 1e-6)
    reach = np.linalg.norm(corner, axis=1, keepdims=True)
    corner *= np.minimum(1, _SHARPEST / np.maximum(reach, 1e-6)) * width / 2
    left, right = path + corner, path - corner
    pieces = np.stack([left[:-1], right[:-1], left[1:], right[:-1], left[1:], right[1:]], axis=1)
    return pieces.reshape(-1, 2).astype(np.float32)


class SketchOverlay(SceneOverlay):
    """Sketches over a layer (…, y, x) of the volume they lie on. thinnest: the width of a line, in its voxels."""

    sketches: tuple[Any, ...] = ()
    thinnest: float = 1.0
    visible: bool = True
    blending: Blending = Blending.TRANSLUCENT_NO_DEPTH


def sketches_over(layer: Layer, thinnest: float) -> SketchOverlay:
    """The overlay of a layer, put there at the first call."""
    overlay = layer._overlays.get(_KEY)
    if overlay is None:
        overlay = layer._overlays[_KEY] = SketchOverlay(thinnest=thinnest)
    return overlay


class RibbonsVisual(Visual):
    """Coloured triangles."""

    def __init__(self) -> None:
        super().__init__(_VERTEX, _FRAGMENT)
        self.unfreeze()
        self._corners = VertexBuffer(np.zeros((3, 2), np.float32))
        self._colours = VertexBuffer(np.zeros((3, 4), np.float32))
        self.is_empty = True
        self._draw_mode = "triangles"
        self.shared_program["a_position"] = self._corners
        self.shared_program["a_colour"] = self._colours
        self.set_gl_state(**BLENDING_MODES["translucent_no_depth"])
        self.freeze()

    def set_data(self, corners: np.ndarray, colours: np.ndarray) -> None:
        """Draw these from the next frame on. corners: (n, 2) x, y; colours: (n, 4) RGBA."""
        self.is_empty = not len(corners)
        if not self.is_empty:
            self._corners.set_data(corners)
            self._colours.set_data(colours)
        self.update()

    def _prepare_transforms(self, view: Any) -> None:
        view.view_program.vert["transform"] = view.transforms.get_transform()

    def _prepare_draw(self, view: Any) -> bool:
        return not self.is_empty


Ribbons = create_visual_node(RibbonsVisual)


class DrawnSketches(LayerOverlayMixin, VispySceneOverlay):
    """Draws those sketches that lie in the slice that is shown."""

    overlay: SketchOverlay

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(node=Ribbons(), **kwargs)
        self.overlay.events.sketches.connect(self._show)
        self.layer.events.set_data.connect(self._show)  # another slice or plane
        self.reset()
        self._show()

    def _show(self, event: Any = None) -> None:
        if not self.overlay.sketches and self.node.is_empty:
            return
        triangles, colours = [_NOTHING], [np.zeros((0, 4), np.float32)]
        shown = tuple(self.layer._slice_input.displayed)
        here = np.asarray(self.layer.world_to_data(self.viewer.dims.point))
        for sketch in self.overlay.sketches if len(shown) == 2 else ():
            line = np.asarray(sketch.line_zyx)[:, -self.layer.ndim :]
            hidden = [axis for axis in range(self.layer.ndim) if axis not in shown]
            if (np.abs(line[:, hidden] - here[hidden]) > 0.5).any():
                continue
            pieces = ribbon(line[:, shown[::-1]], self._width(sketch), closed=sketch.closed)
            triangles.append(pieces)
            colour = transform_color(sketch.colour + (STROKE_ALPHA if sketch.width > 1 else ""))
            colours.append(np.tile(colour.astype(np.float32), (len(pieces), 1)))
        self.node.set_data(np.concatenate(triangles), np.concatenate(colours))

    def _width(self, sketch: Sketch) -> float:
        return max(self.overlay.thinnest, 0.0 if sketch.closed else sketch.width)

    def close(self) -> None:
        """The layer was taken out."""
        self.overlay.events.sketches.disconnect(self._show)
        super().close()


overlay_to_visual[SketchOverlay] = DrawnSketches
