"""A picture that keeps its proportions and says where in it the mouse clicked."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_medtransformer.plugin.widgets.style import quiet_colour

CAPTION_HEIGHT = 16


class PictureView(QWidget):
    """Shows one RGB picture as large as fits, with a caption below. clicked: (row, column) in [0, 1]."""

    clicked = Signal(float, float)

    def __init__(self, caption: str = "", *, smooth: bool = True, least: int = 110) -> None:
        super().__init__()
        self.caption, self._smooth = caption, smooth
        self._image: QImage | None = None
        self.picture: np.ndarray | None = None
        self.setMinimumSize(least, least)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def show_picture(self, picture: np.ndarray | None, caption: str | None = None) -> None:
        """Show an (rows, columns, 3) uint8 picture; None for nothing."""
        self.caption = self.caption if caption is None else caption
        self.picture = picture
        self._image = None
        if picture is not None:
            rows, columns, _ = picture.shape
            data = np.ascontiguousarray(picture)
            self._image = QImage(data.data, columns, rows, 3 * columns, QImage.Format.Format_RGB888).copy()
        self.update()

    def sizeHint(self) -> QSize:
        """A comfortable size."""
        return QSize(200, 200)

    def picture_rect(self) -> QRect:
        """Where the picture is drawn."""
        if self._image is None:
            return QRect()
        room = self.rect().adjusted(0, 0, 0, -CAPTION_HEIGHT)
        size = self._image.size().scaled(room.size(), Qt.AspectRatioMode.KeepAspectRatio)
        return QRect(
            room.x() + (room.width() - size.width()) // 2,
            room.y() + (room.height() - size.height()) // 2,
            size.width(),
            size.height(),
        )

    def paintEvent(self, event: QPaintEvent) -> None:
        """The picture and its caption."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, self._smooth)
        if self._image is not None:
            painter.drawImage(self.picture_rect(), self._image)
        font = painter.font()
        font.setPixelSize(10)
        painter.setFont(font)
        painter.setPen(QColor(quiet_colour()))
        below = QRect(0, self.height() - CAPTION_HEIGHT, self.width(), CAPTION_HEIGHT)
        shown = painter.fontMetrics().elidedText(self.caption, Qt.TextElideMode.ElideRight, self.width())
        painter.drawText(below, Qt.AlignmentFlag.AlignCenter, shown)
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Tell where in the picture."""
        rect = self.picture_rect()
        place = event.position()
        if rect.width() > 0 and rect.contains(place.toPoint()):
            self.clicked.emit((place.y() - rect.y()) / rect.height(), (place.x() - rect.x()) / rect.width())
