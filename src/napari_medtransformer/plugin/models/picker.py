"""The picker: every model there is, what it needs, and bringing it onto this computer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QDialog, QFileDialog, QHBoxLayout, QSplitter, QVBoxLayout, QWidget

from napari_medtransformer.models.card import ModelCard, WeightsSource
from napari_medtransformer.models.download import begun_bytes, is_on_disk
from napari_medtransformer.models.memory import device_memory
from napari_medtransformer.models.own import card_of_file, forget, is_own, remember
from napari_medtransformer.models.registry import list_models
from napari_medtransformer.models.words import size_in_words
from napari_medtransformer.plugin.models.details import DEVICE_NAMES, ModelDetails
from napari_medtransformer.plugin.models.list_view import ModelList
from napari_medtransformer.plugin.models.settings import ModelSettings
from napari_medtransformer.plugin.models.slot import ModelSlot
from napari_medtransformer.plugin.notify import report, reported, tell
from napari_medtransformer.plugin.widgets.steady import CalmBar
from napari_medtransformer.plugin.widgets.style import GAP, QuietLabel, row, tool_button
from napari_medtransformer.plugin.work import WorkQueue
from napari_medtransformer.progress import Progress

_WEIGHTS_FILTER = "Model (*.safetensors *.pth *.pt *.bin *.json);;All files (*)"
_MEMORY_EVERY_MS = 2000


class ModelPicker(QDialog):
    """Finds, fetches, adds and chooses models for a slot. A window of its own beside the viewer; closing it stops
    nothing.

    accepts: which models the dock that asked can use. choose: what takes the chosen model's name, None for the slot.
    """

    def __init__(
        self,
        slot: ModelSlot,
        accepts: Callable[[ModelCard], bool],
        parent: QWidget | None = None,
        *,
        choose: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Models")
        self.setWindowFlag(Qt.WindowType.WindowMinMaxButtonsHint, True)
        self.slot, self._accepts = slot, accepts
        self._choose = choose or slot.load
        self._cards: dict[str, ModelCard] = {}
        self._shown = ""
        self._queue = WorkQueue()  # for reading files of the user's, beside the model that answers clicks
        self.list = ModelList(slot.downloads.progress)
        self.details = ModelDetails()
        self.settings = ModelSettings()
        self.settings.setVisible(False)
        self.progress = CalmBar()
        self.message = QuietLabel()
        self.message.setVisible(False)
        self._build()

        self.list.chosen.connect(self._show)
        self.list.activated.connect(lambda _: self.use.isEnabled() and self._use())
        self.details.device.activated.connect(self._set_plan)
        self.details.dtype.activated.connect(self._set_plan)
        self.settings.changed.connect(self.refresh)
        slot.downloads.changed.connect(self._on_download)
        slot.downloads.fetched.connect(lambda name: self._say(f"{name} is on this computer now."))
        slot.downloads.failed.connect(lambda name, error: self._say(f"{name}: {error}"))
        slot.changed.connect(self._show_plan)
        slot.catalogue_changed.connect(self.refresh)
        self._memory_timer = QTimer(self)
        self._memory_timer.setInterval(_MEMORY_EVERY_MS)
        self._memory_timer.timeout.connect(self._show_memory)
        self.finished.connect(self._memory_timer.stop)
        self.destroyed.connect(self._queue.close)
        self._queue.submit(_devices, label="", on_done=self._show_devices)
        self.refresh()
        self._show_plan()

    @property
    def card(self) -> ModelCard | None:
        """The model that is described."""
        return self._cards.get(self.list.current)

    def open_at(self, name: str = "") -> None:
        """Show the window with a model selected."""
        self.refresh(current=name)
        self._memory_timer.start()
        self.show()
        self.raise_()
        self.list.search.setFocus()

    def refresh(self, *, current: str = "") -> None:
        """Look anew at which models there are and what is on disk."""
        with reported():
            cards = list_models()
            self._cards = {card.name: card for card in cards}
            self.list.show_cards(cards, current)

    def add_file(self, path: str | Path) -> None:
        """Add a model from a checkpoint or a card; finding out which architecture it has runs in the worker."""
        path = Path(path)
        self._say(f"Looking at {path.name}: which architecture it has…")
        cards = list(self._cards.values())
        self._queue.submit(
            lambda: card_of_file(path, cards),
            label=f"Looking at {path.name}…",
            on_done=self._added,
            on_error=self._not_added,
        )

    # ------------------------------------------------------------------ building

    def _build(self) -> None:
        self.add = tool_button(
            "add", "A checkpoint, or the .json card beside one; it stays in the list", text="Add from a file…"
        )
        self.add.clicked.connect(self._choose_file)
        self.gear = tool_button(None, "Folder of weights, mirror, offline, memory", text="Settings", checkable=True)
        self.gear.toggled.connect(self.settings.setVisible)
        self.remove = tool_button("delete", "Take this model of yours out of the list; its file stays", text="Remove")
        self.remove.clicked.connect(self._remove)
        self.fetch = tool_button("save", "", text="Download")
        self.fetch.clicked.connect(lambda: self.slot.downloads.start(self.card))
        self.cancel = tool_button("clear", "Stop the download; what has come is kept", text="Cancel")
        self.cancel.clicked.connect(lambda: self.slot.downloads.cancel(self.list.current))
        self.use = tool_button(None, "", text="Use this model")
        self.use.clicked.connect(self._use)
        self.progress.setFixedHeight(22)

        left, right = QWidget(), QWidget()
        column = QVBoxLayout(left)
        column.setContentsMargins(0, 0, GAP, 0)
        column.addWidget(self.list, 1)
        column.addLayout(row(self.add, self.gear))
        column = QVBoxLayout(right)
        column.setContentsMargins(GAP, 0, 0, 0)
        column.addWidget(self.details, 1)
        column.addWidget(self.progress)
        column.addLayout(row(self.remove, self.fetch, self.cancel, self.use))
        split = QSplitter(Qt.Orientation.Horizontal)
        split.addWidget(left)
        split.addWidget(right)
        split.setSizes([480, 560])
        split.setChildrenCollapsible(False)
        layout = QVBoxLayout(self)
        layout.addWidget(split, 1)
        layout.addWidget(self.settings)
        foot = QHBoxLayout()
        foot.addWidget(self.message, 1)
        layout.addLayout(foot)
        self.resize(1040, 620)

    # ------------------------------------------------------------------ showing

    def _show(self, name: str) -> None:
        card = self._cards.get(name)
        if name != self._shown:  # what was said last was about another model
            self._say("")
            self._shown = name
        self.details.show_card(card)
        self._show_buttons()
        self._show_memory()

    def _show_buttons(self) -> None:
        card = self.card
        progress = None if card is None else self.slot.downloads.progress(card.name)
        source = card.weights if card is not None and isinstance(card.weights, WeightsSource) else None
        here = card is not None and is_on_disk(card)
        to_fetch = source is not None and not here and progress is None
        self.fetch.setVisible(to_fetch)
        self.cancel.setVisible(progress is not None)
        if progress is None:
            self.progress.tell(None)
        self.remove.setVisible(card is not None and is_own(card))
        if source is not None and to_fetch:
            begun = begun_bytes(card)
            rest = "" if source.bytes is None else f" {size_in_words(source.bytes - begun)}"
            self.fetch.setText(f"Resume{rest}" if begun else f"Download{rest}")
            self.fetch.setToolTip(f"From {source.url}")
        if progress is not None:
            total = progress.total or 0
            come = f"{size_in_words(progress.done)} of {size_in_words(total)}" if total else "connecting"
            said = come if progress.message.startswith("fetch") else progress.message or come
            share = round(1000 * progress.done / total) if total else 0
            self.progress.tell(Progress(share, 1000 if total else None, said))
        reason = self._reason_against(card)
        self.use.setEnabled(not reason)
        self.use.setText("Download and use" if to_fetch and not reason else "Use this model")
        self.use.setToolTip(reason or "Load it for the dock that asked")

    def _reason_against(self, card: ModelCard | None) -> str:
        if card is None:
            return "Select a model."
        if not self._accepts(card):
            other = "segments by itself" if card.task == "automatic" else "answers clicks"
            return f"This model {other} in {card.dimensions}D: choose it in the dock for that."
        if card.weights is None:
            return "It comes without weights: add yours from a file."
        return ""

    def _show_memory(self) -> None:
        device = self.slot.device
        if device == "auto":
            device = self.details.device.itemData(1) or "cpu"
        with reported():
            where = {"cpu": "this computer"}.get(device, DEVICE_NAMES.get(device, device))
            self.details.show_memory(self.card, device_memory(device), where)

    def _show_devices(self, devices: tuple[str, ...]) -> None:
        self.details.show_devices(devices)
        self._show_plan()

    def _show_plan(self) -> None:
        for combo, value in ((self.details.device, self.slot.device), (self.details.dtype, self.slot.dtype)):
            combo.setCurrentIndex(max(0, combo.findData(value)))
        self._show_buttons()

    def _say(self, text: str) -> None:
        self.message.setText(text)
        self.message.setVisible(bool(text))

    # ------------------------------------------------------------------ doing

    def _set_plan(self) -> None:
        self.slot.set_plan(self.details.device.currentData(), self.details.dtype.currentData())
        self._show_memory()

    def _use(self) -> None:
        self._choose(self.card.name)
        self._say(
            f"Loading {self.card.title} for the dock." if is_on_disk(self.card) else "It is used once it is here."
        )

    def _on_download(self, name: str) -> None:
        self.list.refresh_weights(name)
        if name == self.list.current:
            self._show_buttons()

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Add a model", "", _WEIGHTS_FILTER)
        if path:
            self.add_file(path)

    def _added(self, card: ModelCard) -> None:
        with reported():
            remember(card)
            self.list.search.clear()
            self.slot.catalogue_changed.emit()
            self.refresh(current=card.name)
            self._say(f"Added {card.title}, in the architecture {card.family} {card.architecture}.")

    def _not_added(self, error: Exception) -> None:
        self._say(str(error))
        report(error)

    def _remove(self) -> None:
        name = self.card.name
        with reported():
            forget(name)
            self.slot.catalogue_changed.emit()
            tell(f"{name} is no longer listed; its file was left where it is.")


def _devices() -> tuple[str, ...]:
    from napari_medtransformer.models.devices import available_devices

    return available_devices()
