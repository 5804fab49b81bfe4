"""Axial, coronal and sagittal, each the way round in which radiologists read it."""

from __future__ import annotations

import math
from typing import Any

from napari.layers import Layer

from napari_medtransformer.plugin.widgets.style import LETTER_COLOUR
from napari_medtransformer.volumes import Volume

PLANES = ("Axial", "Coronal", "Sagittal")
"""By the axis of (z, y, x) that is their normal."""

_GROUND = (0.0, 0.0, 0.0, 0.75)
_LETTERS = {"top": "top_center", "bottom": "bottom_center", "left": "middle_left", "right": "middle_right"}


def set_plane(viewer: Any, axis: int) -> None:
    """Show the slices normal to `axis` of (z, y, x), the viewer's last three dimensions."""
    offset = viewer.dims.ndim - 3
    leading = tuple(range(offset))
    rest = tuple(offset + a for a in range(3) if a != axis)
    viewer.dims.ndisplay = 2
    viewer.dims.order = (*leading, offset + axis, *rest)
    turn_upright(viewer)
    viewer.reset_view()


def plane_of(viewer: Any) -> int | None:
    """The axis of (z, y, x) that points out of the screen; None in 3D or in an unusual order."""
    offset = viewer.dims.ndim - 3
    if viewer.dims.ndisplay != 2 or offset < 0:
        return None
    axis = viewer.dims.order[-3] - offset
    return axis if axis in (0, 1, 2) else None


def shown_slice(viewer: Any, layer: Layer, shape_zyx: tuple[int, int, int]) -> tuple[int, int] | None:
    """(axis, index) of a layer's slice that is on screen; None in 3D, in an unusual order, or outside the layer."""
    if layer.ndim == 2:
        return 0, 0
    axis = plane_of(viewer)
    if axis is None:
        return None
    index = math.floor(float(layer.world_to_data(viewer.dims.point)[axis - 3]) + 0.5)
    return (axis, index) if 0 <= index < shape_zyx[axis] else None


def shown_frame(viewer: Any, layer: Layer) -> int:
    """Which frame of a layer (frame, z, y, x) is on screen; 0 for a layer of one volume, or in no viewer."""
    if layer.ndim != 4 or viewer is None or layer not in viewer.layers:
        return 0
    frame = round(float(layer.world_to_data(viewer.dims.point)[0]))
    return min(max(frame, 0), len(layer.data) - 1)


def show_frame(viewer: Any, layer: Layer, frame: int) -> None:
    """Bring a frame of a layer (frame, z, y, x) on screen; a layer of one volume is there anyway."""
    if layer.ndim == 4 and layer in viewer.layers:
        first = viewer.dims.ndim - layer.ndim
        viewer.dims.set_point(first, float(layer.data_to_world((frame, *(0,) * (layer.ndim - 1)))[0]))


def turn_upright(viewer: Any) -> None:
    """Superior is up wherever z runs down the screen; anterior is up in axial slices."""
    vertical = viewer.dims.order[-2] - (viewer.dims.ndim - 3)
    upward = viewer.dims.ndisplay == 2 and vertical == 0 and viewer.dims.ndim >= 3
    depth, _, horizontal = viewer.scene.camera.orientation
    viewer.scene.camera.orientation = (depth, "up" if upward else "down", horizontal)


def turn_back(viewer: Any) -> None:
    """Rows run down the screen again, as napari has it; for a viewer that shows no volume any more."""
    depth, _, horizontal = viewer.scene.camera.orientation
    viewer.scene.camera.orientation = (depth, "down", horizontal)


def show_directions(viewer: Any, volume: Volume | None) -> None:
    """Letter the canvas' edges with the patient's directions (R L A P S I), or remove the letters.

    They stand on a dark ground of their own, so that bright anatomy beneath does not swallow them.
    """
    # It draws, which needs napari's canvas: readers that are asked without a window come by here too.
    from napari_medtransformer.plugin.volume.edge_letters import EdgeLetter

    letters = _edge_letters(viewer, volume)
    for edge, position in _LETTERS.items():
        key = f"medt_{edge}"
        text = letters.get(edge, "")
        if key not in viewer.canvas.overlays:
            if not text:
                continue
            viewer.canvas.overlays[key] = EdgeLetter(
                position=position, font_size=14, color=LETTER_COLOUR, box=True, box_color=_GROUND, visible=True
            )
        overlay = viewer.canvas.overlays[key]
        overlay.text = text
        overlay.visible = bool(text)


def _edge_letters(viewer: Any, volume: Volume | None) -> dict[str, str]:
    offset = viewer.dims.ndim - 3
    if volume is None or plane_of(viewer) is None or min(viewer.dims.order[-2:]) < offset:
        return {}  # in 3D, or frames are side by side
    vertical, horizontal = (volume.direction_letters[d - offset] for d in viewer.dims.order[-2:])
    upward = str(viewer.scene.camera.orientation[1]) == "up"
    top, bottom = reversed(vertical) if upward else vertical
    return {"top": top, "bottom": bottom, "left": horizontal[0], "right": horizontal[1]}
