"""The tab Export: attention per label as a table, figures, maps, and the whole matrix for those who want it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_medtransformer.plugin.attention.organ_menu import labels_in_volume
from napari_medtransformer.plugin.attention.organs import labels_of, names_of, slice_of
from napari_medtransformer.plugin.attention.pictures import coloured
from napari_medtransformer.plugin.attention.state import AttentionState
from napari_medtransformer.plugin.attention.words import head_title
from napari_medtransformer.plugin.notify import report, tell, warn
from napari_medtransformer.plugin.planes import shown_frame
from napari_medtransformer.plugin.widgets.choices import Choice
from napari_medtransformer.plugin.widgets.columns import SideBySide, stacked
from napari_medtransformer.plugin.widgets.picture_view import PictureView
from napari_medtransformer.plugin.widgets.style import QuietLabel, row, section, tool_button

if TYPE_CHECKING:
    from napari.layers import Labels

CONTROLS_WIDTH = 330
ROLLOUT = "rollout"
# a picture of more pixels than that shows no more
MATRIX_SIDE = 1024


class ExportTab(SideBySide):
    """Shows and writes numbers and pictures of the present answer."""

    def __init__(self, state: AttentionState) -> None:
        super().__init__()
        self.state = state
        self.rows: list[list[str]] = []
        controls = stacked(self._file_section(), self._matrix_section(), last_grows=True)
        self.fill((controls, 0), (self._share_section(), 1), first_width=CONTROLS_WIDTH)

    def _file_section(self) -> QWidget:
        frame, layout = section("Save")
        self.figure = tool_button(None, "All heads of this site on the anatomy: PNG, SVG or PDF", text="Figure…")
        self.figure.clicked.connect(lambda: self._ask_path("Save figure", "*.png *.svg *.pdf", self.save_figure))
        self.maps = tool_button(None, "All heads of this site on the image's own grid, heads last", text="Maps…")
        self.maps.clicked.connect(lambda: self._ask_path("Save maps", "*.nii.gz *.nii *.nrrd *.mha", self.save_maps))
        self.table_button = tool_button(None, "Shares of every head of this site per label", text="Table…")
        self.table_button.clicked.connect(lambda: self._ask_path("Save table", "*.csv", self.save_table))
        layout.addLayout(row(self.figure, self.maps, self.table_button))
        self.what = QuietLabel()
        layout.addWidget(self.what)
        return frame

    def _matrix_section(self) -> QWidget:
        frame, layout = section("The whole matrix")
        self.needs = QuietLabel()
        self.full = tool_button(
            None, "Make all rows of the chosen head and show them: queries down, keys across", text="Show"
        )
        self.full.clicked.connect(self._show_full)
        layout.addWidget(self.needs)
        layout.addLayout(row(self.full))
        self.full_picture = PictureView("", smooth=False, least=60)
        self.full_picture.hide()  # until there is one: its room is the table's
        layout.addWidget(self.full_picture, 1)
        return frame

    def _share_section(self) -> QWidget:
        frame, layout = section("Attention per label")
        self.labels = Choice("The Labels layer whose structures are counted")
        self.labels.activated.connect(lambda: self._show_shares())
        layout.addWidget(self.labels)
        self.table = QTableWidget(0, 4)
        self.table.setHorizontalHeaderLabels(["structure", "attention", "of the slice", "ratio"])
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)  # what is left is the names'
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.table.verticalHeader().hide()
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setMinimumHeight(120)
        self.table.verticalHeader().setDefaultSectionSize(22)
        layout.addWidget(self.table, 1)
        self.total = QuietLabel()
        layout.addWidget(self.total)
        return frame

    # ------------------------------------------------------------------ showing

    def refresh(self) -> None:
        """Show the numbers of the present answer."""
        state, answer = self.state, self.state.answer
        for button in (self.figure, self.maps):
            button.setEnabled(answer is not None)
        layers = labels_of(state.controller.viewer, state.controller.layer)
        if [self.labels.itemText(i) for i in range(self.labels.count())] != [layer.name for layer in layers]:
            self.labels.clear()
            for layer in layers:
                self.labels.addItem(layer.name)
            workspace = state.controller.workspace
            own = None if workspace is None else workspace.masks
            self.labels.setCurrentIndex(next((i for i, layer in enumerate(layers) if layer is not own), 0))
        self.table_button.setEnabled(answer is not None and bool(layers))
        if answer is None:
            self.what.setText("Click a voxel first.")
            self.needs.setText("")
        else:
            self.what.setText(f"{answer.site} · {head_title(state.head, answer.site)} · {answer.asked}")
            self._show_needs()
        self.full_picture.show_picture(None, "")
        self.full_picture.hide()
        self._show_shares()

    def _show_needs(self) -> None:
        from napari_medtransformer.inspection.full import full_matrix_says

        able = self.state.site != ROLLOUT and self.state.head.isdigit()
        self.full.setEnabled(able)
        if not able:
            self.needs.setText("Choose one head of one site.")
            return
        self.needs.setText(full_matrix_says(self.state.inspection.captured(self.state.site)))

    def _labels_layer(self) -> Labels | None:
        layers = labels_of(self.state.controller.viewer, self.state.controller.layer)
        place = self.labels.currentIndex()
        return layers[place] if 0 <= place < len(layers) else None

    def _labels_seen(self, layer: Labels) -> np.ndarray:
        """Labels of the slice that was asked about, (rows, columns), or what a model that sees three axes sees."""
        controller = self.state.controller
        frame = shown_frame(controller.viewer, controller.layer)
        if self.state.answer.solid is not None:
            return labels_in_volume(layer, frame)
        return slice_of(layer, *self.state.where, frame)

    def _show_shares(self) -> None:
        from napari_medtransformer.inspection.queries import one_map
        from napari_medtransformer.inspection.shares import shares_by_label, shares_table

        answer, layer = self.state.answer, self._labels_layer()
        self.rows = []
        if answer is not None and layer is not None:
            labels = self._labels_seen(layer)
            shares = shares_by_label(one_map(answer.whole, self.state.head), labels)
            self.rows = shares_table(shares, names_of(layer), site=answer.site, heads=[self.state.head])[1:]
            sum_of = sum(float(line[4]) for line in self.rows)
            head = head_title(self.state.head, answer.site)
            self.total.setText(
                f"{head} of {answer.site}, asked by {answer.asked}; sum {sum_of:.3f}. Ratio: "
                "how many times the attention that even attention would give."
            )
        else:
            self.total.setText("Open a Labels layer of the image's size, or mark an object, to see its share.")
        self.table.setRowCount(len(self.rows))
        for place, (_, _, _, name, share, extent, ratio) in enumerate(self.rows):
            cells = (name, f"{float(share):.1%}", f"{float(extent):.1%}" if extent else "", ratio)
            for column, text in enumerate(cells):
                item = QTableWidgetItem(text)
                if column:
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.table.setItem(place, column, item)

    def _show_full(self) -> None:
        from napari_medtransformer.inspection.full import full_matrix, picture_of_matrix

        captured, head = self.state.inspection.captured(self.state.site), int(self.state.head)
        answer = self.state.answer

        def show(matrix: np.ndarray) -> None:
            if self.state.answer is answer:
                colours = coloured(matrix, "inferno", (0.0, float(np.max(matrix))))
                self.full_picture.show_picture(colours, "queries down, keys across")
                self.full_picture.show()

        self.state.controller.queue.submit(
            lambda: picture_of_matrix(full_matrix(captured, head), MATRIX_SIDE),
            label="Making the whole matrix…",
            key="attention full",
            on_done=show,
            on_error=report,
        )

    # ------------------------------------------------------------------ writing

    def save_figure(self, path: str | Path) -> None:
        """Write all heads of the present answer as a figure."""
        from napari_medtransformer.inspection.export import answer_figure
        from napari_medtransformer.inspection.figure import write_figure

        inspection, answer, smooth = self.state.inspection, self.state.answer, self.state.style.smooth
        self._submit(lambda: write_figure(answer_figure(inspection, answer, smooth=smooth), path))

    def save_maps(self, path: str | Path) -> None:
        """Write all heads of the present answer on the image's own grid."""
        from napari_medtransformer.inspection.export import answer_volume
        from napari_medtransformer.volumes import write_heatmap

        inspection, answer = self.state.inspection, self.state.answer
        self._submit(lambda: write_heatmap(answer_volume(inspection, answer), inspection.volume, path))

    def save_table(self, path: str | Path) -> None:
        """Write the shares of every head of the present answer per label."""
        from napari_medtransformer.inspection.export import answer_shares, write_table

        layer, inspection, answer = self._labels_layer(), self.state.inspection, self.state.answer
        if layer is None:
            warn("Open a Labels layer of the image's size first: its structures are what is counted.")
            return
        labels, names = np.array(self._labels_seen(layer)), names_of(layer)
        self._submit(lambda: write_table(answer_shares(inspection, answer, labels, names), path))

    def _submit(self, write: Any) -> None:
        self.state.controller.queue.submit(
            write, label="Saving…", on_done=lambda written: tell(f"Saved {written}."), on_error=report
        )

    def _ask_path(self, title: str, patterns: str, save: Any) -> None:
        path, _ = QFileDialog.getSaveFileName(self, title, "", f"{title} ({patterns})")
        if path:
            save(path)
