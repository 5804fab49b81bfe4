"""Models from a user's files: which architecture a checkpoint has, a card for it, and those kept in the settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from napari_medtransformer.errors import DuplicateModel, UnknownModel, UnreadableFile, UnreadableWeights
from napari_medtransformer.models.card import ModelCard, WeightsSource
from napari_medtransformer.models.card_files import card_as_dict, card_from_dict, read_card
from napari_medtransformer.models.registry import list_models, load_model
from napari_medtransformer.models.settings import read_settings, write_settings

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


def remember(card: ModelCard) -> None:
    """Add a model to the user's settings, so that it is there in every session; one of theirs of that name is replaced.

    Raises DuplicateModel where another than theirs has the name, and CannotWrite.
    """
    other = next((one for one in list_models() if one.name == card.name and not is_own(one)), None)
    if other is not None:
        raise DuplicateModel(f"{card.name!r} is the name of {other.title!r} already; choose another.")
    settings = read_settings()
    others = tuple(values for values in settings.added if values.get("name") != card.name)
    write_settings(replace(settings, added=(*others, card_as_dict(card))))


def forget(name: str) -> None:
    """Take a model of the user's own out of the settings; its file stays. Raises UnknownModel, CannotWrite."""
    settings = read_settings()
    others = tuple(values for values in settings.added if values.get("name") != name)
    if len(others) == len(settings.added):
        raise UnknownModel(f"{name!r} was not added from a file; only such models can be taken away.")
    write_settings(replace(settings, added=others))


def is_own(card: ModelCard) -> bool:
    """Whether the user added this model from a file."""
    for values in read_settings().added:
        with suppress(UnreadableFile):
            if values.get("name") == card.name and card_from_dict(values) == card:
                return True
    return False


def _free_name(wanted: str, taken: Sequence[str]) -> str:
    chosen, number = wanted, 2
    while chosen in taken:
        chosen, number = f"{wanted}-{number}", number + 1
    return chosen


def _plain(name: str) -> str:
    """A name in the letters of card names."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
