"""The chosen heatmap, and the mark of what asked, as layers on the anatomy."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image, Layer, Points
from napari.utils.colormaps import Colormap, ensure_colormap

from napari_medtransformer.plugin.layer_choice import HEATMAP_KEY
from napari_medtransformer.plugin.layer_volume import same_place
from napari_medtransformer.plugin.pictures import limits
from napari_medtransformer.plugin.prompt_layers import OUTLINE_PIXELS, marker_size
from napari_medtransformer.plugin.style import QUERY
from napari_medtransformer.plugin.workspace import Workspace

HEAT_NAME = "attention"
QUERY_NAME = "attention query"
QUERY_PIXELS = 20


@dataclass(frozen=True)
class SliceHeat:
    """A heatmap on one slice of a volume. values: (H, W) ≥ 0, one per pixel of the slice. axis, index: the slice."""

    values: np.ndarray
    axis: int
    index: int


@dataclass
class HeatStyle:
    """How the heatmap layer is drawn. percentile: values below it stay clear. smooth: or every token as a tile."""

    colour_map: str = "inferno"
    opacity: float = 0.8
    percentile: float = 50.0
    smooth: bool = True
    additive: bool = False


class HeatLayers:
    """Keeps one heatmap layer and one query mark in a viewer; they come back if the user deletes them."""

    def __init__(self, viewer: Any) -> None:
        self._viewer = weakref.ref(viewer)
        self.heat: Image | None = None
        self.query: Points | None = None

    def show(self, workspace: Workspace, heat: SliceHeat, query_zyx: Sequence[float], style: HeatStyle) -> None:
        """Draw a heatmap and its query where they lie in the workspace's volume."""
        self._show_heat(workspace, heat, style)
        self._show_query(workspace, query_zyx)

    def restyle(self, style: HeatStyle) -> None:
        """Draw the same heatmap another way."""
        layer = self.heat
        if layer is None:
            return
        wanted = {
            "blending": "additive" if style.additive else "translucent_no_depth",
            "opacity": style.opacity,
            "interpolation2d": "linear" if style.smooth else "nearest",
        }
        # Every setter redraws, even to the value it has; while a cursor is followed that would be felt.
        for name, value in wanted.items():
            if str(getattr(layer, name)) != str(value):
                setattr(layer, name, value)
        if layer.colormap.name != fading_name(style.colour_map):
            layer.colormap = fading_colour_map(style.colour_map)
        layer.contrast_limits = limits(np.asarray(layer.data), style.percentile)

    def remove(self) -> None:
        """Take both layers out of the viewer."""
        viewer = self._viewer()
        for layer in (self.heat, self.query):
            if viewer is not None and layer is not None and layer in viewer.layers:
                viewer.layers.remove(layer)
        self.heat = self.query = None

    def forget(self, layer: Layer) -> None:
        """A layer was taken out of the viewer."""
        if layer is self.heat:
            self.heat = None
        elif layer is self.query:
            self.query = None

    def _show_heat(self, workspace: Workspace, heat: SliceHeat, style: HeatStyle) -> None:
        image = workspace.layer
        data = np.expand_dims(np.asarray(heat.values, dtype=np.float32), heat.axis)
        ndim = image.ndim
        first = np.zeros(3)
        first[heat.axis] = heat.index
        place = same_place(image)
        # The slice's place in the world is linear in its index, so the layer is the image's, moved along that axis.
        place["translate"] = np.asarray(image.translate) + np.asarray(image.scale) * first[-ndim:]
        data = data[0] if ndim == 2 else data
        if self.heat is not None and self.heat.ndim != ndim:
            self.remove()
        if self.heat is None:
            self.heat = Image(data, name=HEAT_NAME, metadata={HEATMAP_KEY: True}, **place)
            workspace.add_layer(self.heat, below_prompts=True)
        else:
            layer = self.heat
            layer.data = data
            if not np.allclose(layer.translate, place["translate"]):
                layer.translate = place["translate"]
        self.restyle(style)

    def _show_query(self, workspace: Workspace, query_zyx: Sequence[float]) -> None:
        image = workspace.layer
        position = np.asarray([query_zyx], dtype=float)[:, -image.ndim :]
        if self.query is not None and self.query.ndim != image.ndim:
            self.query = None
        if self.query is None:
            self.query = Points(
                position,
                name=QUERY_NAME,
                symbol="disc",
                size=1.6 * marker_size(image),
                canvas_size_limits=(2 * OUTLINE_PIXELS, QUERY_PIXELS),
                face_color="transparent",
                border_width=0.05,
                border_color=QUERY,
                metadata={HEATMAP_KEY: True},
                **same_place(image),
            )
            workspace.add_layer(self.query)
        elif not np.array_equal(self.query.data, position):
            self.query.selected_data = set()
            self.query.data = position


def fading_name(name: str) -> str:
    """What `fading_colour_map(name)` is called."""
    return f"{name} fading"


def fading_colour_map(name: str) -> Colormap:
    """A colour map that is clear at zero and opaque from a third on, so that anatomy shows where attention is low."""
    shares = np.linspace(0, 1, 64, dtype=np.float32)
    colours = np.array(ensure_colormap(name).map(shares))
    colours[:, 3] = np.clip(3 * shares, 0, 1)
    return Colormap(colours, name=fading_name(name), display_name=f"{name} (fading)")
