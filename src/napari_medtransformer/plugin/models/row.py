"""The row of a dock in which its model is chosen: the quick choice, the picker, weights of one's own."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QMenu, QToolButton, QVBoxLayout, QWidget

from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.registry import list_models
from napari_medtransformer.plugin.models.picker import ModelPicker
from napari_medtransformer.plugin.models.slot import DEFAULT_MODEL, ModelSlot
from napari_medtransformer.plugin.status import card_tooltip, describe_card
from napari_medtransformer.plugin.widgets.choices import Choice
from napari_medtransformer.plugin.widgets.style import QuietLabel, row, tool_button

_WEIGHTS_FILTER = "Weights (*.safetensors *.pth *.pt *.bin);;All files (*)"
_UNBROKEN_HYPHEN = "\N{NON-BREAKING HYPHEN}"  # "BSD-3-Clause" is one word


class ModelRow(QWidget):
    """Combo box, button of the picker, menu of weights, and a line about the model that is loaded.

    accepts: which models the dock can use.
    """

    def __init__(self, slot: ModelSlot, accepts: Callable[[ModelCard], bool]) -> None:
        super().__init__()
        self.slot, self._accepts = slot, accepts
        self.picker: ModelPicker | None = None
        self.combo = Choice(letters=8)
        self.combo.activated.connect(lambda: slot.load(self.combo.currentData()))
        self.pick = tool_button("zoom", "All models: search, download, memory, licences, your own files")
        self.pick.clicked.connect(self.open_picker)
        self.more = tool_button("more", "Weights from a file, or random ones to try an architecture out")
        menu = QMenu(self.more)
        menu.addAction("The model's own weights", lambda: slot.load(self.combo.currentData()))
        menu.addAction("Weights from a file…", self._choose_weights)
        menu.addAction("Random weights (to try out)", lambda: slot.load(self.combo.currentData(), weights="random"))
        self.more.setMenu(menu)
        self.more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.line = QuietLabel()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.combo)  # the whole width: names are long
        layout.addLayout(row(self.line, self.pick, self.more))
        slot.changed.connect(self.refresh)
        slot.catalogue_changed.connect(self.fill)
        self.fill()

    def fill(self) -> None:
        """List the models that the dock can use, the default first."""
        cards = sorted(filter(self._accepts, list_models()), key=lambda card: card.name != DEFAULT_MODEL)
        self.combo.clear()
        for place, card in enumerate(cards):
            self.combo.addItem(card.title, card.name)
            self.combo.setItemData(place, card_tooltip(card), Qt.ItemDataRole.ToolTipRole)
        self.refresh()

    def refresh(self) -> None:
        """Show the model that is chosen and how it is doing."""
        slot = self.slot
        if slot.card is None:
            return
        self.combo.setCurrentIndex(self.combo.findData(slot.card.name))
        self.combo.setToolTip(card_tooltip(slot.card))
        text = slot.fetching or (
            "Loading…" if slot.loading else "Not loaded" if slot.fault else describe_card(slot.card)
        )
        self.line.setText(text.replace("-", _UNBROKEN_HYPHEN))
        self.line.setToolTip(slot.fault)

    def open_picker(self) -> None:
        """Show the picker beside the viewer."""
        if self.picker is None:
            self.picker = ModelPicker(self.slot, self._accepts, self.window())
        self.picker.open_at(self.combo.currentData() or "")

    def _choose_weights(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Weights of the model", "", _WEIGHTS_FILTER)
        if path:
            self.slot.load(self.combo.currentData(), weights=path)
