"""What a hand does on the canvas, turned into prompts: boxes, strokes, outlines, labels to refine, prompts moved."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING

import numpy as np

from napari_medtransformer.plugin.layer_volume import SlicePoint, label_under, layer_shape, voxels_of_pixels
from napari_medtransformer.plugin.notify import reported, tell, warn
from napari_medtransformer.plugin.prompts.layers import box_between
from napari_medtransformer.plugin.prompts.tools import Sketch, Tool
from napari_medtransformer.plugin.widgets.style import NEGATIVE, POSITIVE
from napari_medtransformer.prompting.drawing import in_volume, nearest_prompt, on_slice, prompt_outlines, stroke_pixels
from napari_medtransformer.prompting.prompts import LassoPrompt, Prompt, ScribblePrompt, moved

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController

SKETCH_SECONDS = 0.03
"""A drawing in progress is redrawn this often at most: the eye is content, and the event loop free."""
GRAB_PIXELS = 8.0
"""Canvas pixels within which a prompt is taken hold of."""
BRUSH_SHARE = 120
"""A stroke is this part of the image's longest side broad, unless the user says otherwise; half of it to each side."""
_EDGE = "#ffffff"

_DRAWN = (Tool.BOX, Tool.SCRIBBLE, Tool.LASSO, Tool.EDIT)


class Gestures:
    """Drags and clicks of every tool but the point. Belongs to a controller, which it holds weakly."""

    def __init__(self, controller: SessionController) -> None:
        self._controller = weakref.ref(controller)
        self._trail: list[SlicePoint] = []
        self._positive = True
        self._grabbed: int | None = None
        self._vertices: list[SlicePoint] = []  # of an outline that is clicked corner by corner
        self._drawn_at = 0.0
        self._brush = 0.0

    @property
    def brush_radius(self) -> float:
        """Of a painted stroke, in voxels."""
        layer = self._controller().layer
        if self._brush or layer is None:
            return self._brush or 1.0
        return max(1.0, max(layer_shape(layer)[-3:]) / BRUSH_SHARE)

    def set_brush_radius(self, voxels: float) -> None:
        """How broad strokes are from now on."""
        self._brush = voxels
        self._controller().changed.emit()

    @property
    def clicking_outline(self) -> bool:
        """Whether corners of an outline were clicked and wait for the last."""
        return bool(self._vertices)

    def begin(self, start: SlicePoint, other_sign: bool) -> bool:
        """The button went down; whether a drag from here belongs to the tool and must not move the view."""
        controller = self._controller()
        if controller.workspace is None or controller.tool not in _DRAWN:
            return False
        self._trail = [start]
        self._positive = controller.positive != other_sign
        if controller.tool is Tool.EDIT:
            self._grabbed = self._prompt_at(start)
            return self._grabbed is not None
        return True

    def drag(self, here: SlicePoint | None) -> None:
        """The mouse moved with the button down."""
        if here is None or not self._trail:
            return
        if here.position_zyx != self._trail[-1].position_zyx:
            self._trail.append(here)
        now = time.perf_counter()
        if now - self._drawn_at >= SKETCH_SECONDS:
            self._show_sketch()
            self._drawn_at = time.perf_counter()

    def finish(self, here: SlicePoint | None) -> None:
        """The button went up after a drag."""
        controller = self._controller()
        if here is not None and self._trail and here.position_zyx != self._trail[-1].position_zyx:
            self._trail.append(here)
        trail, grabbed = self._trail, self._grabbed
        self.abandon()
        if len(trail) < 2 or controller.workspace is None:
            return
        if controller.tool is Tool.EDIT:
            self._move(grabbed, trail)
            return
        with reported():
            prompt = self._prompt(controller.tool, trail)
            if prompt is not None:
                controller.prompting.add(prompt)

    def abandon(self) -> None:
        """Forget the drag."""
        was_drawing = bool(self._trail)
        self._trail, self._grabbed = [], None
        workspace = self._controller().workspace
        if was_drawing and workspace is not None:
            workspace.prompts.sketch(())

    def click(self, point: SlicePoint, other_sign: bool) -> None:
        """A click without a drag, with a tool that is not the point."""
        controller = self._controller()
        if controller.tool is Tool.SCRIBBLE:
            self._positive = controller.positive != other_sign
            with reported():
                controller.prompting.add(self._stroke([point]))
        elif controller.tool is Tool.LASSO:
            self._corner(point, other_sign)
        elif controller.tool is Tool.REFINE:
            self._refine(point)
        elif controller.tool is Tool.EDIT:
            found = self._prompt_at(point)
            controller.prompting.select(() if found is None else (found,))

    def close_polygon(self) -> None:
        """Join the last corner of a clicked outline to its first."""
        vertices, controller = self._vertices, self._controller()
        self.drop_polygon()
        if not vertices or controller.workspace is None:
            return
        if len(vertices) < 3:
            warn("An outline needs three corners at least; it was dropped.")
            return
        with reported():
            controller.prompting.add(self._lasso(vertices))

    def drop_polygon(self) -> None:
        """Forget the corners that were clicked."""
        if self._vertices:
            self._vertices = []
            workspace = self._controller().workspace
            if workspace is not None:
                workspace.prompts.sketch(())

    # ------------------------------------------------------------------

    def _prompt(self, tool: Tool, trail: list[SlicePoint]) -> Prompt | None:
        if tool is Tool.BOX:
            return box_between(trail[0], trail[-1], self._object)
        if tool is Tool.SCRIBBLE:
            return self._stroke(trail)
        return self._lasso(trail) if len(trail) >= 3 else None

    def _stroke(self, trail: list[SlicePoint]) -> ScribblePrompt:
        controller, first = self._controller(), trail[0]
        shape = tuple(n for axis, n in enumerate(controller.workspace.volume.shape) if axis != first.axis)
        path = [on_slice(point.position_zyx, first.axis) for point in trail]
        pixels = stroke_pixels((shape[0], shape[1]), path, self.brush_radius)
        return ScribblePrompt(pixels, first.voxel[first.axis], self._positive, self._object, first.axis)

    def _lasso(self, trail: list[SlicePoint]) -> LassoPrompt:
        return LassoPrompt(tuple(point.position_zyx for point in trail), self._positive, self._object, trail[0].axis)

    def _corner(self, point: SlicePoint, other_sign: bool) -> None:
        if self._vertices and point.axis == self._vertices[0].axis and self._is_near(point, self._vertices[0]):
            self.close_polygon()
            return
        same_slice = self._vertices and point.voxel[point.axis] == self._vertices[0].voxel[self._vertices[0].axis]
        if not self._vertices or not same_slice:
            self._vertices, self._positive = [], self._controller().positive != other_sign
        self._vertices.append(point)
        workspace = self._controller().workspace
        line = np.array([vertex.position_zyx for vertex in self._vertices])
        workspace.prompts.sketch((Sketch(np.repeat(line, 2, axis=0)[: 2 * len(line)], self._colour),))

    def _refine(self, point: SlicePoint) -> None:
        """Make the label under the cursor, of any labels layer but our own, the object's masks, to be corrected."""
        controller = self._controller()
        session = controller.session
        found = label_under(controller.viewer, controller.workspace, point)
        if found is None:
            warn("There is no label under the cursor that could be refined; show a labels layer that has one there.")
        elif session is not None:
            with reported():
                slices = session.import_mask(found, self._object, point.axis)
                tell(f"Took over the label on {slices} slices; correct it with prompts, Undo gives it back.")
            controller.after_change()

    def _move(self, prompt_id: int | None, trail: list[SlicePoint]) -> None:
        controller = self._controller()
        session = controller.session
        if prompt_id is None or session is None or prompt_id not in session.prompts:
            return
        by = np.subtract(trail[-1].position_zyx, trail[0].position_zyx)
        prompt = moved(session.prompts[prompt_id], (float(by[0]), float(by[1]), float(by[2])))
        controller.prompting.replace({prompt_id: prompt})
        controller.prompting.select((prompt_id,))

    def _prompt_at(self, point: SlicePoint) -> int | None:
        controller = self._controller()
        if controller.session is None:
            return None
        place = (point.axis, point.voxel[point.axis])
        here = {i: p for i, p in controller.session.prompts.items() if (p.key.axis, p.key.index) == place}
        return nearest_prompt(here, on_slice(point.position_zyx, point.axis), self._reach)

    def _is_near(self, a: SlicePoint, b: SlicePoint) -> bool:
        distance = float(np.abs(np.subtract(a.position_zyx, b.position_zyx)).max())
        return distance <= self._reach

    def _show_sketch(self) -> None:
        controller, trail = self._controller(), self._trail
        workspace = controller.workspace
        if workspace is None or len(trail) < 2:
            return
        first = trail[0]
        line = np.array([point.position_zyx for point in trail])
        if controller.tool is Tool.BOX:
            (corners,) = prompt_outlines(box_between(first, trail[-1], self._object))
            colour = workspace.colour(self._object)
            sketches = [Sketch(in_volume(corners, first.axis, first.voxel[first.axis]), colour, closed=True)]
        elif controller.tool is Tool.EDIT:
            prompt = None if controller.session is None else controller.session.prompts.get(self._grabbed or 0)
            by = np.subtract(trail[-1].position_zyx, first.position_zyx)
            outlines = [] if prompt is None else prompt_outlines(prompt)
            sketches = []
            for outline in outlines:
                at = in_volume(outline, first.axis, first.voxel[first.axis]) + by
                single = len(at) == 1  # a point: a small cross in its place
                sketches.append(Sketch(self._cross(at[0], first.axis) if single else at, _EDGE, closed=not single))
        else:
            brush = 2 * self.brush_radius if controller.tool is Tool.SCRIBBLE else 1.0
            sketches = [Sketch(line, self._colour, width=brush)]
        workspace.prompts.sketch(tuple(sketches))

    def _cross(self, centre: np.ndarray, axis: int) -> np.ndarray:
        arm = self._reach
        rows, columns = (np.eye(3)[a] * arm for a in range(3) if a != axis)
        return np.array([centre - rows, centre + rows, centre, centre - columns, centre + columns])

    @property
    def _reach(self) -> float:
        """How near a prompt must be to be taken hold of, in voxels."""
        controller = self._controller()
        return voxels_of_pixels(controller.viewer, controller.layer, GRAB_PIXELS)

    @property
    def _object(self) -> int:
        return self._controller().workspace.current_object

    @property
    def _colour(self) -> str:
        return POSITIVE if self._positive else NEGATIVE
