"""Keeps Python's garbage collector from going through everything that is loaded while somebody works."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from napari_medtransformer.plugin.models.slot import ModelSlot

_SOMEBODY_ELSES = 10_000
"""As many objects set aside by others mean that they have a plan of their own."""


class Aside:
    """Sets objects aside that are there to stay, until something large may have gone. One for the process.

    A full collection visits every object. With napari and torch loaded that takes a quarter of a second, in whichever
    thread it falls, and the window stands still meanwhile. What is there once a model is loaded stays, nearly all of
    it; but a layer that is removed is freed by a collection that sees it. So everything is given back then, and set
    aside again after the next full collection.
    """

    def __init__(self) -> None:
        self._users = 0
        self._is_set = False
        self._again = False  # after the next full collection

    @property
    def is_set(self) -> bool:
        """Whether anything is set aside."""
        return self._is_set

    def begin(self) -> None:
        """Somebody begins to work; nothing is set aside yet."""
        self._users += 1
        if self._users == 1:
            gc.callbacks.append(self._collected)

    def end(self) -> None:
        """Who began has ended."""
        self._users -= 1
        if self._users == 0:
            gc.callbacks.remove(self._collected)
        self.give_back()
        self._again = self._again and self._users > 0

    def set(self) -> None:
        """Leave all that is there now out of collections, unless somebody else has done something like it."""
        if self._is_set or gc.get_freeze_count() < _SOMEBODY_ELSES:
            gc.freeze()
            self._is_set, self._again = True, False

    def give_back(self) -> None:
        """Something that may be large goes: the next collection sees everything."""
        if self._is_set:
            self._is_set, self._again = False, True
            gc.unfreeze()

    def _collected(self, phase: str, facts: dict[str, Any]) -> None:
        if phase == "stop" and facts["generation"] == 2 and self._again:
            self.set()


aside = Aside()


class Collecting:
    """What a viewer tells the collector: that a model was loaded, and that a layer goes. Held by its controller."""

    def __init__(self, viewer: Any, models: ModelSlot) -> None:
        self._viewer = weakref.ref(viewer)
        self._had_model = False
        models.loaded.connect(self._on_model)
        viewer.layers.events.removed.connect(self._on_removed)
        aside.begin()

    def detach(self) -> None:
        """The viewer is left as it was, or closes."""
        viewer = self._viewer()
        if viewer is not None:
            viewer.layers.events.removed.disconnect(self._on_removed)
        aside.end()

    def _on_model(self) -> None:
        if self._had_model:
            aside.give_back()  # the one before may be large
        else:
            aside.set()
        self._had_model = True

    def _on_removed(self, event: Any = None) -> None:
        aside.give_back()
