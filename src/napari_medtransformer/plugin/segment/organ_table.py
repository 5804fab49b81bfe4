"""Tables of structures: what was found, and how well it agrees with a reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeWidget, QTreeWidgetItem

from napari_medtransformer.plugin.widgets.icons import swatch
from napari_medtransformer.volumes.label_table import hex_color
from napari_medtransformer.volumes.places import LabelPlace
from napari_medtransformer.volumes.statistics import LabelStatistics

if TYPE_CHECKING:
    from napari_medtransformer.segmentation.evaluation import Agreement

_NUMBER = Qt.ItemDataRole.UserRole
_MOST_ROWS = 9


@dataclass(frozen=True)
class Organ:
    """One structure that was found: its size and values, and where it lies."""

    statistics: LabelStatistics
    place: LabelPlace


class StructureTable(QTreeWidget):
    """Structures by name with numbers beside them. jumped: a label's number, on a double click."""

    jumped = Signal(int)
    chosen = Signal()

    def __init__(self, headings: Sequence[str], tip: str) -> None:
        super().__init__()
        self.setColumnCount(len(headings))
        self.setHeaderLabels(list(headings))
        self.setRootIsDecorated(False)
        self.setIndentation(0)
        self.setUniformRowHeights(True)
        self.setIconSize(QSize(12, 12))
        self.setAllColumnsShowFocus(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setToolTip(tip)
        header = self.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(20)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in range(1, len(headings)):
            self.headerItem().setTextAlignment(column, Qt.AlignmentFlag.AlignRight)
        self.itemDoubleClicked.connect(lambda item, _: self.jumped.emit(item.data(0, _NUMBER)))
        self.itemSelectionChanged.connect(self.chosen)
        self._fit()

    @property
    def numbers(self) -> list[int]:
        """The labels that are selected, in their order."""
        items = [self.topLevelItem(i) for i in range(self.topLevelItemCount())]
        return [item.data(0, _NUMBER) for item in items if item.isSelected()]

    def add_row(self, number: int, name: str, colour: str, texts: Sequence[str], tip: str = "") -> None:
        """One structure. texts: of the other columns."""
        item = QTreeWidgetItem([name, *texts])
        item.setData(0, _NUMBER, number)
        item.setIcon(0, swatch(colour, 12))
        item.setToolTip(0, tip or name)
        for column in range(1, self.columnCount()):
            item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            item.setToolTip(column, tip)
        self.addTopLevelItem(item)
        self._fit()

    def clear(self) -> None:
        """No structures."""
        super().clear()
        self._fit()

    def _fit(self) -> None:
        """As high as its rows, up to a number of them."""
        shown = min(max(self.topLevelItemCount(), 1), _MOST_ROWS)
        height = self.sizeHintForRow(0) if self.topLevelItemCount() else self.fontMetrics().height() + 6
        self.setFixedHeight(self.header().sizeHint().height() + shown * max(height, 18) + 6)


def show_organs(table: StructureTable, organs: Sequence[Organ], spacing: Sequence[float], unit: str) -> None:
    """Fill a table of name, millilitres, mean value, extent in mm. unit: of the image's values, such as HU."""
    table.clear()
    for one in organs:
        found, place = one.statistics, one.place
        extent = "×".join(f"{n * mm:.0f}" for n, mm in zip(place.extent, spacing, strict=True))
        box = ", ".join(f"{axis} {a}–{b - 1}" for axis, a, b in zip("zyx", place.start, place.stop, strict=True))
        tip = (
            f"{found.label.name}\n{found.voxels} voxels, {found.volume_ml:.3g} ml\n"
            f"values {found.mean:.4g} ± {found.std:.3g} {unit} ({found.low:.4g} to {found.high:.4g})\n"
            f"box {box}\nDouble-click to go there."
        )
        texts = [millilitres(found.volume_ml), short(found.mean), extent]
        table.add_row(found.label.number, found.label.name, hex_color(found.label.color), texts, tip)


def show_agreement(table: StructureTable, found: Sequence[Agreement], tolerance_mm: float) -> None:
    """Fill a table of name, Dice, HD95, surface Dice within a tolerance."""
    table.clear()
    for one in found:
        distance = f"{one.hd95_mm:.1f}" if math.isfinite(one.hd95_mm) else "–"
        tip = (
            f"{one.label.name}\nDice {one.dice:.4f}\n95% of the surfaces lie within {distance} mm\n"
            f"{one.surface_dice:.1%} of the surfaces lie within {tolerance_mm:g} mm"
        )
        if not math.isfinite(one.hd95_mm):
            tip += "\nOnly one of the two has this structure."
        texts = [f"{one.dice:.3f}", distance, f"{one.surface_dice:.3f}"]
        table.add_row(one.label.number, one.label.name, hex_color(one.label.color), texts, tip)


def millilitres(size: float) -> str:
    """A volume with the digits that matter."""
    return f"{size:.0f}" if size >= 100 else f"{size:.1f}" if size >= 10 else f"{size:.2f}"


def short(value: float) -> str:
    """A mean value: a decimal where it tells something."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.3g}"
