"""The chosen heatmap, and the mark of what asked, as layers on the anatomy."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer, Points, Vectors
from napari.utils.colormaps import Colormap, ensure_colormap
from qtpy.QtCore import QTimer

from napari_medtransformer.plugin.attention.pictures import ABOVE, BELOW, limits
from napari_medtransformer.plugin.layer_volume import place_of_slice, same_place
from napari_medtransformer.plugin.prompts.layers import OUTLINE_PIXELS, marker_size, no_wider_than, quietly
from napari_medtransformer.plugin.widgets.layer_choice import HEATMAP_KEY
from napari_medtransformer.plugin.widgets.style import QUERY
from napari_medtransformer.plugin.workspace import Workspace

if TYPE_CHECKING:
    from napari_medtransformer.attention.token_grid import TokenGrid

HEAT_NAME = "attention"
QUERY_NAME = "attention query"
LINES_NAME = "attention outline"
QUERY_PIXELS = 20
LINE_VOXELS = 0.15
SAMPLED = 128
"""Values along an axis that are looked at for a percentile; of all of a slice it takes as long as to draw it."""
CONTOUR_COLOUR = "#ffffff"
GRID_COLOUR = "#7f8896"
WINDOW_COLOUR = "#f9e65c"
SIGNED = "signed"


@dataclass(frozen=True)
class SliceHeat:
    """A map on one slice of a volume. values: (H, W), one per pixel of the slice. axis, index: the slice.

    grid: the tokens it comes from, whose edges can be drawn. signed: values of both signs around zero, else ≥ 0.
    solid: the map of the whole volume (z, y, x), of which `values` is the slice; drawn in its place. token: the size
    and first centre of its cells, in voxels per axis; None for a cell per voxel.
    """

    values: np.ndarray
    axis: int
    index: int
    grid: TokenGrid | None = None
    signed: bool = False
    solid: np.ndarray | None = None
    token: tuple[tuple[float, ...], tuple[float, ...]] | None = None


@dataclass
class HeatStyle:
    """How the heatmap layer is drawn. percentile: values below it stay clear. smooth: or every token as a tile.

    token_grid, windows: whether the edges of tokens and of attention windows are drawn. contour: the share of the mass
    that a line surrounds, 0 for none.
    """

    colour_map: str = "inferno"
    opacity: float = 0.8
    percentile: float = 50.0
    smooth: bool = True
    additive: bool = False
    token_grid: bool = False
    windows: bool = False
    contour: float = 0.0


class HeatLayers:
    """Keeps one heatmap layer, its outlines and one query mark in a viewer; they come back if the user deletes them."""

    def __init__(self, viewer: Any) -> None:
        self._viewer = weakref.ref(viewer)
        self.heat: Image | None = None
        self.lines: Vectors | None = None
        self.query: Points | None = None
        self._shown: SliceHeat | None = None
        self._own: np.ndarray | None = None  # the layer's values, where nobody else holds that array
        self._line_colours: list[str] = []
        self._mark_waits = False

    def show(
        self,
        workspace: Workspace,
        heat: SliceHeat,
        query_zyx: Sequence[float] | None,
        style: HeatStyle,
        *,
        moving: bool = False,
    ) -> None:
        """Draw a heatmap and its query, None for none, where they lie in the workspace's volume.

        moving: the cursor asks and has not come to rest. It marks the place itself, and the mark waits unseen: drawing
        both would take a sixth of all maps.
        """
        self._shown = heat
        self._show_heat(workspace, heat, style)
        self._show_lines(workspace, heat, style)
        if moving and query_zyx is not None:
            self._hide_mark()
        elif query_zyx is not None:
            self._show_query(workspace, query_zyx)
        elif self.query is not None:
            self._take_out(self.query)
            self.query = None

    def restyle(self, style: HeatStyle, limits_drawn: tuple[float, float] | None = None) -> None:
        """Draw the same heatmap another way. limits_drawn: its contrast limits, if they are known."""
        layer, heat = self.heat, self._shown
        if layer is None or heat is None:
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
        name = SIGNED if heat.signed else style.colour_map
        if layer.colormap.name != fading_name(name):
            layer.colormap = signed_colour_map() if heat.signed else fading_colour_map(name)
        if limits_drawn is None:
            limits_drawn = limits_of(np.asarray(layer.data), heat, style)
        if tuple(layer.contrast_limits) != limits_drawn:
            layer.contrast_limits = limits_drawn

    def remove(self, *, later: bool = False) -> None:
        """Take these layers out of the viewer.

        later: once the event loop turns, for whoever takes layers out just now may have these on a list as well.
        """
        gone = (self.heat, self.lines, self.query)
        self.heat = self.lines = self.query = self._shown = self._own = None
        for layer in gone:
            if later:
                QTimer.singleShot(0, partial(self._take_out, layer))
            else:
                self._take_out(layer)

    def set_visible(self, visible: bool) -> None:
        """Show or hide the map, which stays; another picture takes its place for a while."""
        if self.heat is not None and self.heat.visible != visible:
            self.heat.visible = visible

    def forget(self, layer: Layer) -> None:
        """A layer was taken out of the viewer."""
        if layer is self.heat:
            self.heat = None
        elif layer is self.lines:
            self.lines = None
        elif layer is self.query:
            self.query = None

    def _take_out(self, layer: Layer | None) -> None:
        viewer = self._viewer()
        if viewer is not None and layer is not None and layer in viewer.layers:
            viewer.layers.remove(layer)

    def _show_heat(self, workspace: Workspace, heat: SliceHeat, style: HeatStyle) -> None:
        image = workspace.layer
        ndim = min(image.ndim, 3)
        data, place = placed(heat, image)
        data = data[0] if ndim == 2 else data
        if self.heat is not None and self.heat.ndim != ndim:
            self.remove()
        low_high = limits_of(data, heat, style)
        if self.heat is None:
            # a map of a slice is copied into the layer's own array from now on, a volume's may be too large for two
            self._own = np.array(data) if heat.solid is None else None
            data = data if self._own is None else self._own
            self.heat = Image(data, name=HEAT_NAME, metadata={HEATMAP_KEY: True}, **place)
            workspace.add_layer(self.heat, below_prompts=True)
            self._lift()
        else:
            layer = self.heat
            if layer.data.shape == data.shape:
                self._renew(layer, data, low_high)
            else:
                self._own = np.array(data) if heat.solid is None else None
                layer.data = data if self._own is None else self._own
            for name in ("scale", "translate", "affine"):
                if name in place and not np.allclose(getattr(layer, name), place[name]):
                    setattr(layer, name, place[name])
        self.restyle(style, low_high)

    def _renew(self, layer: Image, data: np.ndarray, low_high: tuple[float, float]) -> None:
        """Other values in a layer of the same shape, with as little of napari as shows them on the canvas."""
        if self._own is not None and layer.data is self._own:
            np.copyto(self._own, data)
        else:
            with quietly(layer):
                layer.data = data
        limits_change = tuple(layer.contrast_limits) != low_high
        if limits_change:
            with quietly(layer):
                layer.contrast_limits = low_high
        # The list of layers would paint its row anew for each of these, and with it the window beneath the canvas.
        with self._viewer().layers.events.blocker_all():
            if limits_change:
                layer.events.contrast_limits_range()
                layer.events.contrast_limits()
            if layer.visible and self._own is not None and np.shares_memory(layer._data_view, self._own):
                layer.events.set_data()  # what is on screen is a view of this array: nothing has to be sliced again
            else:
                layer.refresh(extent=False, thumbnail=False, highlight=False)

    def _lift(self) -> None:
        """Above every image and label, which would hide it; prompts and marks stay on top."""
        viewer = self._viewer()
        if viewer is None or self.heat not in viewer.layers:
            return
        layers = viewer.layers
        below = [place for place, one in enumerate(layers) if isinstance(one, (Image, Labels)) and one is not self.heat]
        if below and below[-1] > layers.index(self.heat):
            layers.move(layers.index(self.heat), below[-1] + 1)

    def _show_lines(self, workspace: Workspace, heat: SliceHeat, style: HeatStyle) -> None:
        segments, colours = lines_of(heat, style)
        image = workspace.layer
        if not len(segments):
            self._take_out(self.lines)
            self.lines = None
            return
        starts = np.insert(segments[:, 0], heat.axis, heat.index, axis=1)
        ways = np.insert(segments[:, 1] - segments[:, 0], heat.axis, 0.0, axis=1)
        ndim = min(image.ndim, 3)
        data = np.stack([starts, ways], axis=1)[:, :, -ndim:]
        if self.lines is not None and self.lines.ndim != ndim:
            self._take_out(self.lines)
            self.lines = None
        if self.lines is None:
            self.lines = Vectors(
                data,
                name=LINES_NAME,
                vector_style="line",
                edge_width=LINE_VOXELS,
                edge_color=colours,
                metadata={HEATMAP_KEY: True},
                **same_place(image),
            )
            workspace.add_layer(self.lines, below_prompts=True)
            # above the heat, which lies where it was just put
            layers = self._viewer().layers
            layers.move(layers.index(self.lines), layers.index(self.heat) + 1)
        elif not (np.array_equal(self.lines.data, data) and self._line_colours == colours):
            self.lines.data = data
            self.lines.edge_color = colours
        self._line_colours = colours

    def _hide_mark(self) -> None:
        """Until the cursor rests; a mark that the user has hidden is left alone then as well."""
        if self.query is not None and self.query.visible:
            self.query.visible = False
            self._mark_waits = True

    def _show_query(self, workspace: Workspace, query_zyx: Sequence[float]) -> None:
        image = workspace.layer
        ndim = min(image.ndim, 3)
        position = np.asarray([query_zyx], dtype=float)[:, -ndim:]
        if self.query is not None and self.query.ndim != ndim:
            self._take_out(self.query)
            self.query = None
        if self.query is None:
            self.query = Points(
                position,
                name=QUERY_NAME,
                symbol="disc",
                size=1.6 * marker_size(image),
                canvas_size_limits=no_wider_than(QUERY_PIXELS),
                face_color="transparent",
                border_width=2 * OUTLINE_PIXELS / QUERY_PIXELS,
                border_color=QUERY,
                metadata={HEATMAP_KEY: True},
                **same_place(image),
            )
            workspace.add_layer(self.query)
        elif not np.array_equal(self.query.data, position):
            with quietly(self.query):
                self.query.selected_data = set()
                self.query.data = position
            self.query.refresh(extent=False, thumbnail=False)
        if self._mark_waits:
            self._mark_waits = False
            self.query.visible = True


def placed(heat: SliceHeat, image: Image) -> tuple[np.ndarray, dict[str, Any]]:
    """What is drawn of a map, (z, y, x), and where: on its slice of the image, or in the whole volume."""
    if heat.solid is None:
        data = np.expand_dims(np.asarray(heat.values, dtype=np.float32), heat.axis)
        return data, place_of_slice(image, heat.axis, heat.index)
    data, place = np.asarray(heat.solid, dtype=np.float32), same_place(image)
    if heat.token is None:
        return data, place
    size, first = (np.asarray(side)[-min(image.ndim, 3) :] for side in heat.token)
    if "scale" not in place:
        affine = np.array(place["affine"])
        affine[:3, 3] += affine[:3, :3] @ first
        affine[:3, :3] = affine[:3, :3] * size
        return data, place | {"affine": affine}
    scale = np.asarray(place["scale"])
    return data, place | {"scale": scale * size, "translate": np.asarray(place["translate"]) + scale * first}


def lines_of(heat: SliceHeat, style: HeatStyle) -> tuple[np.ndarray, list[str]]:
    """What is drawn over a map: (n, 2, 2) segments in pixels of the slice, and a colour for each."""
    if not (style.token_grid or style.windows or style.contour > 0):
        return np.zeros((0, 2, 2)), []
    from napari_medtransformer.inspection.outline import token_lines, top_mass_contour, window_lines

    parts: list[tuple[np.ndarray, str]] = []
    if style.token_grid and heat.grid is not None:
        parts.append((token_lines(heat.grid), GRID_COLOUR))
    if style.windows and heat.grid is not None:
        parts.append((window_lines(heat.grid), WINDOW_COLOUR))
    if style.contour > 0 and not heat.signed and heat.values.any():
        parts.append((top_mass_contour(heat.values, style.contour), CONTOUR_COLOUR))
    segments = [part for part, _ in parts if len(part)]
    colours = [colour for part, colour in parts for _ in range(len(part))]
    return (np.concatenate(segments) if segments else np.zeros((0, 2, 2))), colours


def limits_of(values: np.ndarray, heat: SliceHeat, style: HeatStyle) -> tuple[float, float]:
    """Contrast limits of a map; the percentile is that of a sample of its values, evenly spread.

    A map of a volume is coloured as its thumbnails are, up to the maximum of the slice that was asked: one that is
    many times larger somewhere else would leave nothing to be seen where people look.
    """
    if heat.signed:
        return signed_limits(values)
    if heat.solid is not None and heat.values.any():
        values = heat.values
    steps = [max(1, n // SAMPLED) for n in values.shape]
    low, _ = limits(values[tuple(slice(step // 2, None, step) for step in steps)], style.percentile)
    high = float(values.max())
    return (low, high) if high > low else (low, low + max(abs(low), 1e-6))


def signed_limits(values: np.ndarray) -> tuple[float, float]:
    """Contrast limits around zero."""
    largest = max(float(np.abs(values).max()), 1e-12)
    return -largest, largest


def signed_colour_map() -> Colormap:
    """Blue below zero, clear at zero, orange above."""
    shares = np.linspace(-1, 1, 65)
    colours = np.array([(*(ABOVE if share >= 0 else BELOW), min(1.0, 2 * abs(share))) for share in shares])
    return Colormap(colours, name=fading_name(SIGNED), display_name="blue – orange")


def fading_name(name: str) -> str:
    """What `fading_colour_map(name)` is called."""
    return f"{name} fading"


def fading_colour_map(name: str) -> Colormap:
    """A colour map that is clear at zero and opaque from a third on, so that anatomy shows where attention is low."""
    shares = np.linspace(0, 1, 64, dtype=np.float32)
    colours = np.array(ensure_colormap(name).map(shares))
    colours[:, 3] = np.clip(3 * shares, 0, 1)
    return Colormap(colours, name=fading_name(name), display_name=f"{name} (fading)")
