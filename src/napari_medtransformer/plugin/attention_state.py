"""What the Attention dock shows: the voxel that asks, the site and head that answer, and how it is drawn."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_medtransformer.plugin.head_grid import PICTURE, Tile
from napari_medtransformer.plugin.heat_layer import HeatLayers, HeatStyle, SliceHeat
from napari_medtransformer.plugin.layer_volume import SlicePoint
from napari_medtransformer.plugin.notify import report
from napari_medtransformer.plugin.planes import PLANES
from napari_medtransformer.prompting.prompts import SliceKey

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController
    from napari_medtransformer.plugin.head_maps import HeadMaps, ProbedPrompts, ProbedSlice

MEAN, MAXIMUM = "mean", "maximum"
_TITLES = {MEAN: "mean", MAXIMUM: "maximum"}


@dataclass(frozen=True, eq=False)
class Answer:
    """What the worker found."""

    probed: ProbedSlice
    decoded: ProbedPrompts | None
    sites: tuple[tuple[str, str], ...]
    maps: HeadMaps
    pictures: dict[str, np.ndarray]


class AttentionState(QObject):
    """Asks the worker what heads attend to and keeps the newest answer. Belongs to a controller, held weakly.

    A slice is encoded under the probe once and kept until another slice, model or prompt is asked about.
    """

    changed = Signal()

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = weakref.ref(controller)
        self.site = ""
        self.head = MEAN
        self.shown = True
        self.style = HeatStyle()
        self.maps: HeadMaps | None = None
        self.query: SlicePoint | None = None
        self._pictures: dict[str, np.ndarray] = {}
        self.sites: tuple[tuple[str, str], ...] = ()  # (name, label) of those that can answer
        self._probed: ProbedSlice | None = None
        self._probed_for: Any = None
        self._decoded: ProbedPrompts | None = None
        self._decoded_for: Any = None
        self._awake = False
        self._layers = HeatLayers(controller.viewer)
        controller.queried.connect(self._on_query)
        controller.layer_changed.connect(self._forget)
        controller.models.changed.connect(self._forget)

    # ------------------------------------------------------------------ what there is

    @property
    def layers(self) -> HeatLayers:
        """The heatmap and the query mark in the viewer."""
        return self._layers

    @property
    def obstacle(self) -> str:
        """Why there is nothing to show, and what to do about it."""
        controller = self._controller()
        if controller.workspace is None or controller.model is None:
            return controller.obstacle or "The model is loading…"
        if self.maps is None:
            busy = self.query is not None and controller.queue.pending
            return "Looking inside…" if busy else "Click a voxel: what every head attends to from there appears here."
        return ""

    @property
    def query_line(self) -> str:
        """What asks: the voxel, where it is in the patient, its intensity."""
        controller = self._controller()
        if self.query is None or controller.workspace is None:
            return "Nothing asked yet."
        volume, voxel = controller.workspace.volume, self.query.voxel
        x, y, z = volume.mm_from_zyx(voxel)
        unit = " HU" if volume.modality == "CT" else ""
        value = f"{volume.data[voxel]:.5g}{unit}"
        place = f"{PLANES[self.query.axis]} slice {voxel[self.query.axis]} · {_voxel(voxel)}"
        return f"{place}\n{_side(x, 'R', 'L')} {_side(y, 'A', 'P')} {_side(z, 'S', 'I')} mm · {value}"

    @property
    def numbers_line(self) -> str:
        """The chosen map in numbers."""
        maps = self.maps
        if maps is None:
            return ""
        values = maps.values(self.head)
        peak = maps.peak_voxel(self.head)
        told = [f"Head {self.head}" if self.head.isdigit() else _TITLES[self.head].capitalize()]
        if self.head.isdigit():
            place = int(self.head)
            even = float(np.log(maps.heatmap.values[0].size))
            told.append(f"entropy {maps.entropy_nats[place]:.2f} nats (even: {even:.2f})")
            if np.isfinite(maps.distance_mm[place]):
                told.append(f"mean distance {maps.distance_mm[place]:.0f} mm")
        mask = self.object_mask()
        if mask is not None:
            told.append(f"{maps.share_inside(self.head, mask):.0%} inside {self._controller().workspace.object_name()}")
        told.append(f"peak {float(values.max()):.1%} at {_voxel(peak)}")
        return " · ".join(told)

    def tiles(self) -> list[Tile]:
        """The thumbnails, heads first."""
        maps = self.maps
        if maps is None:
            return []
        rows, columns = maps.asked_at
        height, width = maps.anatomy.shape
        mark = ((rows + 0.5) / height, (columns + 0.5) / width)
        mark = (1 - mark[0], mark[1]) if self._upside_down(maps.query.axis) else mark
        tiles = []
        for name in maps.names:
            if name.isdigit():
                entropy, distance = maps.entropy_nats[int(name)], maps.distance_mm[int(name)]
                title = f"{name} · {entropy:.1f} nats"
                reach = f", on average {distance:.0f} mm away" if np.isfinite(distance) else ""
                tip = f"Head {name}: entropy {entropy:.2f} nats{reach}"
            else:
                title, tip = _TITLES[name], f"The {_TITLES[name]} over all heads"
            tiles.append(Tile(name, title, tip, self._pictures[name], mark))
        return tiles

    # ------------------------------------------------------------------ choosing

    def set_awake(self, awake: bool) -> None:
        """Whether the dock can be seen; nothing is computed while it cannot."""
        self._awake = awake
        if awake and self.query is not None and (self.maps is None or self.maps.query != self.query):
            self._ask()

    def set_live(self, live: bool) -> None:
        """Whether the voxel under the cursor asks."""
        self._controller().follows_cursor = live

    def set_shown(self, shown: bool) -> None:
        """Whether the chosen map is drawn in the viewer."""
        self.shown = shown
        if shown:
            self._draw()
        else:
            self._layers.remove()
        self.changed.emit()

    def choose_site(self, site: str) -> None:
        """Let another site answer."""
        self.site = site
        self._ask()

    def choose_head(self, head: str) -> None:
        """Draw another head, or the mean or maximum of all."""
        if head != self.head:
            self.head = head
            self._draw()
            self.changed.emit()

    def find_head(self) -> None:
        """Choose the encoder's head that looks most at the selected object from the voxel that asks."""
        from napari_medtransformer.plugin.head_maps import head_looking_most_at

        mask, probed, query = self.object_mask(), self._probed, self.query
        if mask is None or probed is None or query is None:
            return

        def choose(found: tuple[str, str]) -> None:
            self.site, self.head = found
            self._ask()

        self._controller().queue.submit(
            lambda: head_looking_most_at(probed, query, mask),
            label="",
            key="attention",
            on_done=choose,
            on_error=report,
        )

    def object_mask(self) -> np.ndarray | None:
        """(H, W) bool: the selected object on the slice asked about; None where it has no pixel."""
        controller, maps = self._controller(), self.maps
        if maps is None or controller.session is None:
            return None
        axis, index = maps.query.axis, maps.query.voxel[maps.query.axis]
        mask = controller.session.slice_mask(SliceKey(controller.workspace.current_object, axis, index))
        return mask if mask.any() else None

    def restyle(self, **changes: Any) -> None:
        """Draw the heatmap in another colour map, opacity, percentile, blending or interpolation."""
        old, self.style = self.style, replace(self.style, **changes)
        if (old.colour_map, old.percentile) != (self.style.colour_map, self.style.percentile):
            self._ask()  # the thumbnails are drawn in the worker
        if old.smooth != self.style.smooth:
            self._draw()
        self._layers.restyle(self.style)

    # ------------------------------------------------------------------ asking

    def _on_query(self, point: SlicePoint, hovering: bool) -> None:
        if hovering and self.query is not None and point.voxel == self.query.voxel and point.axis == self.query.axis:
            return
        self.query = point
        self._ask()

    def _ask(self) -> None:
        controller = self._controller()
        session, query = controller.session, self.query
        if not self._awake or session is None or query is None:
            return
        from napari_medtransformer.plugin import head_maps

        model, volume, window = controller.model, controller.workspace.volume, session.window
        prompts = controller.prompts_on(query)
        axis, index = query.axis, query.voxel[query.axis]
        slice_key = (id(session), axis, index)
        known = self._probed if slice_key == self._probed_for else None
        decoded = self._decoded if known is not None and self._decoded_for == prompts else None
        site, style = self.site, replace(self.style)

        def look() -> Answer:
            probed = known or head_maps.probe_slice(model, volume, window, axis, index)
            answered = decoded or head_maps.probe_prompts(probed, prompts)
            sites = head_maps.sites_of(probed, answered)
            names = [name for name, _ in sites]
            # The last encoder block answers until the user chooses: it is what the decoder works with.
            chosen = site if site in names else [n for n in names if n.startswith("encoder")][-1]
            maps = head_maps.ask(probed, answered, chosen, query)
            drawn = head_maps.pictures(
                maps,
                side=PICTURE,
                colour_map=style.colour_map,
                percentile=style.percentile,
                upside_down=self._upside_down(axis),
            )
            return Answer(probed, answered, sites, maps, drawn)

        def show(answer: Answer) -> None:
            self._probed, self._probed_for = answer.probed, slice_key
            self._decoded, self._decoded_for = answer.decoded, prompts
            self.sites, self.maps, self._pictures = answer.sites, answer.maps, answer.pictures
            self.site = self.maps.site
            if self.head not in self.maps.names:
                self.head = self.maps.names[-1]
            self._draw()
            self.changed.emit()

        controller.queue.submit(look, label="", key="attention", on_done=show, on_error=report)

    def _draw(self) -> None:
        controller = self._controller()
        maps = self.maps
        if maps is None or not self.shown or controller.workspace is None:
            return
        heat = SliceHeat(
            maps.on_pixels(self.head, smooth=self.style.smooth), maps.query.axis, maps.query.voxel[maps.query.axis]
        )
        mark = np.insert(np.asarray(maps.asked_at, dtype=float), heat.axis, heat.index)
        self._layers.show(controller.workspace, heat, mark, self.style)

    def _upside_down(self, axis: int) -> bool:
        return axis != 0  # z runs down the rows of coronal and sagittal slices, and superior belongs up

    def _forget(self) -> None:
        self.maps = self._probed = self._probed_for = self._decoded = self._decoded_for = None
        self.sites, self._pictures = (), {}
        self._layers.remove()
        self.changed.emit()


def _side(mm: float, positive: str, negative: str) -> str:
    return f"{positive if mm >= 0 else negative} {abs(mm):.0f}"


def _voxel(zyx: tuple[int, int, int]) -> str:
    return "z {}, y {}, x {}".format(*zyx)
