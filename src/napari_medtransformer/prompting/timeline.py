"""A session's moments, its predictions, and the labels that follow from the two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from napari_medtransformer.prompting.history import History, SessionState, SliceState
from napari_medtransformer.prompting.labels import Masks, repaint
from napari_medtransformer.prompting.masks import PackedMask
from napari_medtransformer.prompting.prompts import Prompt, SliceKey
from napari_medtransformer.prompting.slice_model import PackedPrediction, Request


class Timeline:
    """The history of a session's states beside a store of predictions.

    A prediction is a function of a slice's prompts, so it is stored under them and belongs to no moment: undo finds it
    again, and one that arrives late is right for the moment that asked for it. The labels are repainted only on slices
    whose mask differs. labels: (z, y, x) uint16.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.labels = np.zeros(shape, np.uint16)
        self.revision = 0
        self.listeners: list[Callable[[], None]] = []
        self._history = History(SessionState())
        self._predictions: dict[tuple[SliceKey, tuple[Prompt, ...]], PackedPrediction] = {}

    @property
    def state(self) -> SessionState:
        """The present moment."""
        return self._history.present

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return self._history.can_undo

    @property
    def can_redo(self) -> bool:
        """Whether a step that was taken back can be done again."""
        return self._history.can_redo

    def push(self, state: SessionState) -> None:
        """Make one step."""
        before = self.masks()
        self._history.push(replace(state, step=self.state.step + 1))
        self._changed(before)

    def undo(self) -> None:
        """Take the last step back, if there is one."""
        self._walk(self._history.undo)

    def redo(self) -> None:
        """Do the step again that was taken back last, if there is one."""
        self._walk(self._history.redo)

    def restore(self, state: SessionState, predictions: dict[SliceKey, PackedPrediction]) -> None:
        """Begin with a state that was saved; predictions: of its slices' prompts."""
        before = self.masks()
        self._history = History(state)
        self._predictions = {(key, state.slices[key].given): packed for key, packed in predictions.items()}
        self._changed(before)

    def record(self, key: SliceKey, prompts: tuple[Prompt, ...], packed: PackedPrediction) -> bool:
        """Keep a prediction; whether it is of the slice's present prompts."""
        before = self.masks()
        self._predictions[key, prompts] = packed
        if self.slice(key).given != prompts:
            return False
        self._changed(before)
        return True

    def slice(self, key: SliceKey) -> SliceState:
        """The present state of a slice; an empty one if nothing is there."""
        return self.state.slices.get(key, SliceState())

    def prediction(self, key: SliceKey) -> PackedPrediction | None:
        """What was predicted for the present prompts of a slice."""
        return self._predictions.get((key, self.slice(key).given))

    def shown(self, key: SliceKey) -> tuple[Prompt, ...]:
        """The prompts whose prediction is shown on a slice now: older ones, while the present ones wait for theirs."""
        there = self.slice(key)
        return there.given if (key, there.given) in self._predictions else there.shown

    def pending(self) -> list[Request]:
        """A request for every slice whose prompts have no prediction yet."""
        return [
            Request(key, there.given, self.revision)
            for key, there in self.state.slices.items()
            if there.prompts and (key, there.given) not in self._predictions
        ]

    def masks(self) -> Masks:
        """The mask of every slice as it is to be shown now."""
        masks: dict[SliceKey, tuple[int, PackedMask]] = {}
        for key, there in self.state.slices.items():
            prediction = self._predictions.get((key, there.given))
            mask = there.propagated
            if prediction is not None:
                mask = prediction.masks[prediction.best if there.candidate is None else there.candidate]
            elif there.prompts:
                earlier = self._predictions.get((key, there.shown))
                mask = mask if earlier is None else earlier.masks[earlier.best]
            if mask is not None:
                masks[key] = (there.changed, mask)
        return masks

    def _walk(self, step: Callable[[], bool]) -> None:
        before = self.masks()
        if step():
            self._changed(before)

    def _changed(self, before: Masks) -> None:
        """Repaint what differs from `before`, and tell who listens."""
        after = self.masks()
        differing = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        planes = sorted({(key.axis, key.index) for key in differing})
        repaint(self.labels, after, [one.object_id for one in self.state.objects], planes)
        self.revision += 1
        for listener in list(self.listeners):
            listener()
