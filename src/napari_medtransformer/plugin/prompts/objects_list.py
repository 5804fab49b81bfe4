"""The list of objects: colour, name, class, millilitres; the order in which they lie over one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qtpy.QtCore import QPoint, QSize, Qt, Signal
from qtpy.QtGui import QBrush, QColor, QDropEvent
from qtpy.QtWidgets import (
    QAbstractItemDelegate,
    QAbstractItemView,
    QColorDialog,
    QHeaderView,
    QMenu,
    QTreeWidget,
    QTreeWidgetItem,
    QWidget,
)

from napari_medtransformer.plugin.widgets.icons import swatch
from napari_medtransformer.plugin.widgets.style import quiet_colour
from napari_medtransformer.prompting.state import SessionObject

_COLOUR, _NAME, _CLASS, _VOLUME = range(4)
_ID = Qt.ItemDataRole.UserRole


class ObjectsList(QTreeWidget):
    """Objects from top to bottom as they lie over one another; dragging changes that. Double-clicks edit."""

    selected = Signal(int)
    renamed = Signal(int, str)
    classed = Signal(int, str)
    recoloured = Signal(int, str)
    reordered = Signal(list)  # numbers from the lowest to the one on top

    def __init__(self) -> None:
        super().__init__()
        self.setColumnCount(4)
        self.setHeaderHidden(True)
        self.setRootIsDecorated(False)
        self.setIndentation(0)
        self.setUniformRowHeights(True)
        self.setIconSize(QSize(14, 14))
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(24)
        header.setSectionResizeMode(_COLOUR, QHeaderView.ResizeMode.Fixed)
        header.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(_CLASS, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(_VOLUME, QHeaderView.ResizeMode.ResizeToContents)
        header.resizeSection(_COLOUR, 26)
        self.setMinimumHeight(54)
        self.setToolTip(
            "Prompts go to the selected object. Double-click its name, class or colour to change them; N: next.\n"
            "Where objects overlap, the upper one counts: drag to reorder."
        )
        self.setDragDropMode(QAbstractItemView.DragDropMode.InternalMove)
        self.setDropIndicatorShown(True)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.customContextMenuRequested.connect(self._on_menu)
        self._shown: tuple = ()
        self._postponed: tuple | None = None  # what is shown once the name is typed
        self.currentItemChanged.connect(self._on_current)
        self.itemChanged.connect(self._on_edited)
        self.itemDoubleClicked.connect(self._on_double_click)

    def show_objects(
        self,
        objects: Sequence[SessionObject],
        colours: Mapping[int, str],
        volumes_ml: Mapping[int, float],
        current: int,
        is_there: bool = True,
    ) -> None:
        """objects: the topmost last. volumes_ml: of those that have a mask. Waits while a name is being typed.

        is_there: whether the current one is; until its first prompt, it cannot be named, coloured or moved.
        """
        shown = (tuple(objects), dict(colours), dict(volumes_ml), current, is_there, quiet_colour())
        self._postponed = None
        if shown == self._shown:
            return
        if self.state() == QAbstractItemView.State.EditingState:
            self._postponed = shown
            return
        before, self._shown = self._shown, shown
        self.blockSignals(True)
        if before and (before[:2], before[3:]) == (shown[:2], shown[3:]):
            for row, one in enumerate(reversed(objects)):  # as after most prompts: nothing but sizes
                self.topLevelItem(row).setText(_VOLUME, _size(volumes_ml, one.object_id))
            self.blockSignals(False)
            return
        self.clear()
        for one in reversed(objects):
            object_id = one.object_id
            name = one.name or f"object {object_id}"
            item = QTreeWidgetItem(["", name, one.class_name, _size(volumes_ml, object_id)])
            item.setData(_COLOUR, _ID, object_id)
            item.setIcon(_COLOUR, swatch(colours[object_id]))
            item.setForeground(_CLASS, QBrush(QColor(quiet_colour())))
            item.setTextAlignment(_VOLUME, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            item.setFlags((item.flags() | Qt.ItemFlag.ItemIsEditable) & ~Qt.ItemFlag.ItemIsDropEnabled)
            if object_id == current and not is_there:
                item.setFlags(item.flags() & ~(Qt.ItemFlag.ItemIsEditable | Qt.ItemFlag.ItemIsDragEnabled))
            item.setSizeHint(_NAME, QSize(0, 24))
            self.addTopLevelItem(item)
            if object_id == current:
                self.setCurrentItem(item)
        self.blockSignals(False)

    def closeEditor(self, editor: QWidget, hint: QAbstractItemDelegate.EndEditHint) -> None:
        """A name was typed, or given up: show what has come meanwhile."""
        super().closeEditor(editor, hint)
        if self._postponed is not None:
            self.show_objects(*self._postponed[:5])  # the last is the theme's colour

    def _on_current(self, item: QTreeWidgetItem | None) -> None:
        if item is not None:
            self.selected.emit(item.data(_COLOUR, _ID))

    def sizeHint(self) -> QSize:
        """Four rows: it takes more where there is more, and leaves the buttons below it in sight where there is not."""
        return QSize(200, 104)

    def dropEvent(self, event: QDropEvent) -> None:
        """An object was dragged to another place in the order."""
        super().dropEvent(event)
        self._tell_order()

    def move_current(self, by: int) -> None:
        """Move the selected object up (1) or down (-1)."""
        row = self.indexOfTopLevelItem(self.currentItem())
        target = row - by
        if 0 <= target < self.topLevelItemCount():
            self.insertTopLevelItem(target, self.takeTopLevelItem(row))
            self._tell_order()

    def _tell_order(self) -> None:
        self._shown = ()
        rows = [self.topLevelItem(i).data(_COLOUR, _ID) for i in range(self.topLevelItemCount())]
        self.reordered.emit(rows[::-1])

    def _on_edited(self, item: QTreeWidgetItem, column: int) -> None:
        if column in (_NAME, _CLASS):
            self._shown = ()
            signal = self.renamed if column == _NAME else self.classed
            signal.emit(item.data(_COLOUR, _ID), item.text(column).strip())

    def _on_double_click(self, item: QTreeWidgetItem, column: int) -> None:
        if not item.flags() & Qt.ItemFlag.ItemIsEditable:
            return
        if column in (_NAME, _CLASS):
            self.editItem(item, column)
        elif column == _COLOUR:
            self._choose_colour(item)

    def _choose_colour(self, item: QTreeWidgetItem) -> None:
        object_id = item.data(_COLOUR, _ID)
        colour = QColorDialog.getColor(QColor(self._shown[1][object_id]), self, "Colour of the object")
        if colour.isValid():
            self.recoloured.emit(object_id, colour.name())

    def _on_menu(self, place: QPoint) -> None:
        item = self.itemAt(place)
        if item is None or not item.flags() & Qt.ItemFlag.ItemIsEditable:
            return
        menu = QMenu(self)
        menu.addAction("Rename", lambda: self.editItem(item, _NAME))
        menu.addAction("Class…", lambda: self.editItem(item, _CLASS))
        menu.addAction("Colour…", lambda: self._choose_colour(item))
        menu.addSeparator()
        menu.addAction("Up", lambda: self.move_current(1))
        menu.addAction("Down", lambda: self.move_current(-1))
        menu.exec(self.viewport().mapToGlobal(place))


def _size(volumes_ml: Mapping[int, float], object_id: int) -> str:
    size = volumes_ml.get(object_id)
    if size is None:
        return ""
    return f"{size:.0f} ml" if size >= 100 else f"{size:.1f} ml" if size >= 1 else f"{size:.2g} ml"
