"""Which models there are, and how a name becomes a model. torch is imported when a model is loaded, not before."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from napari_medtransformer.errors import (
    DuplicateModel,
    InvalidOption,
    MedTransformerError,
    UnknownModel,
    UnsupportedModel,
    in_words,
)
from napari_medtransformer.given import record, text, whole
from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.card_files import ENTRY_POINT_GROUP, card_from_dict, read_card
from napari_medtransformer.models.catalogue import CARDS
from napari_medtransformer.models.compilers import load_triton_apart
from napari_medtransformer.models.settings import read_settings, settings_path
from napari_medtransformer.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from napari_medtransformer.models.base import PromptableModel


_registered: dict[str, ModelCard] = {}


class Builder(Protocol):
    """What a card's `builder` names: makes the network of the card, filled with weights, ready to run.

    weights: the checkpoint's tensors by their published names, or None for random ones drawn from `seed`.
    Raises UnreadableWeights if they do not fit.
    """

    def __call__(
        self,
        card: ModelCard,
        weights: Mapping[str, Tensor] | None,
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> PromptableModel: ...


def register(card: ModelCard) -> None:
    """Add a model for the life of this process. Raises DuplicateModel if the name is taken, InvalidOption."""
    record(card, ModelCard, "a ModelCard")
    _cards([*_known(), card])
    _registered[card.name] = card


def unregister(name: str) -> None:
    """Take back what `register` added. Raises UnknownModel if it was not registered."""
    if text(name, "a model's name", UnknownModel) not in _registered:
        raise UnknownModel(f"no model {name!r} was registered; registered are: {', '.join(_registered) or 'none'}.")
    del _registered[name]


def list_models() -> list[ModelCard]:
    """Every model there is: this package's, those of installed packages, the user's own, and those registered.

    Packages add models by the entry-point group `napari_medtransformer.models`: a ModelCard, several of them, or a
    function that returns either. One that fails is left out with a warning, and so is a model of the user's own whose
    name is taken. Raises DuplicateModel where packages share a name.
    """
    return list(_cards(_known()).values())


def find_card(name: str) -> ModelCard:
    """The card of that name, or of a .json card's path. Raises UnknownModel with near matches and UnreadableFile."""
    if text(name, "a model's name", UnknownModel).lower().endswith(".json"):
        return read_card(Path(name).expanduser())
    cards = _cards(_known())
    if name in cards:
        return cards[name]
    near = difflib.get_close_matches(name.lower().replace("_", "-"), cards, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(cards)}."
    raise UnknownModel(f"no model {name!r}; {hint}")


def load_model(
    name: str | ModelCard,
    weights: str | Path | None = None,
    device: str = "auto",
    *,
    dtype: str = "auto",
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
    on_smaller: Callable[[str], None] | None = None,
) -> PromptableModel:
    """Load a model, ready to run.

    weights: None for the card's own (bundled, in the cache folder, or downloaded into it), a path to a checkpoint, or
    "random" for weights drawn from `seed`. device: "auto" (cuda, then mps, then cpu) or a torch device. dtype: what
    its matrix products run in, "float32", "bfloat16", "float16", or "auto" (half precision for large models where the
    device has units for it). on_progress: told about a download. Where memory does not suffice, now or later, a
    smaller plan is taken and on_smaller told, by default with a warning.
    Raises UnknownModel, UnreadableWeights, UnsupportedModel, InvalidOption, CannotWrite, OutOfMemory.
    """
    card = name if isinstance(name, ModelCard) else find_card(name)
    seed = whole(seed, "a seed", least=0, most=2**64 - 1)
    for told in (on_progress, on_smaller):
        if told is not None and not callable(told):
            raise InvalidOption(f"a function that is told, or None, was expected, not {in_words(told)}.")
    module, function = card.builder.split(":")
    load_triton_apart()
    try:
        build: Builder = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UnsupportedModel(f"{card.name} cannot be built here: {error}. Install what its family needs.") from error

    from napari_medtransformer.models.devices import choose_device, choose_dtype
    from napari_medtransformer.models.memory import Plan
    from napari_medtransformer.models.smaller import in_smaller_plans
    from napari_medtransformer.models.weights import find_weights, load_state

    chosen = choose_device(device)
    plan = Plan(chosen, choose_dtype(chosen, dtype, card))
    random = isinstance(weights, str) and weights == "random"
    state = None if random else load_state(find_weights(card, weights, on_progress))
    model = in_smaller_plans(
        f"loading {card.name}",
        plan,
        lambda plan: build(card, state, seed=seed, device=plan.device, dtype=plan.dtype),
        on_smaller,
    )
    model.on_smaller = on_smaller
    return model


def _known() -> list[ModelCard]:
    others = [*CARDS, *_from_packages()]
    return [*others, *_from_settings([*others, *_registered.values()]), *_registered.values()]


def _from_settings(others: Iterable[ModelCard]) -> list[ModelCard]:
    """The models that the user added from files; one that is damaged or whose name is taken is left out, and told."""
    by_name = {card.name: card for card in others}
    found = []
    for values in read_settings().added:
        try:
            card = card_from_dict(values)
        except MedTransformerError as error:
            warnings.warn(f"your model {values.get('name')!r} is left out: {error}", stacklevel=4)
            continue
        if card.name in by_name:
            warnings.warn(
                f"your model {card.name!r} ({card.title}) is left out: {by_name[card.name].title} has that name "
                f"already. Give it another in {settings_path()}.",
                stacklevel=4,
            )
            continue
        by_name[card.name] = card
        found.append(card)
    return found


def _cards(cards: Iterable[ModelCard]) -> dict[str, ModelCard]:
    """Cards by name. Raises DuplicateModel."""
    by_name: dict[str, ModelCard] = {}
    for card in cards:
        if card.name in by_name:
            raise DuplicateModel(
                f"two models are called {card.name!r}: {by_name[card.name].title!r} and {card.title!r}; rename one."
            )
        by_name[card.name] = card
    return by_name


def _from_packages() -> list[ModelCard]:
    found: list[ModelCard] = []
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        try:
            given = point.load()
            given = given if isinstance(given, ModelCard) or not callable(given) else given()
            cards = [given] if isinstance(given, ModelCard) else list(given)
            if not all(isinstance(card, ModelCard) for card in cards):
                raise MedTransformerError(f"it gives {given!r}, not a ModelCard or several")
        # Whatever another package raises must not take the other models from the user.
        except Exception as error:
            warnings.warn(f"the models of {point.value!r} are left out: {error}", stacklevel=3)
            continue
        found += cards
    return found
