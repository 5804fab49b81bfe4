"""Letters on dark grounds at the canvas' edges, drawn at once from one small picture that is painted when they change.

napari draws a text and its ground as two visuals each, sends the font's whole atlas to the graphics card for every text
of every frame, and builds the grounds anew whenever a layer comes, goes or is hidden. For four letters that was a
quarter of all that the window's thread did for a frame. Here a frame costs one call that draws eight triangles.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from napari._vispy.overlays.base import ViewerOverlayMixin, VispyCanvasOverlay
from napari._vispy.utils.gl import BLENDING_MODES
from napari._vispy.utils.visual import overlay_to_visual
from napari.components.overlays import TextOverlay
from qtpy.QtCore import QRectF, Qt
from qtpy.QtGui import QColor, QFont, QFontMetricsF, QImage, QPainter
from vispy.gloo import Texture2D, VertexBuffer
from vispy.scene import Node
from vispy.scene.visuals import create_visual_node
from vispy.visuals import Visual

PIXELS_PER_POINT = (96 / 72) ** 2
"""Of the canvas, before the screen's own scale: napari's texts are so large, whose glyphs are made from points too."""
GROUND_PADDING = 0.8
"""Of the canvas' padding, by which napari widens and heightens the ground of an overlay."""
_CORNERS = np.array([(0, 0), (1, 0), (1, 1), (0, 0), (1, 1), (0, 1)], dtype=np.float32)
"""Two triangles, in widths and heights of a letter."""

_VERTEX = """
attribute vec2 a_position;
attribute vec2 a_texcoord;
varying vec2 v_texcoord;
void main() {
    v_texcoord = a_texcoord;
    gl_Position = $transform(vec4(a_position, 0., 1.));
}
"""
_FRAGMENT = """
uniform sampler2D u_letters;
varying vec2 v_texcoord;
void main() {
    gl_FragColor = texture2D(u_letters, v_texcoord);
}
"""


class EdgeLetter(TextOverlay):
    """A letter at an edge of the canvas. A type of its own, so that it is drawn by `DrawnLetter`."""


class Look(NamedTuple):
    """All that a letter's picture depends on: sizes in canvas pixels, colours RGBA 0 to 1; ground may be None."""

    text: str
    face: str
    pixels: float
    size: tuple[float, float]
    colour: tuple[float, ...]
    ground: tuple[float, ...] | None
    opacity: float


def painted(look: Look, ratio: float) -> np.ndarray:
    """A letter on its ground, (height, width, 4) uint8, not premultiplied; ratio: pixels of the screen per canvas'."""
    width, height = (max(1, round(side * ratio)) for side in look.size)
    image = QImage(width, height, QImage.Format.Format_RGBA8888)
    image.fill(_colour(look.ground or (*look.colour[:3], 0.0)))
    painter = QPainter(image)
    painter.setRenderHint(QPainter.RenderHint.TextAntialiasing)
    painter.setPen(_colour(look.colour))
    painter.setFont(_font(look.face, look.pixels * ratio))
    painter.drawText(QRectF(0, 0, width, height), Qt.AlignmentFlag.AlignCenter, look.text)
    painter.end()
    bits = image.constBits()
    if hasattr(bits, "setsize"):  # PyQt's; PySide gives a memoryview that knows its own
        bits.setsize(image.sizeInBytes())
    rows = np.frombuffer(bits, np.uint8).reshape(height, image.bytesPerLine())
    pixels = rows[:, : 4 * width].reshape(height, width, 4).copy()
    pixels[..., 3] = np.round(pixels[..., 3] * look.opacity).astype(np.uint8)
    return pixels


class LetterSheetVisual(Visual):
    """All letters of one view, in one picture and one draw call."""

    def __init__(self) -> None:
        super().__init__(_VERTEX, _FRAGMENT)
        self.unfreeze()
        self.letters: list[DrawnLetter] = []
        self._looks: tuple[Any, ...] = ()
        self._spans: list[tuple[int, int, int]] = []  # of every letter in the picture: left, width, height
        self._places: list[tuple[float, float]] = []
        self._picture = Texture2D(np.zeros((1, 1, 4), np.uint8), interpolation="nearest", internalformat="rgba8")
        self._corners = VertexBuffer(np.zeros((6, 2), np.float32))
        self._texcoords = VertexBuffer(np.zeros((6, 2), np.float32))
        self._stale = True
        self._draw_mode = "triangles"
        self.shared_program["u_letters"] = self._picture
        self.shared_program["a_position"] = self._corners
        self.shared_program["a_texcoord"] = self._texcoords
        self.set_gl_state(**BLENDING_MODES["translucent_no_depth"])
        self.freeze()

    def renew(self) -> None:
        """Look at the letters again before the next frame: a text, a colour or a place may be another."""
        self._stale = True
        self.update()

    def _prepare_transforms(self, view: Any) -> None:
        view.view_program.vert["transform"] = view.transforms.get_transform()

    def _prepare_draw(self, view: Any) -> bool:
        ratio = float(view.transforms.pixel_scale)
        if self._stale or (self._looks and self._looks[0] != ratio):
            shown = [letter for letter in self.letters if letter.is_drawn]
            self._paint(ratio, tuple(letter.look for letter in shown))
            self._put(ratio, [letter.corner for letter in shown])
            self._stale = False
        return bool(self._spans)

    def _paint(self, ratio: float, looks: tuple[Look, ...]) -> None:
        if self._looks == (ratio, *looks):
            return
        pictures = [painted(look, ratio) for look in looks]
        sheet = np.zeros(
            (max((len(one) for one in pictures), default=1), sum(one.shape[1] for one in pictures) or 1, 4), np.uint8
        )
        self._spans, left = [], 0
        for one in pictures:
            height, width = one.shape[:2]
            sheet[:height, left : left + width] = one
            self._spans.append((left, width, height))
            left += width
        self._picture.set_data(sheet)
        self._looks, self._places = (ratio, *looks), []

    def _put(self, ratio: float, places: list[tuple[float, float]]) -> None:
        if self._places == places or not places:
            return
        height, width = self._picture.shape[:2]
        corners, texcoords = [], []
        for (x, y), (left, wide, high) in zip(places, self._spans):
            # on whole pixels of the screen: between two of them every letter would be blurred
            corners.append((np.round(np.array((x, y)) * ratio) + _CORNERS * (wide, high)) / ratio)
            texcoords.append(((left, 0) + _CORNERS * (wide, high)) / (width, height))
        self._corners.set_data(np.concatenate(corners).astype(np.float32))
        self._texcoords.set_data(np.concatenate(texcoords).astype(np.float32))
        self._places = places


LetterSheet = create_visual_node(LetterSheetVisual)


class LetterPlace(Node):
    """Where napari puts a letter among the overlays of a view; what is seen there is the sheet's."""

    def set_gl_state(self, **state: Any) -> None:
        """Nothing is drawn here that could be blended."""


class DrawnLetter(ViewerOverlayMixin, VispyCanvasOverlay):
    """Keeps one letter's place among the overlays of napari's canvas, and tells the sheet of its view what it is."""

    overlay: EdgeLetter

    def __init__(self, **kwargs: Any) -> None:
        self._sheet: Any = None
        super().__init__(node=LetterPlace(), **kwargs)
        events = self.overlay.events
        for emitter in (events.text, events.font_size):
            emitter.connect(self._on_position_change)
        events.color.connect(self._on_box_change)
        self.node.transform.changed.connect(self._on_box_change)
        self.reset()

    @property
    def is_drawn(self) -> bool:
        """Whether there is anything of it to be seen."""
        return bool(self._should_be_visible() and self.overlay.text)

    @property
    def look(self) -> Look:
        """What it looks like now."""
        overlay, colour = self.overlay, self.overlay.color
        background = self.viewer.canvas.background_color
        ground = background if overlay.box_color is None else overlay.box_color
        pad_x, pad_y = self._padding
        return Look(
            text=overlay.text,
            face=self._font_info.face,
            pixels=overlay.font_size * PIXELS_PER_POINT,
            size=(self.x_size + pad_x, self.y_size + pad_y),
            colour=tuple(float(part) for part in (self._get_fgcolor() if colour is None else colour)),
            ground=tuple(float(part) for part in ground) if overlay.box else None,
            opacity=float(overlay.opacity),
        )

    @property
    def corner(self) -> tuple[float, float]:
        """x, y of its ground's upper left corner, in pixels of the canvas."""
        x, y = self.node.transform.translate[:2]
        pad_x, pad_y = self._padding
        return float(x) - pad_x / 2, float(y) - pad_y / 2

    @property
    def _padding(self) -> tuple[float, float]:
        pad_x, pad_y = self.viewer.canvas.overlay_tiling.padding
        return GROUND_PADDING * pad_x, GROUND_PADDING * pad_y

    def _on_position_change(self, event: Any = None) -> None:
        """The text may be wider now; napari tiles what stands at the same edge by these sizes."""
        metrics = QFontMetricsF(_font(self._font_info.face, self.overlay.font_size * PIXELS_PER_POINT))
        self.x_size = metrics.horizontalAdvance(self.overlay.text)
        self.y_size = metrics.height()
        super()._on_position_change()

    def _on_opacity_change(self) -> None:
        super()._on_opacity_change()
        self._on_box_change()

    def _on_box_change(self, event: Any = None) -> None:
        """napari calls this for whatever may change the ground, and once the overlay has a view."""
        parent = self.node.parent
        if self._sheet is not None and self._sheet.parent is not parent:
            self._leave()
        if self._sheet is None and parent is not None:
            found = [child for child in parent.children if isinstance(child, LetterSheet)]
            self._sheet = found[0] if found else LetterSheet(parent=parent)
            self._sheet.order = self.node.order
            self._sheet.letters.append(self)
        if self._sheet is not None:
            self._sheet.visible = any(letter.is_drawn for letter in self._sheet.letters)
            self._sheet.renew()

    def _leave(self) -> None:
        sheet, self._sheet = self._sheet, None
        sheet.letters.remove(self)
        sheet.renew()
        if not sheet.letters:
            sheet.parent = None

    def close(self) -> None:
        """The overlay was taken out."""
        if self._sheet is not None:
            self._leave()
        super().close()


def _font(face: str, pixels: float) -> QFont:
    font = QFont(face)
    font.setPixelSize(max(1, round(pixels)))
    return font


def _colour(rgba: tuple[float, ...]) -> QColor:
    return QColor.fromRgbF(*(min(max(part, 0.0), 1.0) for part in rgba))


overlay_to_visual[EdgeLetter] = DrawnLetter
