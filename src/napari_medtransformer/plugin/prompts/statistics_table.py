"""What every object measures, in a table that can be copied and saved."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QApplication,
    QDialog,
    QFileDialog,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_medtransformer.files import write_text
from napari_medtransformer.plugin.notify import reported
from napari_medtransformer.plugin.widgets.style import row


@dataclass(frozen=True)
class Row:
    """One object's line. mean, std: of the image's values, in `unit`. diameter_mm: its longest."""

    name: str
    class_name: str
    volume_ml: float
    mean: float
    std: float
    diameter_mm: float


def columns(unit: str) -> tuple[str, ...]:
    """The headings. unit: of the image's values, empty if it has none."""
    value = f" ({unit})" if unit else ""
    return ("object", "class", "volume (ml)", f"mean{value}", f"SD{value}", "longest diameter (mm)")


def as_csv(rows: Sequence[Row], unit: str, separator: str = ",") -> str:
    """The table as values separated by commas, or by something else."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(columns(unit))
    for one in rows:
        writer.writerow([one.name, one.class_name, *(f"{number:.6g}" for number in _numbers(one))])
    return text.getvalue()


class StatisticsTable(QDialog):
    """Not modal; `show_rows` fills it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Measurements")
        self._rows: tuple[Row, ...] = ()
        self._unit = ""
        self.table = QTableWidget(0, len(columns("")))
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.verticalHeader().hide()
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.table.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.state = QLabel()
        self.copy = QPushButton("Copy")
        self.copy.clicked.connect(self._copy)
        self.save = QPushButton("Save as CSV…")
        self.save.clicked.connect(self._choose_file)
        layout = QVBoxLayout(self)
        layout.addWidget(self.table)
        layout.addLayout(row(self.state, None, self.copy, self.save))
        self.resize(640, 260)

    def show_rows(self, rows: Sequence[Row], unit: str, state: str = "") -> None:
        """Fill the table. unit: of the image's values. state: a remark, such as that it is being measured."""
        self._rows, self._unit = tuple(rows), unit
        self.state.setText(state)
        self.table.setHorizontalHeaderLabels(columns(unit))
        self.table.setRowCount(len(rows))
        for place, one in enumerate(rows):
            texts = [one.name, one.class_name, *(f"{number:.1f}" for number in _numbers(one))]
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                if column > 1:
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.table.setItem(place, column, item)

    def write(self, path: str | Path) -> None:
        """Save the table as CSV. Raises CannotWrite."""
        write_text(Path(path), as_csv(self._rows, self._unit))

    def _copy(self) -> None:
        QApplication.clipboard().setText(as_csv(self._rows, self._unit, "\t"))

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save measurements", "measurements.csv", "CSV (*.csv)")
        if path:
            with reported():
                self.write(path)


def _numbers(one: Row) -> tuple[float, ...]:
    return one.volume_ml, one.mean, one.std, one.diameter_mm
