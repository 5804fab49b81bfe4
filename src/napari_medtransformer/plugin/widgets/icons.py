"""Icons in the theme's colour: napari's own, and a few drawn here in the same manner."""

from __future__ import annotations

import napari
from napari.resources import get_colorized_svg, get_icon_path
from napari.settings import get_settings
from napari.utils.theme import get_theme
from qtpy.QtCore import QByteArray, QRectF, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtSvg import QSvgRenderer

ICON_SIZE = 18

# On a 24×24 field, outlines two units wide.
_DRAWN = {
    "point": '<circle cx="12" cy="12" r="4.5" fill="{c}"/>'
    '<path d="M12 1.5v5M12 17.5v5M1.5 12h5M17.5 12h5" stroke="{c}" stroke-width="2"/>',
    "box": '<path d="M3 5h18v14H3z" fill="none" stroke="{c}" stroke-width="2" stroke-dasharray="4 2"/>',
    "scribble": '<path d="M3 17c3-8 5-9 6-7s-2 7 1 7 4-9 6-9-1 8 5 6" fill="none" stroke="{c}" stroke-width="2.600"/>',
    "lasso": '<path d="M12 4c5.500 0 9 2.500 9 5.500S17.500 15 12 15 3 12.500 3 9.500 6.500 4 12 4z" fill="none" '
    'stroke="{c}" stroke-width="2" stroke-dasharray="4 2"/>'
    '<path d="M8 14.500c-2 2-1 4 1 6" fill="none" stroke="{c}" stroke-width="2"/>',
    "refine": '<path d="M4 12a8 8 0 0 1 14-5l2 2M20 12a8 8 0 0 1-14 5l-2-2M20 4v5h-5M4 20v-5h5" fill="none" '
    'stroke="{c}" stroke-width="2"/><circle cx="12" cy="12" r="3" fill="{c}"/>',
    "edit": '<path d="M5 2l13 11-6 .6 3.500 7-2.800 1.400-3.400-7L5 19z" fill="{c}"/>',
    "gear": '<circle cx="12" cy="12" r="6" fill="none" stroke="{c}" stroke-width="3"/>'
    '<path d="M12 1.500v5M12 17.500v5M1.500 12h5M17.500 12h5M4.600 4.600l3.500 3.500M15.900 15.900l3.500 3.500'
    'M19.400 4.600l-3.500 3.500M8.100 15.900l-3.500 3.500" stroke="{c}" stroke-width="2.200"/>',
    "table": '<path d="M3 4h18v16H3zM3 9.500h18M3 14.800h18M9.500 4v16" fill="none" stroke="{c}" stroke-width="2"/>',
    "commit": '<path d="M12 2v9M8 7.500l4 4 4-4" fill="none" stroke="{c}" stroke-width="2.200"/>'
    '<path d="M12 11 2 16.500l10 5.500 10-5.500z" fill="{c}"/>',
    "undo": '<path d="M8 4 3 9l5 5M3.5 9H14a6 6 0 0 1 0 12h-4" fill="none" stroke="{c}" stroke-width="2.2"/>',
    "redo": '<path d="M16 4l5 5-5 5M20.500 9H10a6 6 0 0 0 0 12h4" fill="none" stroke="{c}" stroke-width="2.2"/>',
    "masks": '<rect x="3" y="3" width="12" height="12" rx="2" fill="none" stroke="{c}" stroke-width="2"/>'
    '<rect x="9" y="9" width="12" height="12" rx="2" fill="{c}"/>',
    "stack": '<path d="M12 2 2 7.500l10 5.500 10-5.500z" fill="{c}"/>'
    '<path d="M2 12.500l10 5.500 10-5.500M2 17l10 5.500L22 17" fill="none" stroke="{c}" stroke-width="1.800"/>',
    "save": '<path d="M12 3v11M7 10l5 5 5-5M3 16v5h18v-5" fill="none" stroke="{c}" stroke-width="2.200"/>',
    "more": '<circle cx="5" cy="12" r="2" fill="{c}"/><circle cx="12" cy="12" r="2" fill="{c}"/>'
    '<circle cx="19" cy="12" r="2" fill="{c}"/>',
    "clear": '<path d="M5 5l14 14M19 5 5 19" stroke="{c}" stroke-width="2.400"/>',
}


def theme_colour(key: str = "icon") -> str:
    """A colour of napari's current theme, as hex: the viewer's, which may differ from the one in the settings."""
    viewer = napari.current_viewer()
    theme = get_settings().appearance.theme if viewer is None else viewer.theme
    return getattr(get_theme(theme), key).as_hex()


def icon(name: str, colour: str | None = None) -> QIcon:
    """An icon by name, in the theme's colour unless another is given; paler when disabled."""
    result = QIcon()
    for mode, opacity in ((QIcon.Mode.Normal, 1.0), (QIcon.Mode.Disabled, 0.35)):
        pixmap = _blank(2 * ICON_SIZE)  # twice as fine as shown, for screens with two pixels per point
        painter = QPainter(pixmap)
        painter.setOpacity(opacity)
        QSvgRenderer(QByteArray(_svg(name, colour or theme_colour()).encode())).render(painter)
        painter.end()
        result.addPixmap(pixmap, mode)
    return result


def swatch(colour: str, size: int = 14) -> QIcon:
    """A round sample of a colour."""
    pixmap = _blank(2 * size)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(colour))
    painter.drawEllipse(QRectF(2, 2, 2 * size - 4, 2 * size - 4))
    painter.end()
    return QIcon(pixmap)


def _svg(name: str, colour: str) -> str:
    if name in _DRAWN:
        body = _DRAWN[name].replace("{c}", colour)
        return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24">{body}</svg>'
    return get_colorized_svg(get_icon_path(name), colour)


def _blank(size: int) -> QPixmap:
    pixmap = QPixmap(size, size)
    pixmap.fill(Qt.GlobalColor.transparent)
    return pixmap
