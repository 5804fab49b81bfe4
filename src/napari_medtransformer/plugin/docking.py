"""Docks that no longer fit on the screen below one another become tabs."""

from __future__ import annotations

import weakref

from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget


def tab_where_tight(dock: QWidget) -> None:
    """Once a dock has its place: put it behind its neighbour's tab if the window would be taller than the screen."""
    reference, timer = weakref.ref(dock), QTimer(dock)
    timer.setSingleShot(True)
    timer.timeout.connect(lambda: _tab(reference()))
    timer.start(0)


def _tab(dock: QWidget | None) -> None:
    holder = _ancestor(dock, QDockWidget)
    window = _ancestor(holder, QMainWindow)
    if holder is None or window is None or holder.isFloating() or window.screen() is None:
        return
    area = window.dockWidgetArea(holder)
    if area not in (Qt.DockWidgetArea.LeftDockWidgetArea, Qt.DockWidgetArea.RightDockWidgetArea):
        return
    room = window.screen().availableGeometry().height()
    beside = [
        other
        for other in window.findChildren(QDockWidget)
        if other is not holder and other.isVisible() and not other.isFloating() and window.dockWidgetArea(other) == area
    ]
    if not beside or window.minimumSizeHint().height() <= room:
        return
    window.tabifyDockWidget(max(beside, key=lambda other: other.y()), holder)
    holder.raise_()
    window.layout().activate()
    window.resize(window.width(), min(window.height(), room))


def _ancestor(widget: QObject | None, kind: type[QWidget]) -> QWidget | None:
    while widget is not None and not isinstance(widget, kind):
        widget = widget.parent()
    return widget
