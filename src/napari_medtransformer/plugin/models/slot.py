"""The model that is loaded, or being fetched or loaded, or that failed to load."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_medtransformer.models.card import ModelCard, WeightsSource
from napari_medtransformer.models.download import is_checked, is_on_disk, weights_path
from napari_medtransformer.models.registry import find_card, list_models, load_model
from napari_medtransformer.models.settings import read_settings
from napari_medtransformer.models.words import size_in_words
from napari_medtransformer.plugin.models.downloads import Downloads
from napari_medtransformer.plugin.notify import report, reported, warn
from napari_medtransformer.plugin.work import Job, WorkQueue

if TYPE_CHECKING:
    from napari_medtransformer.models.base import PromptableModel
    from napari_medtransformer.models.keeper import ModelKeeper

DEFAULT_MODEL = "medt-click-tiny"


def promptable_cards() -> list[ModelCard]:
    """The models that answer prompts on a slice, the default first."""
    cards = [card for card in list_models() if answers_prompts(card) and card.dimensions == 2]
    return sorted(cards, key=lambda card: card.name != DEFAULT_MODEL)


def answers_prompts(card: ModelCard) -> bool:
    """Whether a model answers prompts, on a slice or in 3D."""
    return card.task == "promptable"


class ModelSlot(QObject):
    """One model at a time. Fetching and loading run in workers; the newest wish wins.

    Models that were used before stay within the memory that the user grants them (Settings.kept_gb).
    """

    loaded = Signal()
    changed = Signal()  # also when fetching or loading starts, goes on or fails
    catalogue_changed = Signal()  # models were added or taken away
    _smaller = Signal(str)

    def __init__(self, queue: WorkQueue) -> None:
        super().__init__()
        self._queue = queue
        self._job: Job | None = None
        self._weights: str | Path | None = None
        self._keeper: ModelKeeper[PromptableModel] | None = None
        self.downloads = Downloads()
        self.downloads.changed.connect(self._on_download)
        self.downloads.fetched.connect(self._on_fetched)
        self.downloads.failed.connect(self._on_fetch_failed)
        self._fetching = ""  # the model that is loaded once it is there
        self.card: ModelCard | None = None
        self.model: PromptableModel | None = None
        self.device = "auto"
        self.dtype = "auto"
        self.fault = ""
        # Emitted in the worker when memory runs out, heard in the window's thread.
        self._smaller.connect(self._on_smaller)

    @property
    def loading(self) -> bool:
        """Whether a model is on its way."""
        return self._job is not None or bool(self._fetching)

    @property
    def fetching(self) -> str:
        """How far the download, or the check of a file that is here, is that is waited for, in words; empty if none."""
        progress = self.downloads.progress(self._fetching) if self._fetching else None
        if progress is None or self.card is None:
            return ""
        doing = "Checking" if is_on_disk(self.card) else "Fetching"
        if not progress.total:
            return f"{doing} {self.card.name}: {progress.message or 'connecting'}…"
        come = f"{size_in_words(progress.done)} of {size_in_words(progress.total)}"
        return f"{doing} {self.card.name}: {come}. Models… in the dock can cancel it."

    def load(self, name: str, *, weights: str | Path | None = None) -> None:
        """Load a model by name; weights as for `load_model`. An unknown name is a notification."""
        with reported():
            self.card = find_card(name)
            self._weights = weights
            self._start()

    def use(self, model: PromptableModel) -> None:
        """Take a model that is loaded already."""
        self._give_up()
        self.card, self.fault = model.card, ""
        self._done(model)

    def set_device(self, device: str) -> None:
        """Load the model anew on another device."""
        self.set_plan(device, self.dtype)

    def set_plan(self, device: str, dtype: str) -> None:
        """Load the model anew on another device or in another number format."""
        if (device, dtype) != (self.device, self.dtype):
            self.device, self.dtype = device, dtype
            if self.card is not None:
                self._start()
            else:
                self.changed.emit()

    def close(self) -> None:
        """Stop downloads."""
        self.downloads.close()

    def _start(self) -> None:
        card = self.card
        self._give_up()
        self.model, self.fault = None, ""
        if self._weights is None and isinstance(card.weights, WeightsSource) and not is_checked(card):
            self._fetching = card.name
            self.downloads.start(card)
            self.changed.emit()
        else:
            self._load()

    def _give_up(self) -> None:
        """Whatever is on its way shall not come."""
        self._fetching = ""
        if self._job is not None:
            self._job.cancel()
            self._job = None

    def _load(self) -> None:
        card, weights, device, dtype = self.card, self._weights, self.device, self.dtype
        # Checked just now, or before: where the cache is read-only nothing says so, and it would be hashed once more.
        file = weights_path(card.weights) if weights is None and isinstance(card.weights, WeightsSource) else weights

        def load() -> PromptableModel:
            # napari's layers import it when the first one is made; better now, in the worker, than at the first click.
            import_module("pandas")
            key = (card, str(weights), device, dtype)
            return self._kept().get(
                key, lambda: load_model(card, file, device, dtype=dtype, on_smaller=self._smaller.emit)
            )

        self._job = self._queue.submit(
            load,
            label=f"Loading {card.name}…",
            key="load model",
            on_done=self._done,
            on_error=self._failed,
        )
        self.changed.emit()

    def _kept(self) -> ModelKeeper[PromptableModel]:
        """The models that stay in memory, within what the settings grant; only the worker asks."""
        from napari_medtransformer.models.keeper import ModelKeeper

        budget = round(read_settings().kept_gb * 1e9)
        if self._keeper is None:
            self._keeper = ModelKeeper(budget)
        self._keeper.set_budget(budget)
        return self._keeper

    def _on_download(self, name: str) -> None:
        if name == self._fetching:
            if self.downloads.progress(name) is None:  # cancelled: those that end otherwise are told before
                self._fetching = ""
                self.fault = f"{name} was cancelled before its weights were here and checked; choose a model."
            self.changed.emit()

    def _on_fetched(self, name: str) -> None:
        if name == self._fetching:
            self._fetching = ""
            self._load()

    def _on_fetch_failed(self, name: str, error: Exception) -> None:
        if name == self._fetching:
            self._fetching = ""
            self._failed(error)
        else:
            report(error)

    def _done(self, model: PromptableModel) -> None:
        self._job, self.model = None, model
        self.loaded.emit()
        self.changed.emit()

    def _failed(self, error: Exception) -> None:
        self._job = None
        self.fault = f"{self.card.name} could not be loaded: {error}"
        report(error)
        self.changed.emit()

    def _on_smaller(self, message: str) -> None:
        warn(message[0].upper() + message[1:])
        self.changed.emit()
