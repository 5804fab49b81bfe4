"""All heads of a site as thumbnails that can be chosen, in as many columns as fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from qtpy.QtCore import QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QImage, QPainter, QPen, QPixmap, QResizeEvent
from qtpy.QtWidgets import QAbstractItemView, QListView, QListWidget, QListWidgetItem

from napari_medtransformer.plugin.widgets.icons import theme_colour
from napari_medtransformer.plugin.widgets.style import QUERY
from napari_medtransformer.plugin.widgets.theming import dress

PICTURE = 208
"""Pixels of the longer side at which a thumbnail is shown at most."""
SMALLEST = 80
"""Pixels below which a thumbnail says nothing; then the grid scrolls."""
_MARGIN, _CAPTION = 6, 22
_KEY = Qt.ItemDataRole.UserRole


@dataclass(frozen=True)
class Tile:
    """One thumbnail. key: what choosing it means. picture: (rows, columns, 3) uint8. mark: (row, column) in [0, 1]."""

    key: str
    title: str
    tooltip: str
    picture: np.ndarray
    mark: tuple[float, float] | None


class HeadGrid(QListWidget):
    """Thumbnails in a grid that reflows; arrows and clicks choose one."""

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setMovement(QListView.Movement.Static)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self._tallest = self._widest = PICTURE
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumHeight(SMALLEST + 2 * _CAPTION)
        dress(self, _style)
        self.currentItemChanged.connect(self._on_current)

    def show_tiles(self, tiles: Sequence[Tile], chosen: str) -> None:
        """Show these, keeping scroll position and choice; nothing is emitted."""
        self.blockSignals(True)
        if self.count() != len(tiles):
            self.clear()
            for _ in tiles:
                self.addItem(QListWidgetItem())
        self._tallest = max((tile.picture.shape[0] for tile in tiles), default=PICTURE)
        self._widest = max((tile.picture.shape[1] for tile in tiles), default=PICTURE)
        self._fit()
        for place, tile in enumerate(tiles):
            item = self.item(place)
            item.setData(_KEY, tile.key)
            item.setText(tile.title)
            item.setToolTip(tile.tooltip)
            item.setIcon(_icon(tile))
            if tile.key == chosen:
                self.setCurrentItem(item)
        self.blockSignals(False)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Make the thumbnails as large as lets all of them be seen."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        width, height = self.viewport().width() - 4, self.viewport().height() - 4
        side = next((s for s in range(PICTURE, SMALLEST, -4) if self._all_fit(s, width, height)), SMALLEST)
        icon, grid = self._sizes(side)
        self.setIconSize(icon)
        self.setGridSize(grid)
        for place in range(self.count()):
            self.item(place).setSizeHint(grid)

    def _all_fit(self, side: int, width: int, height: int) -> bool:
        _, grid = self._sizes(side)
        columns = width // grid.width()
        return columns > 0 and -(-self.count() // columns) * grid.height() <= height

    def _sizes(self, side: int) -> tuple[QSize, QSize]:
        scale = side / max(self._tallest, self._widest)
        icon = QSize(round(scale * self._widest), round(scale * self._tallest))
        return icon, QSize(icon.width() + _MARGIN, icon.height() + _CAPTION)

    def _on_current(self, item: QListWidgetItem | None) -> None:
        if item is not None and item.data(_KEY) is not None:
            self.chosen.emit(item.data(_KEY))


def _icon(tile: Tile) -> QIcon:
    rows, columns, _ = tile.picture.shape
    image = QImage(tile.picture.data, columns, rows, 3 * columns, QImage.Format.Format_RGB888)
    pixmap = QPixmap.fromImage(image.copy())
    if tile.mark is not None:
        painter = QPainter(pixmap)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        y, x = tile.mark[0] * rows, tile.mark[1] * columns
        for colour, width in (("#000000", 5.0), (QUERY, 2.4)):
            painter.setPen(QPen(QColor(colour), width))
            painter.drawEllipse(QRectF(x - 7, y - 7, 14, 14))
        painter.end()
    result = QIcon()
    for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):  # else Qt tints the chosen one
        result.addPixmap(pixmap, mode)
    return result


def _style() -> str:
    return (
        f"QListWidget {{ background: {theme_colour('background')}; border-radius: 4px; font-size: 10px; }}"
        "QListWidget::item { border-radius: 4px; padding: 2px; }"
        f"QListWidget::item:selected {{ background: {theme_colour('current')}; }}"
        f"QListWidget::item:hover:!selected {{ background: {theme_colour('primary')}; }}"
    )
