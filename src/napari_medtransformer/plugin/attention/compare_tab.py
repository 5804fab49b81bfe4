"""The tab Compare: two maps side by side and their difference; another model; which heads say the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QCheckBox, QWidget

from napari_medtransformer.plugin.attention.heat_layer import SliceHeat
from napari_medtransformer.plugin.attention.pictures import coloured, resampled, signed_picture, thumbnail
from napari_medtransformer.plugin.attention.state import AttentionState
from napari_medtransformer.plugin.attention.words import head_title
from napari_medtransformer.plugin.models.slot import promptable_cards
from napari_medtransformer.plugin.notify import report
from napari_medtransformer.plugin.widgets.choices import Choice
from napari_medtransformer.plugin.widgets.columns import SideBySide
from napari_medtransformer.plugin.widgets.picture_view import PictureView
from napari_medtransformer.plugin.widgets.style import QuietLabel, row, section, tool_button

if TYPE_CHECKING:
    from napari_medtransformer.inspection.compare import Comparison, HeadSimilarity
    from napari_medtransformer.inspection.queries import Answer
    from napari_medtransformer.models.base import PromptableModel

SIDE = 240
LEAST = 84
"""Pixels of the least side of a picture: three of them side by side are to fit into a narrow dock."""


@dataclass(frozen=True, eq=False)
class KeptMap:
    """A map that is compared. pixels: (rows, columns) of its slice, where = (axis, index)."""

    title: str
    pixels: np.ndarray
    where: tuple[int, int]


class CompareTab(SideBySide):
    """Holds the map that was kept; the other one is the present one, or another model's."""

    def __init__(self, state: AttentionState) -> None:
        super().__init__()
        self.state = state
        self.kept: KeptMap | None = None
        self.other: KeptMap | None = None
        self.comparison: Comparison | None = None
        self.similarity: HeadSimilarity | None = None
        self._model: PromptableModel | None = None  # the other one, kept while it is compared with
        self.fill((self._pair_section(), 3), (self._similarity_section(), 2))
        state.controller.layer_changed.connect(self._forget)

    def _pair_section(self) -> QWidget:
        self.as_layer = QCheckBox("difference as a layer")
        self.as_layer.setToolTip("Draw A − B on the anatomy: orange where A is higher, blue where B is")
        self.as_layer.toggled.connect(lambda: self._show_layer())
        frame, layout = section("Two maps", self.as_layer)
        self.keep = tool_button(
            None, "Keep the present map as A; then choose another head, site or query", text="Keep as A"
        )
        self.keep.clicked.connect(self._keep)
        self.models = Choice("Ask another model the same: it is loaded, and its map becomes B")
        self.models.addItem("B: the present map", None)
        for card in promptable_cards():
            self.models.addItem(f"B: {card.title}", card.name)
        self.models.activated.connect(lambda: self._ask_other())
        layout.addLayout(row(self.keep, self.models))
        self.first, self.second = PictureView("A", least=LEAST), PictureView("B", least=LEAST)
        self.difference = PictureView("A − B", least=LEAST)
        layout.addLayout(row(self.first, self.second, self.difference), 1)
        self.numbers = QuietLabel()
        layout.addWidget(self.numbers)
        return frame

    def _similarity_section(self) -> QWidget:
        frame, layout = section("Which heads say the same")
        self.heads = PictureView("", smooth=False)
        self.heads.setToolTip(
            "Correlation of every head's map with every other's, alike ones side by side. Click: A is the row's head, "
            "B the column's"
        )
        self.heads.clicked.connect(self._on_pair)
        layout.addWidget(self.heads, 1)
        self.alike = QuietLabel()
        layout.addWidget(self.alike)
        return frame

    # ------------------------------------------------------------------ choosing

    def _forget(self) -> None:
        """Maps of another volume are of other anatomy, also where their slices have the same number."""
        self.kept = self.other = None
        self.models.setCurrentIndex(0)

    def _keep(self) -> None:
        self.kept = self._present()
        self.refresh()

    def _present(self) -> KeptMap | None:
        answer, state = self.state.answer, self.state
        if answer is None:
            return None
        title = f"{answer.site} · {head_title(state.head, answer.site)} · {answer.asked}"
        return KeptMap(title, answer.on_pixels(state.head, smooth=False), state.where)

    def _ask_other(self) -> None:
        name, inspection, answer = self.models.currentData(), self.state.inspection, self.state.answer
        self.other = None
        if name is None:
            self._model = None
        if name is None or inspection is None or answer is None:
            self.models.setCurrentIndex(0)
            self.refresh()
            return
        from napari_medtransformer.models import load_model
        from napari_medtransformer.plugin.attention.head_maps import other_answer

        where, head, site = self.state.where, self.state.head, answer.site
        known = self._model if self._model is not None and self._model.card.name == name else None

        def find() -> tuple[PromptableModel, Answer]:
            model = known or load_model(name)
            return model, other_answer(model, inspection, answer.query, site)[1]

        def show(seen: tuple[PromptableModel, Answer]) -> None:
            self._model, found = seen
            if self.state.inspection is not inspection:
                return  # another slice was asked about meanwhile
            chosen = head if head in found.names else found.names[-1]
            title = f"{name} · {found.site} · {head_title(chosen, found.site)}"
            self.other = KeptMap(title, found.on_pixels(chosen, smooth=False), where)
            self.kept = self.kept or self._present()
            self.refresh()

        self.state.controller.queue.submit(
            find,
            label=f"Asking {name}…",
            key="attention other model",
            on_done=show,
            on_error=report,
        )

    def _on_pair(self, down: float, across: float) -> None:
        similar = self.similarity
        if similar is None:
            return
        n = len(similar.names)
        (site_a, head_a), (site_b, head_b) = similar.names[int(down * n)], similar.names[int(across * n)]
        answers = {answer.site: answer for answer in self.state.matrix}
        first = answers[site_a]
        title = f"{site_a} · Head {head_a} · {first.asked}"
        self.kept = KeptMap(title, first.on_pixels(str(head_a), smooth=False), self.state.where)
        self.other = None
        self.models.setCurrentIndex(0)
        self.state.choose_site(site_b, str(head_b))

    # ------------------------------------------------------------------ showing

    def refresh(self) -> None:
        """Show both maps and what they have in common."""
        self.keep.setEnabled(self.state.answer is not None)
        if self.other is not None and self.other.where != self.state.where:
            self.other = None
            self.models.setCurrentIndex(0)
        kept, other = self.kept, self.other or self._present()
        if kept is not None and kept.where != self.state.where:
            self.kept = kept = None
        self.comparison = None
        if kept is None or other is None or kept.pixels.shape != other.pixels.shape:
            self.numbers.setText("Keep the present map as A, then choose another head, site, query or model for B.")
            self.first.show_picture(None if kept is None else self._picture(kept), "A")
            self.second.show_picture(None if other is None else self._picture(other), "B")
            self.difference.show_picture(None)
            self._show_layer()
            return
        from napari_medtransformer.inspection.compare import compare_maps

        found = self.comparison = compare_maps(kept.pixels, other.pixels)
        self.first.show_picture(self._picture(kept), f"A: {kept.title}")
        self.second.show_picture(self._picture(other), f"B: {other.title}")
        drawn = signed_picture(*self._on_anatomy(found.difference), upside_down=self.state.upside_down)
        self.difference.show_picture(drawn, "A − B")
        self.numbers.setText(
            f"A: {kept.title}\nB: {other.title}\ncorrelation {found.correlation:.2f} · {found.overlap:.0%} of the "
            "attention in the same places"
        )
        self._show_layer()

    def refresh_matrix(self) -> None:
        """Show how alike the heads of all sites are."""
        self.similarity = None
        if sum(answer.heatmap.heads for answer in self.state.matrix) < 2:
            self.heads.show_picture(None)
            return
        from napari_medtransformer.inspection.compare import head_similarity, most_alike

        similar = self.similarity = head_similarity(self.state.matrix)
        picture = coloured(similar.correlation, "viridis", (-1.0, 1.0))
        self.heads.show_picture(picture, f"{len(similar.names)} heads, correlation −1 (dark) to 1 (bright)")
        (site_a, head_a), (site_b, head_b), r = most_alike(similar)
        self.alike.setText(f"Most alike: {site_a} head {head_a} and {site_b} head {head_b}, r = {r:.2f}")

    def _show_layer(self) -> None:
        heat = None
        if self.as_layer.isChecked() and self.comparison is not None and self.state.where is not None:
            heat = SliceHeat(self.comparison.difference, *self.state.where, signed=True)
        self.state.draw_instead(heat)

    def _picture(self, kept: KeptMap) -> np.ndarray:
        grey, heat = self._on_anatomy(kept.pixels)
        style = self.state.style
        return thumbnail(grey, heat, colour_map=style.colour_map, upside_down=self.state.upside_down)

    def _on_anatomy(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The anatomy and a map of its slice on the pixels of a picture."""
        from napari_medtransformer.plugin.attention.head_maps import grey_picture

        grey = grey_picture(self.state.inspection, SIDE)
        largest = max(float(np.abs(pixels).max()), 1e-12)
        halves = [resampled(np.clip(sign * pixels / largest, 0, 1), grey.shape) for sign in (1, -1)]
        return grey, halves[0] - halves[1]
