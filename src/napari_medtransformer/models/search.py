"""Finding a model among many: by words, task, modality, dimensions, and what is on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from napari_medtransformer.models.card import ModelCard, Task
from napari_medtransformer.models.download import is_on_disk


@dataclass(frozen=True)
class ModelFilter:
    """What a model must be to be shown. text: words that must all occur in its card. None: anything."""

    text: str = ""
    task: Task | None = None
    modality: str | None = None
    dimensions: int | None = None
    on_disk: bool = False

    def keeps(self, card: ModelCard) -> bool:
        """Whether a card is shown. A model trained on no modality in particular is shown for none."""
        return (
            (self.task is None or card.task == self.task)
            and (self.modality is None or self.modality in card.modalities)
            and (self.dimensions is None or card.dimensions == self.dimensions)
            and all(word in searchable(card) for word in self.text.lower().split())
            and (not self.on_disk or is_on_disk(card))
        )


def find_models(cards: Iterable[ModelCard], wanted: ModelFilter) -> list[ModelCard]:
    """The cards that a filter keeps, in their order."""
    return [card for card in cards if wanted.keeps(card)]


def searchable(card: ModelCard) -> str:
    """All words of a card that a person may look for, in lower case."""
    words: Sequence[str] = (
        card.name,
        card.title,
        card.family,
        card.architecture,
        card.task,
        f"{card.dimensions}d",
        *card.modalities,
        *card.anatomy,
        *(label.name for label in card.labels),
        card.description,
        card.training,
        card.licence,
        card.citation,
    )
    return " ".join(words).lower()


def modalities_of(cards: Iterable[ModelCard]) -> list[str]:
    """Every modality that some model was trained on; CT and MR first, then by name."""
    found = {modality for card in cards for modality in card.modalities}
    return sorted(found, key=lambda name: (name not in ("CT", "MR"), name.lower()))
