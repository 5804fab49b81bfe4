"""Cards as JSON, in files beside weights."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from napari_medtransformer.errors import UnreadableFile
from napari_medtransformer.files import write_text
from napari_medtransformer.models.card import InputContract, LabelInfo, ModelCard, WeightsSource

ENTRY_POINT_GROUP = "napari_medtransformer.models"
"""By which installed packages offer models."""


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
            f"this is no model card: {str(error).rstrip('.')}. A card is written beside weights when they are trained."
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
    """The card of a JSON file; its weights are the file it names, beside it.

    A file can come from anywhere, and loading its model calls what it names: only functions of this package and of
    those that offer models by an entry point are taken. Raises UnreadableFile.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnreadableFile(f"the card {path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise UnreadableFile(f"{path} is no model card but something else: it is no JSON ({error}).") from error
    if not isinstance(values, dict):
        raise UnreadableFile(f"the card {path} holds no named values; expected what training wrote beside the weights.")
    card = card_from_dict(values, path.parent)
    package = card.builder.partition(":")[0].partition(".")[0]
    offering = {point.value.partition(":")[0].partition(".")[0] for point in entry_points(group=ENTRY_POINT_GROUP)}
    if package not in {__name__.partition(".")[0], *offering}:
        raise UnreadableFile(
            f"the card {path} asks for {card.builder}, which is of no installed package that offers models; install "
            f"the one it comes from."
        )
    if not isinstance(card.weights, Path):
        beside = [path.with_suffix(ending) for ending in (".safetensors", ".pth", ".pt")]
        found = next((candidate for candidate in beside if candidate.is_file()), None)
        if found is None:
            raise UnreadableFile(f"the card {path} names no weights, and none lie beside it, such as {beside[0].name}.")
        card = replace(card, weights=found)
    return card
