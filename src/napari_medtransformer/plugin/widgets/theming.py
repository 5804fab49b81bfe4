"""Style sheets and icons in the colours of napari's theme, made anew when the theme is changed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from qtpy.QtWidgets import QToolButton, QWidget

from napari_medtransformer.plugin.widgets.icons import icon

_SHEET, _ICON = "medt_sheet", "medt_icon"


def dress(widget: QWidget, make_sheet: Callable[[], str]) -> None:
    """Give a widget the style sheet that `make_sheet` makes of the theme's colours. It must not hold the widget."""
    widget.setProperty(_SHEET, make_sheet)
    widget.setStyleSheet(make_sheet())


def put_icon(button: QToolButton, name: str, colour: str | None = None) -> None:
    """Give a button an icon in the theme's colour unless another is given."""
    button.setProperty(_ICON, (name, colour))
    button.setIcon(icon(name, colour))


class ThemeFollower:
    """Dresses a dock and all that is in it anew when its viewer's theme changes; then calls `refresh`, a method of it.

    Held by the dock: napari forgets it with the dock.
    """

    def __init__(self, viewer: Any, dock: QWidget, refresh: Callable[[], None] | None = None) -> None:
        self._dock = weakref.ref(dock)
        self._refresh = None if refresh is None else weakref.WeakMethod(refresh)
        viewer.events.theme.connect(self._follow)

    def _follow(self, _event: Any = None) -> None:
        dock = self._dock()
        if dock is None:
            return
        for widget in (dock, *dock.findChildren(QWidget)):
            make_sheet, drawn = widget.property(_SHEET), widget.property(_ICON)
            if make_sheet is not None:
                widget.setStyleSheet(make_sheet())
            if drawn is not None:
                widget.setIcon(icon(*drawn))
            widget.update()
        refresh = None if self._refresh is None else self._refresh()
        if refresh is not None:
            refresh()
