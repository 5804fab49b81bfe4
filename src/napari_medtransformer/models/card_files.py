"""Cards as JSON: files beside weights, and the models that a user keeps in the settings."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from napari_medtransformer.errors import DuplicateModel, UnknownModel, UnreadableFile
from napari_medtransformer.files import write_text
from napari_medtransformer.models.card import InputContract, LabelInfo, ModelCard, WeightsSource
from napari_medtransformer.models.settings import read_settings, write_settings


def card_as_dict(card: ModelCard) -> dict[str, Any]:
    """A card as plain values for JSON."""
    values = asdict(card)
    if isinstance(card.weights, Path):
        values["weights"] = {"file": str(card.weights)}
    return values


def card_from_dict(values: dict[str, Any], folder: Path | None = None) -> ModelCard:
    """The card that `card_as_dict` made plain. folder: where a relative weights file lies.

    Raises UnreadableFile for values that make no card.
    """
    try:
        given = {name: _hashable(value) for name, value in values.items()}
        given["input"] = InputContract(**{k: _hashable(v) for k, v in values["input"].items()})
        given["labels"] = tuple(
            LabelInfo(**{k: _hashable(v) for k, v in one.items()}) for one in values.get("labels", ())
        )
        weights = values.get("weights")
        if isinstance(weights, dict):
            if "file" in weights:
                path = Path(weights["file"]).expanduser()
                given["weights"] = path if folder is None or path.is_absolute() else folder / path
            else:
                given["weights"] = WeightsSource(**weights)
        return ModelCard(**given)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnreadableFile(
            f"this is no model card: {error}. A card is written beside weights when they are trained."
        ) from error


def _hashable(value: Any) -> Any:
    return tuple(_hashable(v) for v in value) if isinstance(value, list) else value


def write_card(card: ModelCard, path: Path) -> None:
    """Write a card beside its weights; their path is kept relative if they lie in one folder. Raises CannotWrite."""
    values = card_as_dict(card)
    if isinstance(card.weights, Path) and card.weights.parent.resolve() == path.parent.resolve():
        values["weights"] = {"file": card.weights.name}
    write_text(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def read_card(path: Path) -> ModelCard:
    """The card of a JSON file; its weights are the file it names, beside it. Raises UnreadableFile."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnreadableFile(f"the card {path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise UnreadableFile(f"{path} is no model card but something else: it is no JSON ({error}).") from error
    if not isinstance(values, dict):
        raise UnreadableFile(f"the card {path} holds no named values; expected what training wrote beside the weights.")
    card = card_from_dict(values, path.parent)
    if not isinstance(card.weights, Path):
        beside = [path.with_suffix(ending) for ending in (".safetensors", ".pth", ".pt")]
        found = next((candidate for candidate in beside if candidate.is_file()), None)
        if found is None:
            raise UnreadableFile(f"the card {path} names no weights, and none lie beside it, such as {beside[0].name}.")
        card = replace(card, weights=found)
    return card


def remember(card: ModelCard) -> None:
    """Add a model to the user's settings, so that it is there in every session; one of theirs of that name is replaced.

    Raises DuplicateModel where another than theirs has the name, and CannotWrite.
    """
    from napari_medtransformer.models.registry import list_models

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
