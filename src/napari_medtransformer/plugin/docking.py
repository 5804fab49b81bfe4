"""Docks in the viewer's window: whether any is there, and their places.

Where docks below one another would hide much of each other, a strip goes below the canvas, others become tabs.
"""

from __future__ import annotations

import weakref
from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt, QTimer, Signal
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

from napari_medtransformer.plugin.widgets.style import Column

STRIP_HEIGHT = 350
"""Of a dock that lies below the canvas."""
LEAST_CANVAS = 480
"""What a strip leaves of the window's height."""
_STRIP = "medtStrip"


class OpenDocks(QObject):
    """The docks of one viewer that are in its window, be they hidden; napari takes one out when its X is clicked."""

    came = Signal()  # a dock is there, or there again
    left = Signal()  # the last one was taken out
    destroyed_with_window = Signal()

    def __init__(self, window: QMainWindow) -> None:
        super().__init__()
        self._docks: weakref.WeakSet[QWidget] = weakref.WeakSet()
        self._there: set[int] = set()  # ids of those in the window
        here = weakref.ref(self)
        window.destroyed.connect(lambda: (docks := here()) is not None and docks.destroyed_with_window.emit())

    @property
    def give_prompts(self) -> bool:
        """Whether one of them is for prompts."""
        return any(id(dock) in self._there and getattr(dock, "gives_prompts", False) for dock in self._docks)

    def add(self, dock: QWidget) -> None:
        """A dock was made, to be put into the window."""
        number, here = id(dock), weakref.ref(self)
        self._docks.add(dock)
        self._there.add(number)
        dock.installEventFilter(self)
        dock.destroyed.connect(lambda: (docks := here()) is not None and docks._on_destroyed(number))
        self.came.emit()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Notice a dock that goes into the window or out of it; False: nothing is kept from it."""
        if event.type() == QEvent.Type.ParentChange:
            if watched.parent() is not None:
                self._there.add(id(watched))
                self.came.emit()
            elif id(watched) in self._there:
                self._there.remove(id(watched))
                if not self._there:
                    self.left.emit()
        return False

    def _on_destroyed(self, number: int) -> None:
        if number in self._there:
            self._there.remove(number)
            if not self._there:
                self.destroyed_with_window.emit()


def make_strip(dock: QWidget) -> None:
    """Say that a dock lies below the canvas as well as beside it."""
    dock.setProperty(_STRIP, True)


def arrange(dock: QWidget, viewer: Any) -> None:
    """Once a dock has its place in the viewer's window: make room for it and for its neighbours."""
    reference, timer, camera = weakref.ref(dock), QTimer(dock), weakref.ref(viewer.scene.camera)
    timer.setSingleShot(True)
    timer.timeout.connect(lambda: _arrange(reference(), camera()))
    timer.start(0)


def put_below(window: QMainWindow, holder: QDockWidget) -> None:
    """Let a dock be a strip below the canvas alone; those at the sides keep the window's whole height."""
    window.setCorner(Qt.Corner.BottomRightCorner, Qt.DockWidgetArea.RightDockWidgetArea)
    window.setCorner(Qt.Corner.BottomLeftCorner, Qt.DockWidgetArea.LeftDockWidgetArea)
    if window.dockWidgetArea(holder) != Qt.DockWidgetArea.BottomDockWidgetArea:
        window.addDockWidget(Qt.DockWidgetArea.BottomDockWidgetArea, holder)
    window.resizeDocks([holder], [STRIP_HEIGHT], Qt.Orientation.Vertical)


def _arrange(dock: QWidget | None, camera: Any) -> None:
    holder = _ancestor(dock, QDockWidget)
    window = _ancestor(holder, QMainWindow)
    if holder is None or window is None or holder.isFloating() or window.screen() is None:
        return
    area = window.dockWidgetArea(holder)
    if area == Qt.DockWidgetArea.BottomDockWidgetArea and _is_strip(holder):
        put_below(window, holder)  # napari remembers where a dock was, not the corners
    if area not in (Qt.DockWidgetArea.LeftDockWidgetArea, Qt.DockWidgetArea.RightDockWidgetArea):
        return
    shown = [
        other
        for other in window.findChildren(QDockWidget)
        if other.isVisible() and not other.isFloating() and window.dockWidgetArea(other) == area
    ]
    room = min(window.height(), window.screen().availableGeometry().height())
    if not _tight(window, shown, room):
        return
    strip = next(filter(_is_strip, shown), None)
    if strip is not None and room - STRIP_HEIGHT >= LEAST_CANVAS:
        before = max(1, window.centralWidget().height())
        put_below(window, strip)
        shown.remove(strip)
        window.layout().activate()
        # what was in view above and below the middle stays there
        camera.zoom *= window.centralWidget().height() / before
    others = sorted((other for other in shown if other is not holder), key=lambda other: (_is_ours(other), other.y()))
    if holder in shown and others and _tight(window, shown, room):
        window.tabifyDockWidget(others[-1], holder)
        holder.raise_()
    window.layout().activate()
    window.resize(window.width(), room)


def _tight(window: QMainWindow, shown: list[QDockWidget], room: int) -> bool:
    """Whether docks of one side cannot lie below one another in so many pixels, or two of this package hide much."""
    ours = [_wanted(holder) for holder in shown if _is_ours(holder)]
    others = [holder.minimumSizeHint().height() for holder in shown if not _is_ours(holder)]
    return window.minimumSizeHint().height() > room or (len(ours) > 1 and sum(ours + others) > room)


def _is_ours(holder: QDockWidget) -> bool:
    return holder.findChild(Column) is not None


def _is_strip(holder: QDockWidget) -> bool:
    return any(widget.property(_STRIP) for widget in holder.findChildren(QWidget))


def _wanted(holder: QDockWidget) -> int:
    """Pixels of height in which a dock shows all of what it holds now."""
    columns = [column for column in holder.findChildren(Column) if column.isVisible()]
    return holder.sizeHint().height() + sum(c.widget().sizeHint().height() - c.sizeHint().height() for c in columns)


def _ancestor(widget: QObject | None, kind: type[QWidget]) -> QWidget | None:
    while widget is not None and not isinstance(widget, kind):
        widget = widget.parent()
    return widget
