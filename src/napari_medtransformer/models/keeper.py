"""Models that were loaded stay for a while, so that choosing one again is quick; the longest unused go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from torch import nn


class HasNetwork(Protocol):
    """What is kept: anything around a network."""

    network: nn.Module


M = TypeVar("M", bound=HasNetwork)


class ModelKeeper(Generic[M]):
    """Keeps models within a budget of memory, the most recently used ones longest.

    budget_bytes: what all models together may take; the one used last stays in any case. What counts is the size of
    parameters and buffers. Not safe for several threads at once.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._models: OrderedDict[Hashable, M] = OrderedDict()

    def __len__(self) -> int:
        return len(self._models)

    @property
    def used_bytes(self) -> int:
        """What the models that are kept take."""
        return sum(network_bytes(model.network) for model in self._models.values())

    def get(self, key: Hashable, load: Callable[[], M]) -> M:
        """The model of that key, loaded if it is not kept. Room is made after loading, when its size is known."""
        model = self._models.get(key)
        if model is None:
            model = load()
            self._models[key] = model
        self._models.move_to_end(key)
        self._make_room()
        return model

    def holds(self, key: Hashable) -> bool:
        """Whether the model of that key is kept."""
        return key in self._models

    def drop(self, key: Hashable) -> None:
        """Forget a model; one that is not kept is no mistake."""
        self._models.pop(key, None)

    def set_budget(self, budget_bytes: int) -> None:
        """Change the budget, and drop what is beyond it."""
        self.budget_bytes = budget_bytes
        self._make_room()

    def _make_room(self) -> None:
        while len(self._models) > 1 and self.used_bytes > self.budget_bytes:
            self._models.popitem(last=False)


def network_bytes(network: nn.Module) -> int:
    """The size of a network's parameters and buffers; one under two names counts once."""
    tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
