"""How the chosen map is drawn in the viewer: its style, whether it is shown, and what is drawn in its place."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medtransformer.plugin.attention.heat_layer import HeatLayers, HeatStyle, SliceHeat

if TYPE_CHECKING:
    from napari_medtransformer.attention.heatmap import Heatmap
    from napari_medtransformer.inspection.queries import Answer
    from napari_medtransformer.plugin.controller import SessionController

SOLID_VOXELS = 32_000_000
"""Of a larger volume a map in three axes is drawn token by token: on its voxels it would take more than 128 MB."""


class HeatDrawing:
    """Draws one map of an answer, or another map of its slice."""

    def __init__(self, controller: SessionController) -> None:
        self._controller = weakref.ref(controller)
        self.style = HeatStyle()
        self.shown = True
        self.layers = HeatLayers(controller.viewer)
        self._instead: SliceHeat | None = None

    def restyle(self, **changes: Any) -> tuple[bool, bool]:
        """Change the style. Returns whether thumbnails have to be made anew, and whether the map has to be drawn."""
        old, self.style = self.style, replace(self.style, **changes)
        pictures = (old.colour_map, old.percentile) != (self.style.colour_map, self.style.percentile)
        return pictures, bool({"smooth", "token_grid", "windows", "contour"} & changes.keys())

    def put_instead(self, heat: SliceHeat | None) -> bool:
        """Another map in place of the answer's, None for the answer's own. Returns whether that changes anything."""
        changes = heat is not None or self._instead is not None
        self._instead = heat
        return changes

    def draw(self, answer: Answer | None, head: str, where: tuple[int, int] | None, *, moving: bool = False) -> None:
        """Show the chosen map of an answer about a slice (axis, index), or what is drawn in its place.

        moving: the cursor asks and has not come to rest.
        """
        workspace = self._controller().workspace
        if answer is None or not self.shown or workspace is None or where is None:
            return
        heat = self._instead
        if heat is None:
            heat = heat_of(answer, head, where, smooth=self.style.smooth)
        elif (heat.axis, heat.index) != where:
            return
        mark = None
        if answer.mark_yx is not None:
            mark = np.insert(np.asarray(answer.mark_yx, dtype=float), *where)
        self.layers.show(workspace, heat, mark, self.style, moving=moving)

    def forget(self) -> None:
        """Another volume or model: nothing is drawn."""
        self._instead = None
        self.layers.remove(later=True)


def heat_of_map(heatmap: Heatmap, where: tuple[int, int], *, smooth: bool = True, signed: bool = False) -> SliceHeat:
    """A heatmap of one head over a slice, or over a volume, as what is drawn on a slice (axis, index)."""
    if len(heatmap.native_shape) == 2:
        return SliceHeat(heatmap.on_pixels(smooth=smooth)[0], *where, grid=heatmap.grid, signed=signed)
    from napari_medtransformer.inspection.cuts import cut_heatmap

    cut = cut_heatmap(heatmap, *where, smooth=smooth)
    solid, token = heatmap.values[0], (heatmap.scale, heatmap.translate)
    if np.prod(heatmap.native_shape) <= SOLID_VOXELS:
        solid, token = heatmap.on_pixels(smooth=smooth)[0], None
    return SliceHeat(cut.on_pixels(smooth=smooth)[0], *where, grid=cut.grid, signed=signed, solid=solid, token=token)


def heat_of(answer: Answer, head: str, where: tuple[int, int], *, smooth: bool) -> SliceHeat:
    """One map of an answer as what is drawn: on a slice or, where the model sees three axes, in the volume."""
    from napari_medtransformer.inspection.queries import one_map

    grid = answer.heatmap.grid if answer.lines is None else answer.lines
    if answer.solid is None:
        return SliceHeat(answer.on_pixels(head, smooth=smooth), *where, grid=grid)
    return replace(heat_of_map(one_map(answer.solid, head), where, smooth=smooth), grid=grid)
