"""What the Attention dock shows: what asks, the site and head that answer, and how it is drawn."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_medtransformer.openmp import without_team
from napari_medtransformer.plugin.attention.drawing import HeatDrawing
from napari_medtransformer.plugin.attention.heat_layer import HeatLayers, HeatStyle, SliceHeat
from napari_medtransformer.plugin.attention.matrix import MatrixOfHeads
from napari_medtransformer.plugin.attention.model import InspectedModel
from napari_medtransformer.plugin.attention.organ_menu import OrgansInView
from napari_medtransformer.plugin.attention.organs import Organ
from napari_medtransformer.plugin.attention.pace import CursorPace
from napari_medtransformer.plugin.attention.subject import asked_by_object
from napari_medtransformer.plugin.attention.wishes import submit, wish_of
from napari_medtransformer.plugin.attention.words import obstacle_of
from napari_medtransformer.plugin.layer_volume import SlicePoint
from napari_medtransformer.plugin.notify import report, reported, warn

if TYPE_CHECKING:
    from napari_medtransformer.inspection.queries import Answer, Inspection
    from napari_medtransformer.plugin.attention.head_maps import Seen, SiteEntry
    from napari_medtransformer.plugin.controller import SessionController

MEAN, MAXIMUM, ROLLOUT = "mean", "maximum", "rollout"
Asks = Literal["voxel", "prompt", "organ", "everything", "prefix"]


class AttentionState(QObject):
    """Asks the worker what heads attend to and keeps the newest answer. Belongs to a controller, held weakly.

    A slice is encoded under the probe once and kept until another slice, model or prompt is asked about; of an
    automatic model, the windows that hold the voxel that asks.
    """

    changed = Signal()  # a new answer, or something else that is shown beside it
    matrix_changed = Signal()

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = weakref.ref(controller)
        self.site = ""
        self.head = MEAN
        self.asks: Asks = "voxel"
        self.pinned = False
        self.prompt_index: int | None = None  # None: the newest point
        self.query: SlicePoint | None = None
        self.seen: Seen | None = None
        self.awake = False
        self._organs = OrgansInView(controller)
        self._drawing = HeatDrawing(controller)
        self._matrix = MatrixOfHeads(self)
        self._matrix.changed.connect(self.matrix_changed)
        self._pace = CursorPace(self)
        self._pace.pictured.connect(self.changed)
        self.inspected = InspectedModel(controller)
        self.inspected.changed.connect(self._on_inspected)
        controller.queried.connect(self._on_query)
        controller.layer_changed.connect(self._on_layer)
        controller.models.changed.connect(self._on_models)
        controller.model_window.changed.connect(self.ask_again)

    # ------------------------------------------------------------------ what there is

    @property
    def controller(self) -> SessionController:
        """The controller that this belongs to."""
        return self._controller()

    @property
    def layers(self) -> HeatLayers:
        """The heatmap, its outlines and the query mark in the viewer."""
        return self._drawing.layers

    @property
    def style(self) -> HeatStyle:
        """How the heatmap is drawn."""
        return self._drawing.style

    @property
    def shown(self) -> bool:
        """Whether the chosen map is drawn in the viewer."""
        return self._drawing.shown

    @property
    def matrix(self) -> tuple[Answer, ...]:
        """What every site answered, as far as it was asked."""
        return self._matrix.answers

    @property
    def cells(self) -> list[list[np.ndarray]]:
        """A small picture of every head of the matrix."""
        return self._matrix.cells

    @property
    def target_organ(self) -> Organ | None:
        """The organ on which shares are told."""
        return self._organs.target

    @property
    def asking_organ(self) -> Organ | None:
        """The organ that asks."""
        return self._organs.asking

    @property
    def answer(self) -> Answer | None:
        """The newest answer."""
        return None if self.seen is None else self.seen.answer

    @property
    def inspection(self) -> Inspection | None:
        """The slice, or the windows of a volume, that were asked about."""
        return None if self.seen is None else self.seen.inspection

    @property
    def sites(self) -> tuple[SiteEntry, ...]:
        """Those that can answer."""
        return () if self.seen is None else self.seen.sites

    @property
    def looked_at(self) -> tuple[Any, ...]:
        """What slices look like to the model: the volume of an automatic one, or a session's through its window."""
        model, session = self.inspected.model, self.controller.session
        if model is not None:
            return (id(model),)
        return id(session), None if session is None else session.window

    @property
    def where(self) -> tuple[int, int] | None:
        """(axis, index) of the slice that is asked about."""
        return None if self.query is None else (self.query.axis, self.query.voxel[self.query.axis])

    @property
    def obstacle(self) -> str:
        """Why there is nothing to show, and what to do about it."""
        return obstacle_of(self)

    def target_mask(self) -> np.ndarray | None:
        """Where the organ that is looked at lies, as `organ_mask`; None while the newest answer is of another slice."""
        if self.seen is not None and not self.is_about_this_slice(self.seen):
            return None
        return self.organ_mask(self.target_organ)

    def organs(self) -> list[Organ]:
        """Every labelled structure on the slice asked about, or on the one on screen."""
        return self._organs.on_slice(self.where)

    def organ_mask(self, organ: Organ | None) -> np.ndarray | None:
        """bool: an organ on the slice, (rows, columns), or where the model sees three axes (z, y, x); None: nowhere."""
        solid = self.answer.solid is not None if self.answer is not None else self.inspected.is_solid
        return self._organs.mask(organ, self.where, solid=solid)

    # ------------------------------------------------------------------ choosing

    def set_awake(self, awake: bool) -> None:
        """Whether the dock can be seen; nothing is computed while it cannot."""
        self.awake = awake
        if awake:
            self.inspected.look_again()
        if awake and self.query is not None and not self.is_about_this_slice(self.seen):
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
        self._drawing.shown = shown
        if shown:
            self.draw()
        else:
            self.layers.remove()
        self.changed.emit()

    def choose_asks(self, asks: Asks) -> None:
        """Let something else ask: a voxel, a prompt's token, an organ, everything, or a prefix token."""
        self.asks = asks
        if asks == "prompt" and not asked_by_object(self):
            warn("There is no prompt on this slice: give a point or a box first.")
            self.asks = "voxel"
        if asks == "organ" and self.asking_organ is None:
            organs = self.organs()
            if not organs:
                warn("There is no label on this slice: mark an object, or open a Labels layer of the image's size.")
                self.asks = "voxel"
            self._organs.asking = organs[0] if organs else None
        if self.query is None and self.asks != "voxel":
            self._query_on_screen()
        self._ask()

    def choose_prompt(self, index: int | None) -> None:
        """Let this token of the decoder ask."""
        self.asks, self.prompt_index = "prompt", index
        self._ask()

    def choose_asking_organ(self, organ: Organ | None) -> None:
        """Let this organ ask."""
        self._organs.asking = organ
        self.choose_asks("organ")

    def choose_target(self, organ: Organ | None) -> None:
        """The organ on which shares are told."""
        self._organs.target = organ
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
        from napari_medtransformer.plugin.attention.head_maps import head_looking_most_at

        mask, seen = self.target_mask(), self.seen
        if mask is None or seen is None:
            return
        self.controller.queue.submit(
            lambda: head_looking_most_at(seen.inspection, seen.answer.query, mask),
            label="",
            key="attention find",
            on_done=lambda found: self.inspection is seen.inspection and self.choose_site(*found),
            on_error=report,
        )

    def restyle(self, **changes: Any) -> None:
        """Draw the heatmap in another colour map, opacity, percentile, blending, interpolation or outline."""
        pictures, drawn = self._drawing.restyle(**changes)
        if pictures:
            self._ask()  # the thumbnails are drawn in the worker
        if drawn:
            self.draw()
        self.layers.restyle(self.style)

    def draw_instead(self, heat: SliceHeat | None) -> None:
        """Draw another map of the same slice in the viewer; None for the chosen head again."""
        if self._drawing.put_instead(heat):
            self.draw()

    # ------------------------------------------------------------------ asking

    def ask_again(self) -> None:
        """Ask once more, as after prompts or labels have changed."""
        if self.query is not None:
            self._ask()

    def want_matrix(self, wanted: bool) -> None:
        """Whether every site is asked as well, soon after each query."""
        self._matrix.want(wanted)

    def _on_query(self, point: SlicePoint, hovering: bool) -> None:
        old = self.query
        self._organs.clicks += not hovering
        if hovering and old is not None and point.voxel == old.voxel and point.axis == old.axis:
            return
        if self.pinned and old is not None and self.awake:
            same_slice = old.axis == point.axis and old.voxel[old.axis] == point.voxel[old.axis]
            if same_slice:
                if not hovering:
                    self._ask()  # the click was a prompt, perhaps
                return
        self.query = point
        if hovering:
            self._pace.move()
        else:
            self._ask()

    @property
    def is_quick(self) -> bool:
        """Whether the slice, site and prompts of the present query are known, so that its answer is a row or two."""
        seen = self.seen
        return seen is not None and seen.answer.site == self.site and self.is_about_this_slice(seen)

    def ask_under_cursor(self, on_end: Callable[[], None]) -> bool:
        """Ask for the present query, thumbnails later if there are some to be seen; whether anything was asked."""
        return self._ask(on_end, pictured=not self.is_quick)

    def answer_under_cursor(self) -> None:
        """The same at once, in the window's thread: where that takes less than the way to the worker and back."""
        from napari_medtransformer.plugin.attention import head_maps

        wish = wish_of(self, pictured=False) if self.awake else None
        if isinstance(wish, head_maps.SliceWish):
            with reported():
                with without_team():
                    seen = head_maps.look(wish)
                self._show(seen)

    def _on_inspected(self) -> None:
        """Another model is looked into; what was asked is asked again."""
        self._forget()
        if self.inspected.is_automatic and self.asks in ("prompt", "organ"):
            self.asks = "voxel"
        self.ask_again()

    def _on_models(self) -> None:
        if not self.inspected.is_automatic:
            self._forget()

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

    def is_about_this_slice(self, seen: Seen | None) -> bool:
        """Whether something was found for the slice, the model or session, and the window that is asked about now."""
        if seen is None or self.where is None:
            return False
        return bool(seen.about[:3] == (self.looked_at, *self.where))

    def _ask(self, on_end: Callable[[], None] | None = None, *, pictured: bool = True) -> bool:
        """Ask for the present query; whether anything was asked."""
        wish = wish_of(self, pictured=pictured) if self.awake else None
        if wish is not None:
            submit(self, wish, self._show, on_end)
        return wish is not None

    def _show(self, seen: Seen) -> None:
        """Take over what was found, unless another slice, volume or model was chosen meanwhile."""
        model = self.inspected.model if self.inspected.is_automatic else self.controller.model
        if not self.is_about_this_slice(seen) or seen.inspection.model is not model:
            return
        self._pace.answered(seen)
        if not seen.is_pictured and self.seen is not None:
            seen = replace(seen, pictures=self.seen.pictures)
        self.seen = seen
        self.site = seen.answer.site
        if self.head not in seen.answer.names:
            self.head = seen.answer.names[-1]
        self._organs.follow(self.where)
        self.draw(moving=not seen.is_pictured)
        self._matrix.follow()
        if seen.is_pictured:
            self.changed.emit()
        else:
            self._pace.picture()

    # ------------------------------------------------------------------ drawing

    def draw(self, *, moving: bool = False) -> None:
        """Show the chosen map, or what is drawn in its place, in the viewer. moving: the cursor asks and moves on."""
        self._drawing.draw(self.answer, self.head, self.where, moving=moving)

    @property
    def upside_down(self) -> bool:
        """Whether thumbnails are turned: z runs down the rows of coronal and sagittal slices; superior belongs up."""
        return self.where is not None and self.where[0] != 0

    def _forget(self) -> None:
        self.seen = None
        self._organs.forget()
        if self.asks == "organ":
            self.asks = "voxel"
        self._drawing.forget()
        self.changed.emit()
        self._matrix.forget()
