"""The list of objects: colour, name, millilitres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QColorDialog, QHeaderView, QTreeWidget, QTreeWidgetItem

from napari_medtransformer.plugin.icons import swatch

_COLOUR, _NAME, _VOLUME = range(3)
_ID = Qt.ItemDataRole.UserRole


class ObjectsList(QTreeWidget):
    """Objects from top to bottom as they lie over one another. Double-click a name to rename, a colour to change it."""

    selected = Signal(int)
    renamed = Signal(int, str)
    recoloured = Signal(int, str)

    def __init__(self) -> None:
        super().__init__()
        self.setColumnCount(3)
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
        header.setSectionResizeMode(_VOLUME, QHeaderView.ResizeMode.ResizeToContents)
        header.resizeSection(_COLOUR, 26)
        self.setMinimumHeight(54)
        self.setToolTip(
            "Prompts go to the selected object. Double-click its name or its colour to change them. N: next"
        )
        self._shown: tuple = ()
        self.currentItemChanged.connect(self._on_current)
        self.itemChanged.connect(self._on_edited)
        self.itemDoubleClicked.connect(self._on_double_click)

    def show_objects(
        self,
        objects: Sequence[tuple[int, str]],
        colours: Mapping[int, str],
        volumes_ml: Mapping[int, float],
        current: int,
    ) -> None:
        """objects: (id, name), the topmost last. volumes_ml: of those that have a mask."""
        shown = (tuple(objects), dict(colours), dict(volumes_ml), current)
        if shown == self._shown:
            return
        self._shown = shown
        self.blockSignals(True)
        self.clear()
        for object_id, name in reversed(objects):
            size = volumes_ml.get(object_id)
            item = QTreeWidgetItem(["", name or f"object {object_id}", "" if size is None else _millilitres(size)])
            item.setData(_COLOUR, _ID, object_id)
            item.setIcon(_COLOUR, swatch(colours[object_id]))
            item.setTextAlignment(_VOLUME, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
            item.setSizeHint(_NAME, QSize(0, 24))
            self.addTopLevelItem(item)
            if object_id == current:
                self.setCurrentItem(item)
        self.blockSignals(False)

    def _on_current(self, item: QTreeWidgetItem | None) -> None:
        if item is not None:
            self.selected.emit(item.data(_COLOUR, _ID))

    def _on_edited(self, item: QTreeWidgetItem, column: int) -> None:
        if column == _NAME:
            self._shown = ()
            self.renamed.emit(item.data(_COLOUR, _ID), item.text(_NAME).strip())

    def _on_double_click(self, item: QTreeWidgetItem, column: int) -> None:
        object_id = item.data(_COLOUR, _ID)
        if column == _NAME:
            self.editItem(item, _NAME)
        elif column == _COLOUR:
            colour = QColorDialog.getColor(QColor(self._shown[1][object_id]), self, "Colour of the object")
            if colour.isValid():
                self.recoloured.emit(object_id, colour.name())


def _millilitres(size: float) -> str:
    return f"{size:.0f} ml" if size >= 100 else f"{size:.1f} ml" if size >= 1 else f"{size:.2g} ml"
