"""The models there are, as a list that can be searched and filtered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QHeaderView,
    QLabel,
    QLineEdit,
    QSizePolicy,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_medtransformer.models.card import ModelCard, WeightsSource
from napari_medtransformer.models.download import begun_bytes, is_on_disk
from napari_medtransformer.models.search import ModelFilter, find_models, modalities_of
from napari_medtransformer.models.words import size_in_words
from napari_medtransformer.plugin.widgets.style import POSITIVE, QuietLabel, quiet_colour, row
from napari_medtransformer.progress import Progress

_TITLE, _TASK, _WEIGHTS = range(3)
_NAME = Qt.ItemDataRole.UserRole
_ROW_HEIGHT = 22
_TASKS = {"promptable": "clicks", "automatic": "automatic"}


class ModelList(QWidget):
    """Search box, filters and the models that pass them."""

    chosen = Signal(str)  # the name of the model to describe; empty if none is left
    activated = Signal(str)  # double-clicked

    def __init__(self, progress_of: Callable[[str], Progress | None]) -> None:
        super().__init__()
        self._progress_of = progress_of
        self._cards: list[ModelCard] = []
        self.search = QLineEdit()
        self.search.setPlaceholderText("Search: name, organ, family, licence…")
        self.search.setClearButtonEnabled(True)
        self.task = _combo(
            "Which kind of model", [("Any task", None), ("Clicks", "promptable"), ("Automatic", "automatic")]
        )
        self.modality = _combo("What it was trained on", [("Any image", None)])
        self.dimensions = _combo("Slice by slice, or whole blocks", [("2D and 3D", None), ("2D", 2), ("3D", 3)])
        self.on_disk = QCheckBox("On this computer")
        self.on_disk.setToolTip("Only models whose weights are here: they need no network")
        self.tree = QTreeWidget()
        self.tree.setHeaderLabels(["Model", "Task", "Weights"])
        self.tree.setRootIsDecorated(False)
        self.tree.setUniformRowHeights(True)
        self.tree.setStyleSheet(f"QTreeWidget::item {{ height: {_ROW_HEIGHT}px; }}")
        self.tree.setAlternatingRowColors(False)
        self.tree.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.tree.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        header = self.tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(_TITLE, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(_TASK, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(_WEIGHTS, QHeaderView.ResizeMode.ResizeToContents)
        self.none = QuietLabel("No model is like that. Loosen the filters, or add one from a file.")
        self.none.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.count: QLabel = QuietLabel()
        self.count.setWordWrap(False)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.search)
        layout.addLayout(row(self.task, self.modality, self.dimensions))
        layout.addWidget(self.tree, 1)
        layout.addWidget(self.none, 1)  # in the tree's place: nothing below it moves
        layout.addLayout(row(self.on_disk, None, self.count))

        self.search.textChanged.connect(self.refresh)
        for combo in (self.task, self.modality, self.dimensions):
            combo.activated.connect(self.refresh)
        self.on_disk.toggled.connect(self.refresh)
        self.tree.currentItemChanged.connect(self._on_current)
        self.tree.itemDoubleClicked.connect(lambda item, _: self.activated.emit(item.data(_TITLE, _NAME)))

    @property
    def filter(self) -> ModelFilter:
        """What the user looks for."""
        return ModelFilter(
            text=self.search.text(),
            task=self.task.currentData(),
            modality=self.modality.currentData(),
            dimensions=self.dimensions.currentData(),
            on_disk=self.on_disk.isChecked(),
        )

    @property
    def current(self) -> str:
        """The name of the selected model, empty if there is none."""
        item = self.tree.currentItem()
        return "" if item is None else item.data(_TITLE, _NAME)

    @property
    def names(self) -> list[str]:
        """The names of the models that are shown, from top to bottom."""
        return [self.tree.topLevelItem(i).data(_TITLE, _NAME) for i in range(self.tree.topLevelItemCount())]

    def show_cards(self, cards: Sequence[ModelCard], current: str = "") -> None:
        """List these models and select one of them."""
        self._cards = list(cards)
        kept = self.modality.currentData()
        self.modality.clear()
        for text, value in [("Any image", None), *((name, name) for name in modalities_of(cards))]:
            self.modality.addItem(text, value)
        self.modality.setCurrentIndex(max(0, self.modality.findData(kept)))
        self.refresh(current=current or self.current)

    def refresh(self, *_: object, current: str = "") -> None:
        """Show what passes the filters, and keep the selection where it does."""
        current = current or self.current
        shown = find_models(self._cards, self.filter)
        self.tree.blockSignals(True)
        self.tree.clear()
        for card in shown:
            item = QTreeWidgetItem([card.title, f"{_TASKS[card.task]}, {card.dimensions}D", ""])
            item.setData(_TITLE, _NAME, card.name)
            item.setToolTip(_TITLE, f"{card.name}: {card.description}")
            self.tree.addTopLevelItem(item)
            self._show_weights(item, card)
            if card.name == current:
                self.tree.setCurrentItem(item)
        if shown and self.tree.currentItem() is None:
            self.tree.setCurrentItem(self.tree.topLevelItem(0))
        self.tree.blockSignals(False)
        self.tree.setVisible(bool(shown))
        self.none.setVisible(not shown)
        self.count.setText(f"{len(shown)} of {len(self._cards)}")
        self.chosen.emit(self.current)

    def refresh_weights(self, name: str) -> None:
        """Show anew what is known of one model's weights."""
        cards = {card.name: card for card in self._cards}
        for i in range(self.tree.topLevelItemCount()):
            item = self.tree.topLevelItem(i)
            if item.data(_TITLE, _NAME) == name and name in cards:
                self._show_weights(item, cards[name])

    def _show_weights(self, item: QTreeWidgetItem, card: ModelCard) -> None:
        text, here = weights_state(card, self._progress_of(card.name))
        item.setText(_WEIGHTS, text)
        item.setForeground(_WEIGHTS, QColor(POSITIVE if here else quiet_colour()))
        item.setForeground(_TASK, QColor(quiet_colour()))

    def _on_current(self, *_: object) -> None:
        self.chosen.emit(self.current)


def weights_state(card: ModelCard, progress: Progress | None) -> tuple[str, bool]:
    """A model's weights in a word or two, and whether they are on this computer."""
    if progress is not None:
        return (f"{progress.done / progress.total:.0%}" if progress.total else "…"), False
    if is_on_disk(card):
        return "here", True
    if card.weights is None:
        return "none", False
    if not isinstance(card.weights, WeightsSource):
        return "file is gone", False
    size = "download" if card.weights.bytes is None else size_in_words(card.weights.bytes)
    begun = begun_bytes(card)
    if begun and card.weights.bytes:
        return f"{begun / card.weights.bytes:.0%} of {size}", False
    return size, False


def _combo(tip: str, choices: Sequence[tuple[str, object]]) -> QComboBox:
    combo = QComboBox()
    combo.setToolTip(tip)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    for text, value in choices:
        combo.addItem(text, value)
    return combo
