"""Depth × heads as small multiples: a picture per head, framed in the colour of a number; a click chooses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from qtpy.QtCore import QPoint, QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QScrollArea, QSizePolicy, QToolTip, QWidget

from napari_medtransformer.plugin.widgets.icons import theme_colour
from napari_medtransformer.plugin.widgets.style import quiet_colour

LABEL_WIDTH, HEADER_HEIGHT, LEGEND_HEIGHT = 112, 16, 26
SMALLEST_CELL, LARGEST_CELL = 34, 120
NUMBER_HEIGHT = 13
FRAME = 3
OFF_COLOUR = "#ff5f5f"

Head = tuple[str, int]


@dataclass(frozen=True, eq=False)
class MatrixContent:
    """What is shown. sites: one per row. cells: per row, a picture (rows, columns, 3) uint8 per head; may be empty.

    colours: (sites, heads, 3) uint8 of the numbers. texts: the same as text, empty for none. legend: (n, 3) uint8 from
    the least to the largest number, whose texts are `limits`; unit: of the numbers.
    """

    sites: tuple[str, ...] = ()
    cells: Sequence[Sequence[np.ndarray]] = ()
    colours: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8))
    texts: Sequence[Sequence[str]] = ()
    legend: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.uint8))
    limits: tuple[str, str] = ("", "")
    unit: str = ""


class HeadMatrixView(QWidget):
    """The matrix itself. chosen: (site, head) of a click. row_chosen: a click on a site's name."""

    chosen = Signal(str, int)
    row_chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.content = MatrixContent()
        self.selected: Head | None = None
        self.off: frozenset[Head] = frozenset()
        self._images: list[list[QImage]] = []

    def show_content(self, content: MatrixContent, selected: Head | None, off: Collection[Head] = ()) -> None:
        """Show these numbers and pictures. off: heads that are crossed out."""
        self.content, self.selected, self.off = content, selected, frozenset(off)
        self._images = [[_image(cell) for cell in row] for row in content.cells]
        self.setMinimumHeight(self.heightForWidth(self.width()))
        self.updateGeometry()
        self.update()

    @property
    def columns(self) -> int:
        """The most heads of a site."""
        return max((len(row) for row in self.content.texts), default=0)

    def cell_width(self, width: int) -> int:
        """Pixels of a cell where the widget is so wide."""
        return max(SMALLEST_CELL, min(LARGEST_CELL, (width - LABEL_WIDTH - 4) // max(self.columns, 1)))

    def cell_height(self, width: int) -> int:
        """Pixels of a cell, its number included."""
        cell = self.cell_width(width)
        pictures = [picture for row in self.content.cells for picture in row[:1]]
        aspect = max((p.shape[0] / p.shape[1] for p in pictures), default=0.0)
        return (
            round((cell - 2 * FRAME) * aspect) + 2 * FRAME + NUMBER_HEIGHT if aspect else NUMBER_HEIGHT + 2 * FRAME + 4
        )

    def cell_rect(self, row: int, column: int) -> QRect:
        """Where a cell is drawn."""
        width, height = self.cell_width(self.width()), self.cell_height(self.width())
        return QRect(LABEL_WIDTH + column * width, HEADER_HEIGHT + row * height, width - 2, height - 2)

    def heightForWidth(self, width: int) -> int:
        """As high as all rows and the legend take."""
        return HEADER_HEIGHT + len(self.content.sites) * self.cell_height(width) + LEGEND_HEIGHT

    def hasHeightForWidth(self) -> bool:
        """Yes: cells keep the anatomy's proportions."""
        return True

    def sizeHint(self) -> QSize:
        """Cells of a comfortable size."""
        width = LABEL_WIDTH + self.columns * 64
        return QSize(width, self.heightForWidth(width))

    def minimumSizeHint(self) -> QSize:
        """Cells of the smallest size."""
        width = LABEL_WIDTH + self.columns * SMALLEST_CELL + 4
        return QSize(width, 60)

    def resizeEvent(self, event: object) -> None:
        """Keep all rows in reach of the scroll bar."""
        self.setMinimumHeight(self.heightForWidth(self.width()))

    # ------------------------------------------------------------------ mouse

    def head_at(self, place: QPoint) -> Head | None:
        """The head under a pixel."""
        for row, site in enumerate(self.content.sites):
            for column in range(len(self.content.texts[row])):
                if self.cell_rect(row, column).contains(place):
                    return site, column
        return None

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Choose a head, or a row by its name."""
        place = event.position().toPoint()
        head = self.head_at(place)
        if head is not None:
            self.chosen.emit(*head)
        elif place.x() < LABEL_WIDTH:
            row = (place.y() - HEADER_HEIGHT) // max(self.cell_height(self.width()), 1)
            if 0 <= row < len(self.content.sites):
                self.row_chosen.emit(self.content.sites[row])

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Tell the head and its number."""
        head = self.head_at(event.position().toPoint())
        if head is None:
            QToolTip.hideText()
            return
        number = self.content.texts[self.content.sites.index(head[0])][head[1]]
        told = f"{head[0]}, head {head[1]}" + (f": {number} {self.content.unit}" if number else "")
        QToolTip.showText(
            event.globalPosition().toPoint(), told + (" · switched off" if head in self.off else ""), self
        )

    # ------------------------------------------------------------------ drawing

    def paintEvent(self, event: QPaintEvent) -> None:
        """Names, cells, legend."""
        painter = QPainter(self)
        font = painter.font()
        font.setPixelSize(10)
        painter.setFont(font)
        quiet, text = QColor(quiet_colour()), QColor(theme_colour("text"))
        painter.setPen(quiet)
        middle = Qt.AlignmentFlag.AlignCenter
        for column in range(self.columns):
            top = self.cell_rect(0, column)
            painter.drawText(QRect(top.x(), 0, top.width(), HEADER_HEIGHT), middle, str(column))
        for row, site in enumerate(self.content.sites):
            first = self.cell_rect(row, 0)
            painter.setPen(quiet)
            label = QRect(0, first.y(), LABEL_WIDTH - 6, first.height())
            right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            painter.drawText(label, right, short_name(site))
            for column, number in enumerate(self.content.texts[row]):
                self._paint_cell(painter, row, column, number, text)
        self._paint_legend(painter, quiet)
        painter.end()

    def _paint_cell(self, painter: QPainter, row: int, column: int, number: str, text: QColor) -> None:
        rect, head = self.cell_rect(row, column), (self.content.sites[row], column)
        colour = QColor(*(int(c) for c in self.content.colours[row, column]))
        painter.fillRect(rect, colour)
        if self._images and self._images[row]:
            inner = rect.adjusted(FRAME, FRAME, -FRAME, -NUMBER_HEIGHT)
            painter.drawImage(inner, self._images[row][column])
        dark = colour.lightnessF() > 0.5
        painter.setPen(QColor("#101216") if dark else text)
        below = QRect(rect.x(), rect.bottom() - NUMBER_HEIGHT + 1, rect.width(), NUMBER_HEIGHT)
        area = below if self._images and self._images[row] else rect
        painter.drawText(area, Qt.AlignmentFlag.AlignCenter, number)
        if head in self.off:
            painter.setPen(QPen(QColor(OFF_COLOUR), 2))
            painter.drawLine(rect.topLeft(), rect.bottomRight())
            painter.drawLine(rect.topRight(), rect.bottomLeft())
        if head == self.selected:
            painter.setPen(QPen(QColor("#ffffff"), 2))
            painter.drawRect(rect.adjusted(0, 0, -1, -1))

    def _paint_legend(self, painter: QPainter, quiet: QColor) -> None:
        colours = self.content.legend
        if not len(colours):
            return
        top = self.heightForWidth(self.width()) - LEGEND_HEIGHT + 8
        width = min(180, self.width() - LABEL_WIDTH - 160)
        if width < 20:
            return
        bar = np.ascontiguousarray(colours[np.newaxis])
        painter.drawImage(QRect(LABEL_WIDTH + 60, top, width, 10), _image(bar))
        painter.setPen(quiet)
        low, high = self.content.limits
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        painter.drawText(QRect(LABEL_WIDTH - 40, top - 2, 94, 14), right, low)
        painter.drawText(QRect(LABEL_WIDTH + 66 + width, top - 2, 200, 14), Qt.AlignmentFlag.AlignVCenter, high)


class ScrolledMatrix(QScrollArea):
    """The matrix with a scroll bar where it is higher than there is room."""

    def __init__(self, view: HeadMatrixView) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setWidget(view)
        self.setMinimumHeight(120)
        self.setFrameShape(QScrollArea.Shape.NoFrame)


def short_name(site: str) -> str:
    """A site's name where there is little room."""
    return site.replace("prompt-to-image", "→ image").replace("image-to-prompt", "→ prompt").replace(".→", " →")


def _image(picture: np.ndarray) -> QImage:
    rows, columns, _ = picture.shape
    # copied, since Qt does not keep the array alive
    return QImage(picture.data, columns, rows, 3 * columns, QImage.Format.Format_RGB888).copy()
