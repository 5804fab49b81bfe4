"""What the Attention dock shows: what asks, the site and head that answer, and how it is drawn."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_medtransformer.plugin.attention_words import query_maker
from napari_medtransformer.plugin.heat_layer import HeatLayers, HeatStyle, SliceHeat
from napari_medtransformer.plugin.layer_volume import SlicePoint
from napari_medtransformer.plugin.notify import report, warn
from napari_medtransformer.plugin.organs import Organ, labels_of, organs_on_slice
from napari_medtransformer.prompting.prompts import SliceKey

if TYPE_CHECKING:
    from napari_medtransformer.inspection import SliceInspection
    from napari_medtransformer.inspection.queries import Answer
    from napari_medtransformer.models.base import Prompts
    from napari_medtransformer.plugin.controller import SessionController
    from napari_medtransformer.plugin.head_maps import Seen, SiteEntry, Wish

MEAN, MAXIMUM, ROLLOUT = "mean", "maximum", "rollout"
Asks = Literal["voxel", "prompt", "organ", "everything", "prefix"]
MATRIX_DELAY_MS = 150
"""All sites are asked once the query has rested this long."""


class AttentionState(QObject):
    """Asks the worker what heads attend to and keeps the newest answer. Belongs to a controller, held weakly.

    A slice is encoded under the probe once and kept until another slice, model or prompt is asked about.
    """

    changed = Signal()  # a new answer, or something else that is shown beside it
    matrix_changed = Signal()

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = weakref.ref(controller)
        self.site = ""
        self.head = MEAN
        self.shown = True
        self.style = HeatStyle()
        self.asks: Asks = "voxel"
        self.pinned = False
        self.prompt_index: int | None = None  # None: the newest point
        self.asking_organ: Organ | None = None
        self.target_organ: Organ | None = None
        self.query: SlicePoint | None = None
        self.seen: Seen | None = None
        self.matrix: tuple[Answer, ...] = ()
        self.cells: list[list[np.ndarray]] = []
        self.wants_matrix = False
        self._clicks = 0  # labels may have been painted between them
        self._seen_for: Any = None
        self._matrix_of: Any = None
        self._organs: tuple[Any, list[Organ]] = (None, [])
        self._override: SliceHeat | None = None
        self._awake = False
        self._layers = HeatLayers(controller.viewer)
        self._matrix_timer = QTimer(self)
        self._matrix_timer.setSingleShot(True)
        self._matrix_timer.setInterval(MATRIX_DELAY_MS)
        self._matrix_timer.timeout.connect(self._ask_all)
        controller.queried.connect(self._on_query)
        controller.layer_changed.connect(self._on_layer)
        controller.models.changed.connect(self._forget)

    # ------------------------------------------------------------------ what there is

    @property
    def controller(self) -> SessionController:
        """The controller that this belongs to."""
        return self._controller()

    @property
    def layers(self) -> HeatLayers:
        """The heatmap, its outlines and the query mark in the viewer."""
        return self._layers

    @property
    def answer(self) -> Answer | None:
        """The newest answer."""
        return None if self.seen is None else self.seen.answer

    @property
    def inspection(self) -> SliceInspection | None:
        """The slice that was asked about."""
        return None if self.seen is None else self.seen.inspection

    @property
    def sites(self) -> tuple[SiteEntry, ...]:
        """Those that can answer."""
        return () if self.seen is None else self.seen.sites

    @property
    def where(self) -> tuple[int, int] | None:
        """(axis, index) of the slice that is asked about."""
        return None if self.query is None else (self.query.axis, self.query.voxel[self.query.axis])

    @property
    def obstacle(self) -> str:
        """Why there is nothing to show, and what to do about it."""
        controller = self.controller
        if controller.workspace is None or controller.model is None:
            return controller.obstacle or "The model is loading…"
        if self.seen is None:
            busy = self.query is not None and controller.queue.pending
            return "Looking inside…" if busy else "Click a voxel: what every head attends to from there appears here."
        return ""

    def target_share(self, name: str) -> float | None:
        """The share of a map's attention on the organ that is looked at; None without one on this slice."""
        from napari_medtransformer.inspection.queries import one_map
        from napari_medtransformer.inspection.shares import share_inside

        mask = self.target_mask()
        if mask is None or self.answer is None:
            return None
        return float(share_inside(one_map(self.answer.heatmap, name), mask)[0])

    def target_mask(self) -> np.ndarray | None:
        """(rows, columns) bool: the organ that is looked at on the slice asked about; None where it has no pixel."""
        return self.organ_mask(self.target_organ)

    def mark(self) -> tuple[float, float] | None:
        """Where what asks lies in a thumbnail, (row, column) in [0, 1]."""
        answer, inspection = self.answer, self.inspection
        if answer is None or answer.mark_yx is None:
            return None
        y, x = ((c + 0.5) / n for c, n in zip(answer.mark_yx, inspection.image.shape, strict=True))
        return (1 - y, x) if self._upside_down() else (y, x)

    def organs(self) -> list[Organ]:
        """Every labelled structure on the slice asked about, or on the one on screen."""
        controller = self.controller
        where = self.where or controller.view.shown_slice()
        workspace = controller.workspace
        if where is None or workspace is None:
            return []
        layers = labels_of(controller.viewer, workspace.layer)
        revision = None if controller.session is None else controller.session.revision
        key = (where, revision, self._clicks, tuple((id(layer), layer.name) for layer in layers))
        if self._organs[0] != key:
            self._organs = key, organs_on_slice(controller.viewer, workspace.layer, workspace.masks, *where)
            present = {organ.key: organ for organ in self._organs[1]}  # they may have new names
            self.target_organ = self.target_organ and present.get(self.target_organ.key, self.target_organ)
            self.asking_organ = self.asking_organ and present.get(self.asking_organ.key, self.asking_organ)
        return self._organs[1]

    def prompts_by_object(self) -> dict[int, Prompts]:
        """The prompts of every object on the slice asked about, as the model takes them."""
        from napari_medtransformer.prompting.model_prompts import model_prompts

        controller, inspection = self.controller, self.inspection
        if inspection is None or controller.session is None or self.where is None:
            return {}
        shape, found = inspection.image.shape, {}
        for item in controller.session.objects:
            key = SliceKey(item.object_id, *self.where)
            given = [p for p in controller.session.prompts.values() if p.key == key]
            if given:
                found[item.object_id] = model_prompts((shape[0], shape[1]), given)
        return found

    def object_name(self, object_id: int) -> str:
        """What an object of the session is called."""
        named = {o.object_id: o.name for o in self.controller.session.objects}
        return named.get(object_id) or f"object {object_id}"

    # ------------------------------------------------------------------ choosing

    def set_awake(self, awake: bool) -> None:
        """Whether the dock can be seen; nothing is computed while it cannot."""
        self._awake = awake
        if awake and self.query is not None and (self._seen_for or ())[:3] != self._wish_key():
            self._ask()

    def set_live(self, live: bool) -> None:
        """Whether the voxel under the cursor asks."""
        self.controller.follows_cursor = live
        if live and self.asks != "voxel":
            self.choose_asks("voxel")

    def set_pinned(self, pinned: bool) -> None:
        """Whether the voxel that asks stays, wherever is clicked."""
        self.pinned = pinned
        self.changed.emit()

    def set_shown(self, shown: bool) -> None:
        """Whether the chosen map is drawn in the viewer."""
        self.shown = shown
        if shown:
            self.draw()
        else:
            self._layers.remove()
        self.changed.emit()

    def choose_asks(self, asks: Asks) -> None:
        """Let something else ask: a voxel, a prompt's token, an organ, everything, or a prefix token."""
        self.asks = asks
        if asks == "prompt" and not self.prompts_by_object():
            warn("There is no prompt on this slice: give a point or a box first.")
            self.asks = "voxel"
        if asks == "organ" and self.asking_organ is None:
            organs = self.organs()
            if not organs:
                warn("There is no label on this slice: mark an object, or open a Labels layer of the image's size.")
                self.asks = "voxel"
            self.asking_organ = organs[0] if organs else None
        if self.query is None and self.asks != "voxel":
            self._query_on_screen()
        self._ask()

    def choose_prompt(self, index: int | None) -> None:
        """Let this token of the decoder ask."""
        self.asks, self.prompt_index = "prompt", index
        self._ask()

    def choose_asking_organ(self, organ: Organ | None) -> None:
        """Let this organ ask."""
        self.asking_organ = organ
        self.choose_asks("organ")

    def choose_target(self, organ: Organ | None) -> None:
        """The organ on which shares are told."""
        self.target_organ = organ
        self.changed.emit()
        self.matrix_changed.emit()

    def choose_site(self, site: str, head: str | None = None) -> None:
        """Let another site answer, and show one of its heads."""
        self.site = site
        self.head = self.head if head is None else head
        self._ask()

    def choose_head(self, head: str) -> None:
        """Draw another head, or the mean or maximum of all."""
        if head != self.head:
            self.head = head
            self.draw()
            self.changed.emit()

    def find_head(self) -> None:
        """Choose the encoder's head that looks most at the target organ from what asks."""
        from napari_medtransformer.plugin.head_maps import head_looking_most_at

        mask, seen = self.target_mask(), self.seen
        if mask is None or seen is None:
            return
        self.controller.queue.submit(
            lambda: head_looking_most_at(seen.inspection, seen.answer.query, mask),
            label="",
            key="attention find",
            on_done=lambda found: self.choose_site(*found),
            on_error=report,
        )

    def restyle(self, **changes: Any) -> None:
        """Draw the heatmap in another colour map, opacity, percentile, blending, interpolation or outline."""
        old, self.style = self.style, replace(self.style, **changes)
        if (old.colour_map, old.percentile) != (self.style.colour_map, self.style.percentile):
            self._ask()  # the thumbnails are drawn in the worker
        if {"smooth", "token_grid", "windows", "contour"} & changes.keys():
            self.draw()
        self._layers.restyle(self.style)

    def draw_instead(self, heat: SliceHeat | None) -> None:
        """Draw another map of the same slice in the viewer; None for the chosen head again."""
        if heat is not None or self._override is not None:
            self._override = heat
            self.draw()

    # ------------------------------------------------------------------ asking

    def ask_again(self) -> None:
        """Ask once more, as after prompts or labels have changed."""
        if self.query is not None:
            self._ask()

    def want_matrix(self, wanted: bool) -> None:
        """Whether every site is asked as well, soon after each query."""
        self.wants_matrix = wanted
        if wanted and self.seen is not None:
            self._matrix_timer.start()

    def _on_query(self, point: SlicePoint, hovering: bool) -> None:
        old = self.query
        self._clicks += not hovering
        if hovering and old is not None and point.voxel == old.voxel and point.axis == old.axis:
            return
        if self.pinned and old is not None and self._awake:
            same_slice = old.axis == point.axis and old.voxel[old.axis] == point.voxel[old.axis]
            if same_slice:
                if not hovering:
                    self._ask()  # the click was a prompt, perhaps
                return
        self.query = point
        self._ask()

    def _on_layer(self) -> None:
        self.query = None  # it lay in another volume
        self._forget()

    def _query_on_screen(self) -> None:
        """The middle of the slice on screen, for what asks from no voxel."""
        where, workspace = self.controller.view.shown_slice(), self.controller.workspace
        if where is not None and workspace is not None:
            place = [float((n - 1) // 2) for n in workspace.volume.shape]
            place[where[0]] = float(where[1])
            self.query = SlicePoint((place[0], place[1], place[2]), where[0])

    def _wish_key(self) -> Any:
        session = self.controller.session
        return (id(session), *self.where) if self.where is not None else None

    def _wish(self) -> tuple[Wish, tuple[Any, ...]] | None:
        """What to find for the present query, and the prompts it is about."""
        controller, query = self.controller, self.query
        session = controller.session
        if session is None or query is None:
            return None
        from napari_medtransformer.plugin.head_maps import Wish
        from napari_medtransformer.prompting.model_prompts import model_prompts

        volume, prompts = controller.workspace.volume, controller.prompts_on(query)
        axis, index = query.axis, query.voxel[query.axis]
        rows, columns = (n for a, n in enumerate(volume.shape) if a != axis)
        given = model_prompts((rows, columns), prompts) if prompts else None
        style = self.style
        wish = Wish(
            controller.model, volume, session.window, axis, index, given, query_maker(self),
            self.site, style.colour_map, style.percentile,
        )  # fmt: skip
        return wish, prompts

    def _ask(self) -> None:
        found = self._wish() if self._awake else None
        if found is None:
            return
        from napari_medtransformer.plugin import head_maps

        wish, prompts = found
        key = self._wish_key()
        known = self.seen.inspection if self.seen is not None and self._seen_for is not None else None
        known = known if known is not None and self._seen_for[:3] == key else None
        same_prompts = known is not None and self._seen_for[3] == prompts

        def show(seen: Seen) -> None:
            self.seen, self._seen_for = seen, (*key, prompts)
            self.site = seen.answer.site
            if self.head not in seen.answer.names:
                self.head = seen.answer.names[-1]
            self._follow_organs()
            self.draw()
            self.changed.emit()
            if self.wants_matrix:
                self._matrix_timer.start()

        self.controller.queue.submit(
            lambda: head_maps.look(wish, known, same_prompts), label="", key="attention", on_done=show, on_error=report
        )

    def _ask_all(self) -> None:
        """Ask every site the present query, for the matrix."""
        seen = self.seen
        if seen is None or not self._awake or not self.wants_matrix:
            return
        style, upside_down, target = self.style, self._upside_down(), self._matrix_of
        wanted = (seen.inspection, seen.answer.query, style.colour_map, style.percentile)
        if target is not None and target[0] is wanted[0] and target[1:] == wanted[1:]:
            self.matrix_changed.emit()
            return
        from napari_medtransformer.inspection.matrix import matrix_steps
        from napari_medtransformer.plugin import head_maps
        from napari_medtransformer.progress import run_to_end

        def find() -> tuple[list[Answer], list[list[np.ndarray]]]:
            answers = run_to_end(matrix_steps(seen.inspection, seen.answer.query))
            return answers, head_maps.cells_of(
                seen.inspection, answers, style.colour_map, style.percentile, upside_down
            )

        def show(found: tuple[list[Answer], list[list[np.ndarray]]]) -> None:
            answers, self.cells = found
            self.matrix, self._matrix_of = tuple(answers), wanted
            self.matrix_changed.emit()

        self.controller.queue.submit(find, label="", key="attention matrix", on_done=show, on_error=report)

    def _follow_organs(self) -> None:
        """Keep the choice of organs to what is on this slice; without one, the current object is looked at."""
        organs = {organ.key: organ for organ in self.organs()}
        if self.target_organ is None or self.target_organ.key not in organs:
            workspace = self.controller.workspace
            own = [o for o in organs.values() if o.layer() is workspace.masks and o.value == workspace.current_object]
            self.target_organ = next(iter(own or organs.values()), None)

    def organ_mask(self, organ: Organ | None) -> np.ndarray | None:
        """(rows, columns) bool: an organ on the slice asked about; None where it has no pixel."""
        if organ is None or self.where is None:
            return None
        mask = organ.mask(*self.where)
        return mask if mask.any() else None

    # ------------------------------------------------------------------ drawing

    def draw(self) -> None:
        """Show the chosen map, or what is drawn in its place, in the viewer."""
        answer, workspace = self.answer, self.controller.workspace
        if answer is None or not self.shown or workspace is None or self.where is None:
            return
        heat = self._override
        if heat is None:
            pixels = answer.on_pixels(self.head, smooth=self.style.smooth)
            heat = SliceHeat(pixels, *self.where, grid=answer.heatmap.grid)
        elif (heat.axis, heat.index) != self.where:
            return
        mark = None
        if answer.mark_yx is not None:
            mark = np.insert(np.asarray(answer.mark_yx, dtype=float), *self.where)
        self._layers.show(workspace, heat, mark, self.style)

    def _upside_down(self) -> bool:
        # z runs down the rows of coronal and sagittal slices, and superior belongs up
        return self.where is not None and self.where[0] != 0

    def _forget(self) -> None:
        self.seen = self._seen_for = self._override = None
        self.matrix, self.cells, self._matrix_of = (), [], None
        self.asking_organ = self.target_organ = None
        if self.asks == "organ":
            self.asks = "voxel"
        self._layers.remove()
        self.changed.emit()
        self.matrix_changed.emit()
