"""The tab Heads that matter: switch heads off and see the masks change; rank them all for an object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QHideEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_medtransformer.plugin.attention.change_layer import ChangeLayer
from napari_medtransformer.plugin.attention.drawing import heat_of_map
from napari_medtransformer.plugin.attention.head_matrix_view import HeadMatrixView, ScrolledMatrix
from napari_medtransformer.plugin.attention.head_switches import HeadSwitches
from napari_medtransformer.plugin.attention.matrix_content import effects_content
from napari_medtransformer.plugin.attention.state import AttentionState
from napari_medtransformer.plugin.attention.subject import object_name
from napari_medtransformer.plugin.widgets.columns import SideBySide, stacked
from napari_medtransformer.plugin.widgets.steady import CalmBar
from napari_medtransformer.plugin.widgets.style import QuietLabel, row, section, tool_button

if TYPE_CHECKING:
    from napari_medtransformer.attention.heatmap import Heatmap

CONTROLS_WIDTH = 320


class CauseTab(SideBySide):
    """A face of HeadSwitches; owns the layer that shows the changed masks."""

    def __init__(self, state: AttentionState) -> None:
        super().__init__()
        self.state, self.switches = state, HeadSwitches(state)
        self._layer = ChangeLayer(state.controller.viewer)
        self._shown_outcome: object = None
        controls = stacked(self._switch_section(), self._rank_section(), last_grows=True)
        self.fill((controls, 0), (self._matrix_section(), 1), first_width=CONTROLS_WIDTH)
        self.switches.changed.connect(self.refresh)
        self.switches.progressed.connect(self.progress.tell)

    def _switch_section(self) -> QWidget:
        self.all_on = tool_button(None, "Switch every head on again", text="All on")
        self.all_on.setFixedHeight(20)
        self.all_on.setMaximumWidth(70)
        self.all_on.clicked.connect(self.switches.all_on)
        frame, layout = section("Masks without", self.all_on)
        self.outcome = QuietLabel()
        layout.addWidget(self.outcome)
        return frame

    def _rank_section(self) -> QWidget:
        frame, layout = section("Which heads matter")
        self.rank = tool_button(None, "Switch off one head after another and compare the masks", text="Rank the heads")
        self.rank.clicked.connect(self.switches.rank)
        self.cancel = tool_button(None, "Stop; what is known stays", text="Cancel")
        self.cancel.clicked.connect(self.switches.cancel)
        self.relevance = tool_button(
            None,
            "A second opinion as a layer: attention weighted by the gradient of the object's mask (Chefer et al. 2021)",
            text="Gradients",
            checkable=True,
        )
        self.relevance.clicked.connect(self._on_relevance)
        layout.addLayout(row(self.rank, self.cancel, self.relevance))
        self.progress = CalmBar()
        self.progress.setFixedHeight(14)
        layout.addWidget(self.progress)
        self.table = QTableWidget(0, 4)
        self.table.setHorizontalHeaderLabels(["site", "head", "Dice", "score"])
        self.table.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column, width in ((1, 42), (2, 58), (3, 46)):
            self.table.setColumnWidth(column, width)
        self.table.verticalHeader().hide()
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setMinimumHeight(84)
        self.table.verticalHeader().setDefaultSectionSize(20)
        self.table.setWordWrap(False)
        self.table.setToolTip(
            "Dice of the mask without the head with the whole model's, and the model's own score without it: its "
            "expected IoU or, of an automatic model, the label's mean probability. Heads "
            "whose absence changes the mask most come first; click one to look at it"
        )
        self.table.itemClicked.connect(self._on_row)
        layout.addWidget(self.table, 1)
        return frame

    def _matrix_section(self) -> QWidget:
        frame, layout = section("Heads")
        layout.addWidget(QuietLabel("Click a head to switch it off, a site's name for all of its heads."))
        self.matrix = HeadMatrixView()
        self.matrix.chosen.connect(self.switches.toggle)
        self.matrix.row_chosen.connect(self.switches.toggle_site)
        layout.addWidget(ScrolledMatrix(self.matrix), 1)
        return frame

    # ------------------------------------------------------------------ showing

    def refresh(self) -> None:
        """Show what is off, what it does, and what is known of the others."""
        switches, state = self.switches, self.state
        self.matrix.show_content(effects_content(switches.heads(), switches.effects), None, switches.off)
        self.outcome.setText(self._outcome_text())
        self.all_on.setEnabled(bool(switches.off or switches.outcome))
        self.rank.setEnabled(not switches.running and state.inspection is not None)
        self.cancel.setEnabled(switches.running)
        self.relevance.setEnabled(state.inspection is not None)
        self._show_table()
        self._show_change()
        self._show_heat()

    def _outcome_text(self) -> str:
        switches = self.switches
        if self.state.inspection is None:
            return "Click an object first: its slice, or of an automatic model its windows, are looked at."
        if not switches.outcome:
            return "All heads are on." if not switches.off else "Predicting…"
        what = switches.altered or f"{len(switches.off)} head{'s' * (len(switches.off) != 1)} off"
        lines = [
            f"{object_name(self.state, number)}: Dice {effect.dice:.3f} with the whole model's mask, "
            f"{int(effect.whole.sum())} → {int(effect.changed.sum())} pixels of this slice"
            for number, effect in switches.outcome.items()
        ]
        return "\n".join([f"{what} · orange: lost, blue: gained", *lines])

    def _show_table(self) -> None:
        effects = sorted(self.switches.effects, key=lambda effect: effect.dice)
        self.table.setRowCount(len(effects))
        for place, effect in enumerate(effects):
            for column, text in enumerate((effect.site, str(effect.head), f"{effect.dice:.4f}", f"{effect.score:.2f}")):
                item = QTableWidgetItem(text)
                if column:
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.table.setItem(place, column, item)

    def _show_change(self) -> None:
        outcome, state = self.switches.outcome, self.state
        if outcome is self._shown_outcome:
            return
        self._shown_outcome = outcome
        if not outcome or state.controller.workspace is None or state.where is None:
            self._layer.remove(later=not state.controller.workspace)
            return
        from napari_medtransformer.inspection.ablation import change_labels

        self._layer.show(state.controller.workspace, change_labels(list(outcome.values())), *state.where)

    def _on_row(self, item: QTableWidgetItem) -> None:
        site, head = (self.table.item(item.row(), column).text() for column in (0, 1))
        if any(entry.name == site for entry in self.state.sites):
            self.state.choose_site(site, head)

    def _show_heat(self) -> None:
        """The changed masks alone, unless gradients were asked for: two pictures on top of one another say nothing."""
        covered = bool(self.switches.outcome) and self.isVisible() and not self.relevance.isChecked()
        self.state.layers.set_visible(not covered)

    def hideEvent(self, event: QHideEvent) -> None:
        """The map of the other tabs comes back."""
        self.state.layers.set_visible(True)
        super().hideEvent(event)

    def _on_relevance(self) -> None:
        if not self.relevance.isChecked():
            self.state.draw_instead(None)
            return
        where = self.state.where

        def show(found: Heatmap) -> None:
            if self.relevance.isChecked() and where == self.state.where:
                self.state.draw_instead(heat_of_map(found, where))

        self.switches.find_relevance(show)
