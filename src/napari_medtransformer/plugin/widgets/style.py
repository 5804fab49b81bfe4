"""Colours and small building blocks that both docks share, so that they look like one piece and like napari."""

from __future__ import annotations

import re

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QScrollArea, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from napari_medtransformer.plugin.widgets.icons import ICON_SIZE, theme_colour
from napari_medtransformer.plugin.widgets.theming import dress, put_icon

DOCK_WIDTH = 320
"""Least width of a dock, in pixels: room for the longest row of buttons."""
COLUMN_HEIGHT = 440
"""The height a dock asks for, in pixels; it takes more where there is more."""
LEAST_HEIGHT = 280
GAP = 6
BUTTON_HEIGHT = 28

POSITIVE = "#35d07f"
NEGATIVE = "#ff5f5f"
AMBER = "#ffb000"
QUERY = "#4dd2ff"  # no grey and in none of the heatmaps' colour maps, so it is seen on both
LETTER_COLOUR = "#ffd84d"

_MAY_BREAK = "\u200b"  # a space without width
_LONG_WORD = re.compile(r"\S{21,}")
_BREAK_AFTER = re.compile(r"[^_./\\-]{12}|[_./\\-]+")

OBJECT_COLOURS = (
    "#41b6ff", "#ffb000", "#e26bff", "#8bd450", "#ff7b54",
    "#5eead4", "#b39dff", "#f9e65c", "#ff8fab", "#c9a26b",
)  # fmt: skip
"""Ten hues that stand out on grey anatomy and from the prompts' green and red; they repeat after ten objects."""


def object_colour(object_id: int) -> str:
    """The colour of an object unless the user chose another."""
    return OBJECT_COLOURS[(object_id - 1) % len(OBJECT_COLOURS)]


def tool_button(
    icon_name: str | None, tooltip: str, *, text: str = "", checkable: bool = False, colour: str | None = None
) -> QToolButton:
    """A button with an icon, a text, or both; those with a text share the width of their row."""
    button = QToolButton()
    style = Qt.ToolButtonStyle
    if icon_name is not None:
        put_icon(button, icon_name, colour)
        button.setIconSize(QSize(ICON_SIZE, ICON_SIZE))
    if text:
        button.setText(text)
        button.setToolButtonStyle(style.ToolButtonTextOnly if icon_name is None else style.ToolButtonTextBesideIcon)
    button.setToolTip(tooltip)
    button.setCheckable(checkable)
    button.setFixedHeight(BUTTON_HEIGHT)
    button.setMinimumWidth(BUTTON_HEIGHT + 4)
    button.setSizePolicy(QSizePolicy.Policy.Expanding if text else QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
    dress(button, _button_style)
    return button


def _button_style() -> str:
    """napari's style sheet knows push buttons only; tool buttons get the same look here."""
    return (
        f"QToolButton {{ background: {theme_colour('primary')}; border-radius: 3px; padding: 2px 5px; }}"
        f"QToolButton:hover {{ background: {theme_colour('highlight')}; }}"
        f"QToolButton:checked, QToolButton:pressed {{ background: {theme_colour('current')}; }}"
        f"QToolButton:disabled {{ background: {theme_colour('background')}; color: {theme_colour('highlight')}; }}"
        "QToolButton::menu-indicator { image: none; }"
    )


def enable(button: QToolButton, possible: bool, tip: str, reason: str) -> None:
    """Enable a button, or disable it with a tooltip that says why."""
    button.setEnabled(possible)
    button.setToolTip(tip if possible else f"{tip}\n\nNot now: {reason}")


class Column(QScrollArea):
    """Scrolls what is too high, and is never narrower than what it holds."""

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setWidget(content)
        self.setMinimumHeight(LEAST_HEIGHT)
        content.installEventFilter(self)
        self._fit()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Follow the content's width, which is known only once napari's style sheet has reached it."""
        if watched is self.widget() and event.type() in (QEvent.Type.LayoutRequest, QEvent.Type.Show):
            self._fit()
        return super().eventFilter(watched, event)

    def sizeHint(self) -> QSize:
        """Half of a usual window, so that two docks above one another share it."""
        return QSize(self.minimumWidth(), min(self.widget().sizeHint().height(), COLUMN_HEIGHT))

    def _fit(self) -> None:
        needed = self.widget().minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width()
        self.setMinimumWidth(max(DOCK_WIDTH, needed))


def section(title: str, *extra: QWidget) -> tuple[QFrame, QVBoxLayout]:
    """A titled card: a frame and the layout to fill. extra: small widgets at the right of the title."""
    frame = QFrame()
    frame.setObjectName("medtSection")
    dress(frame, _section_style)
    layout = QVBoxLayout(frame)
    layout.setContentsMargins(9, 6, 9, 8)
    layout.setSpacing(GAP)
    heading = QLabel(title.upper())
    dress(heading, lambda: f"font-size: 10px; font-weight: 600; letter-spacing: 1px; color: {quiet_colour()};")
    layout.addLayout(row(heading, None, *extra))
    return frame, layout


def _section_style() -> str:
    return (
        f"QFrame#medtSection {{ background: {theme_colour('foreground')}; border-radius: 5px; }}"
        "QFrame#medtSection QLabel, QFrame#medtSection QCheckBox { background: transparent; }"
    )


def folding(title: str, content: QWidget, *, is_open: bool = True) -> tuple[QWidget, QToolButton]:
    """A line that shows and hides what is under it, and the button that does."""
    frame = QWidget()
    layout = QVBoxLayout(frame)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(GAP)
    button = QToolButton()
    button.setText(title)
    button.setCheckable(True)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    dress(button, _folding_style)

    def show(on: bool) -> None:
        button.setArrowType(Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow)
        content.setVisible(on)

    button.toggled.connect(show)
    button.setChecked(is_open)
    show(is_open)
    layout.addWidget(button)
    layout.addWidget(content)
    return frame, button


def _folding_style() -> str:
    plain = "background: transparent; border: 0; padding: 0; font-size: 11px"
    return f"QToolButton {{ {plain}; color: {quiet_colour()}; }}"


def row(*widgets: QWidget | None) -> QHBoxLayout:
    """Widgets side by side; None takes the space that is left."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(GAP)
    for widget in widgets:
        if widget is None:
            layout.addStretch(1)
        else:
            layout.addWidget(widget)
    return layout


class QuietLabel(QLabel):
    """A line of secondary text that wraps rather than widening its dock, also within a long name of a file."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.setText(text)
        self.setWordWrap(True)
        dress(self, quiet_style)
        self.setMinimumWidth(40)

    def setText(self, text: str | None) -> None:
        """Qt breaks lines between words only, and cuts off what is longer than a line."""
        super().setText(_LONG_WORD.sub(_with_breaks, text or ""))

    def text(self) -> str:
        """What it says, without the places where a line may break."""
        return super().text().replace(_MAY_BREAK, "")


def _with_breaks(word: re.Match[str]) -> str:
    return _BREAK_AFTER.sub(rf"\g<0>{_MAY_BREAK}", word[0])


def quiet_style(pixels: int = 11) -> str:
    """The style sheet of secondary text."""
    return f"font-size: {pixels}px; color: {quiet_colour()};"


def warning_style() -> str:
    """The style sheet of a warning: amber, darker where the theme is light."""
    dark = QColor(theme_colour("background")).lightness() < 128
    return f"font-size: 11px; color: {AMBER if dark else '#8a4b00'};"


def quiet_colour() -> str:
    """The theme's text colour, three quarters of the way from its background."""
    text, background = QColor(theme_colour("text")), QColor(theme_colour("foreground"))
    red, green, blue = (round(0.72 * t + 0.28 * b) for t, b in zip(text.getRgb()[:3], background.getRgb()[:3]))
    return QColor(red, green, blue).name()
