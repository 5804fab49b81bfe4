"""The model that is loaded, or being loaded, or that failed to load."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.registry import find_card, list_models, load_model
from napari_medtransformer.plugin.notify import report, reported
from napari_medtransformer.plugin.work import Job, WorkQueue

if TYPE_CHECKING:
    from napari_medtransformer.models.base import PromptableModel

DEFAULT_MODEL = "medt-click-tiny"


def promptable_cards() -> list[ModelCard]:
    """The models that answer prompts on a slice, the default first."""
    cards = [card for card in list_models() if card.task == "promptable" and card.dimensions == 2]
    return sorted(cards, key=lambda card: card.name != DEFAULT_MODEL)


class ModelSlot(QObject):
    """One model at a time. Loading runs in the worker; the newest wish wins."""

    loaded = Signal()
    changed = Signal()  # also when loading starts or fails

    def __init__(self, queue: WorkQueue) -> None:
        super().__init__()
        self._queue = queue
        self._job: Job | None = None
        self._weights: str | Path | None = None
        self.card: ModelCard | None = None
        self.model: PromptableModel | None = None
        self.device = "auto"
        self.fault = ""

    @property
    def loading(self) -> bool:
        """Whether a model is on its way."""
        return self._job is not None

    def load(self, name: str, *, weights: str | Path | None = None) -> None:
        """Load a model by name; weights as for `load_model`. An unknown name is a notification."""
        with reported():
            self.card = find_card(name)
            self._weights = weights
            self._start()

    def use(self, model: PromptableModel) -> None:
        """Take a model that is loaded already."""
        self.card, self.fault = model.card, ""
        self._done(model)

    def set_device(self, device: str) -> None:
        """Load the model anew on another device."""
        if device != self.device:
            self.device = device
            if self.card is not None:
                self._start()

    def _start(self) -> None:
        card, weights, device = self.card, self._weights, self.device
        self.model, self.fault = None, ""

        def load() -> PromptableModel:
            # napari's layers import it when the first one is made; better now, in the worker, than at the first click.
            import_module("pandas")

            return load_model(card, weights, device)

        self._job = self._queue.submit(
            load,
            label=f"Loading {card.name}…",
            key="load model",
            on_done=self._done,
            on_error=self._failed,
        )
        self.changed.emit()

    def _done(self, model: PromptableModel) -> None:
        self._job, self.model = None, model
        self.loaded.emit()
        self.changed.emit()

    def _failed(self, error: Exception) -> None:
        self._job = None
        self.fault = f"{self.card.name} could not be loaded: {error}"
        report(error)
        self.changed.emit()
