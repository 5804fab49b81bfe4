"""Which model the Attention dock looks into: the one that answers clicks, or an automatic one over windows."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_medtransformer.models.card import ModelCard, WeightsSource
from napari_medtransformer.models.download import is_on_disk
from napari_medtransformer.models.registry import find_card, list_models, load_model
from napari_medtransformer.plugin.notify import report

if TYPE_CHECKING:
    from napari_medtransformer.models.base import AutomaticModel
    from napari_medtransformer.plugin.controller import SessionController
    from napari_medtransformer.plugin.work import Job


def automatic_cards() -> list[ModelCard]:
    """The automatic models that can be loaded at once: bundled, of the user's, or downloaded before."""
    return [
        card
        for card in list_models()
        if card.task == "automatic"
        and card.weights is not None
        and not (isinstance(card.weights, WeightsSource) and not is_on_disk(card))
    ]


class InspectedModel(QObject):
    """The choice. `model`: the automatic model that is looked into, None for the one that answers clicks."""

    changed = Signal()

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = weakref.ref(controller)
        self._job: Job | None = None
        self.name = ""  # of the automatic model that was chosen; empty for the one that answers clicks
        self.model: AutomaticModel | None = None
        self.fault = ""
        self._cards: list[ModelCard] | None = None
        controller.models.catalogue_changed.connect(self.look_again)

    @property
    def cards(self) -> list[ModelCard]:
        """The automatic models that can be chosen; looked up once, since this is asked at every move of the cursor."""
        if self._cards is None:
            self._cards = automatic_cards()
        return self._cards

    def look_again(self) -> None:
        """Models may have come or gone."""
        self._cards = None

    @property
    def is_automatic(self) -> bool:
        """Whether an automatic model was chosen, loaded or not."""
        return bool(self.name)

    @property
    def is_solid(self) -> bool:
        """Whether the automatic model sees three axes, not slices."""
        return self.model is not None and self.model.card.dimensions == 3

    @property
    def obstacle(self) -> str:
        """Why the chosen model cannot be looked into yet."""
        session = self._controller().session
        if not self.is_automatic and session is not None and session.in_3d:
            return (
                f"{session.model.card.name} answers in 3D, and what it attends to is not shown here yet; choose a "
                "model of slices, or an automatic one above."
            )
        if self.fault or not self.is_automatic or self.model is not None:
            return self.fault
        return f"Loading {self.name}…"

    def choose(self, name: str) -> None:
        """Look into this automatic model, "" for the one that answers clicks. An unknown name is a notification."""
        if name == self.name and not self.fault:
            return
        self.use(None)
        self.name = name
        controller = self._controller()
        if name and controller is not None:
            models = controller.models

            def load() -> Any:
                return load_model(find_card(name), None, models.device, dtype=models.dtype)

            self._job = controller.queue.submit(
                load, label=f"Loading {name}…", key="attention model", on_done=self._loaded, on_error=self._failed
            )
        self.changed.emit()

    def use(self, model: AutomaticModel | None) -> None:
        """Look into an automatic model that is loaded already; None for the one that answers clicks."""
        if self._job is not None:
            self._job.cancel()
            self._job = None
        self.model, self.fault = model, ""
        self.name = "" if model is None else model.card.name
        self.changed.emit()

    def _loaded(self, model: AutomaticModel) -> None:
        self._job, self.model = None, model
        self.changed.emit()

    def _failed(self, error: Exception) -> None:
        self._job, self.fault = None, f"{self.name} could not be loaded: {error}"
        report(error)
        self.changed.emit()
