"""Models from a user's files: which architecture a checkpoint has, and a card for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from napari_medtransformer.errors import UnreadableWeights
from napari_medtransformer.models.card import ModelCard, WeightsSource
from napari_medtransformer.models.card_files import read_card

_NOT_OURS = "that of the file's publisher"


def card_of_file(path: Path, cards: Sequence[ModelCard], *, base: ModelCard | None = None, name: str = "") -> ModelCard:
    """The card for a file of the user's: a .json card, or a checkpoint, whose tensors must fit an architecture here.

    cards: the models there are. base: the one whose architecture the checkpoint has; None tries those of the family
    that its tensors' names tell, likeliest first. name: what to call it, empty for the file's name; a name that is
    taken gets a number. Raises UnreadableFile and UnreadableWeights.
    """
    path = path.expanduser().resolve()
    taken = [card.name for card in cards]
    if path.suffix.lower() == ".json":
        card = read_card(path)
        return replace(card, name=_free_name(name or card.name, taken))
    tried = [base] if base is not None else cards_for_weights(path, cards)
    reasons = []
    for candidate in tried:
        card = own_card(path, candidate, taken, name)
        try:
            check_card(card)
        except UnreadableWeights as error:
            reasons.append(error)
        else:
            return card
    raise reasons[0]


def check_card(card: ModelCard) -> None:
    """Whether a card's weights fit its architecture: builds the network once. Raises UnreadableWeights."""
    from napari_medtransformer.models.registry import load_model

    load_model(card, device="cpu", dtype="float32")


def cards_for_weights(path: Path, cards: Sequence[ModelCard]) -> list[ModelCard]:
    """The cards whose architecture a checkpoint may be of, told by the names of its tensors, likeliest first.

    Reads the file (safely, see `weights.load_state`). Raises UnreadableWeights for a file that is no checkpoint or
    looks like no family there is a card of.
    """
    from napari_medtransformer.models.weights import guess_family, load_state

    family = guess_family(load_state(path))
    if family is None:
        raise UnreadableWeights(f"{path.name} looks like no family known here; its names fit none of them.")
    wanted = _plain(family.split("(")[0])
    alike = [card for card in cards if _plain(card.family) == wanted or wanted.endswith(f"-{_plain(card.family)}")]
    alike = alike or [card for card in cards if wanted.replace("-", "") == _plain(card.family).replace("-", "")]
    if not alike:
        raise UnreadableWeights(f"{path.name} looks like {family}, of which there is no model here.")
    size = path.stat().st_size

    def distance(card: ModelCard) -> float:
        known = card.weights.bytes if isinstance(card.weights, WeightsSource) else None
        return float("inf") if known is None else abs(known - size)

    return sorted(alike, key=distance)


def own_card(path: Path, base: ModelCard, taken: Sequence[str], name: str = "") -> ModelCard:
    """A card for the user's own weights in the architecture of `base`. taken: names that are in use.

    name: how it is to be called, empty for one made of the file's name.
    """
    return replace(
        base,
        name=_free_name(_plain(name or path.stem) or "model", taken),
        title=name or path.stem,
        weights=path.expanduser().resolve(),
        licence=_NOT_OURS,
        citation=f"{_NOT_OURS}; architecture: {base.citation}",
        description=f"Weights from {path.name}, added by you, in the architecture of {base.title}.",
        training="",
    )


def _free_name(wanted: str, taken: Sequence[str]) -> str:
    chosen, number = wanted, 2
    while chosen in taken:
        chosen, number = f"{wanted}-{number}", number + 1
    return chosen


def _plain(name: str) -> str:
    """A name in the letters of card names."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
