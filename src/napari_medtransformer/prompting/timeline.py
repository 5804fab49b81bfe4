"""A session's moments, its predictions, and the labels that follow from the two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from napari_medtransformer.prompting.history import History, Shelf
from napari_medtransformer.prompting.labels import Masks, repaint
from napari_medtransformer.prompting.masks import Packed, PackedBlock, PackedMask
from napari_medtransformer.prompting.prompts import Given, SliceKey
from napari_medtransformer.prompting.slice_model import Outcome, PackedPrediction, Request
from napari_medtransformer.prompting.state import SessionState, SliceState, StateStep

_HISTORY_BYTES = 256_000_000


class Timeline:
    """The history of a session's states beside a store of predictions.

    A prediction is a function of a slice's prompts and the model, so it is stored under them and belongs to no moment:
    undo finds it again, and one that arrives late is right for the moment that asked for it. The labels are repainted
    only on slices whose mask differs. labels: (z, y, x) uint16. voxels: how many each label has. revision grows with
    every change, painted with those alone that changed a label, steps_made with every step but those of undo and redo.
    model: the number of the model that answers now.
    budget_bytes: of memory for undo, and as much for predictions; what is older lies on disk.
    """

    def __init__(self, shape: tuple[int, int, int], budget_bytes: int = _HISTORY_BYTES) -> None:
        self.labels = np.zeros(shape, np.uint16)
        self.voxels: Counter[int] = Counter()
        self.revision = 0
        self.painted = 0
        self.model = 0
        self.steps_made = 0
        self.listeners: list[Callable[[], None]] = []
        self._budget = budget_bytes
        self._history: History[SessionState] = History(SessionState(), StateStep, budget_bytes)
        self._forget_predictions()

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

    @property
    def bytes_in_memory(self) -> int:
        """About how much memory undo and predictions take."""
        return self._history.bytes_in_memory + self._packed.bytes_in_memory

    def push(self, state: SessionState) -> None:
        """Make one step."""
        before, order = self.masks(), self.state.objects
        self._history.push(replace(state, step=self.state.step + 1))
        self.steps_made += 1
        self._changed(before, order != self.state.objects)

    def undo(self) -> None:
        """Take the last step back, if there is one."""
        self._walk(self._history.undo)

    def redo(self) -> None:
        """Do the step again that was taken back last, if there is one."""
        self._walk(self._history.redo)

    def restore(self, state: SessionState, predictions: dict[SliceKey, PackedPrediction]) -> None:
        """Begin with a state that was saved; predictions: of its slices' prompts."""
        before = self.masks()
        self._history = History(state, StateStep, self._budget)
        self._forget_predictions()
        for key, packed in predictions.items():
            there = state.slices[key]
            self._keep(key, there.asked(key), there.model, packed)
        self._changed(before, True)

    def record(self, outcome: Outcome) -> bool:
        """Keep a prediction; whether it is of the slice's present prompts."""
        key, prompts = outcome.request.key, outcome.request.prompts
        there = self.slice(key)
        fits = there.asked(key) == prompts and bool(prompts)
        # What an earlier model was to predict and never did, the present one does in its place.
        model = there.model if fits and there.model != self.model else outcome.request.model
        before = self.masks()
        self._keep(key, prompts, model, outcome.packed)
        if not fits or model != there.model:
            return False
        self._changed(before, False)
        return True

    def slice(self, key: SliceKey) -> SliceState:
        """The present state of a slice; an empty one if nothing is there."""
        return self.state.slices.get(key, SliceState())

    def prediction(self, key: SliceKey) -> PackedPrediction | None:
        """What was predicted for the present prompts of a slice."""
        there = self.slice(key)
        return self._predicted(key, there) if there.prompts else None

    def predictions(self) -> dict[SliceKey, PackedPrediction]:
        """What was predicted for the present prompts of every slice."""
        found = {key: self.prediction(key) for key in self.state.slices}
        return {key: packed for key, packed in found.items() if packed is not None}

    def mask(self, key: SliceKey) -> Packed | None:
        """The mask of a slice, or of an object's answer in 3D, as it is shown now; None where there is none."""
        there = self.slice(key)
        if there.edited is not None:
            return there.edited
        if not there.prompts:
            return there.propagated
        prediction = self._predicted(key, there)
        if prediction is None:
            return there.shown
        return prediction.masks[prediction.best if there.candidate is None else there.candidate]

    def slice_mask(self, key: SliceKey) -> PackedMask | None:
        """The mask of a slice as its own prompts, neighbours or edits made it; None where there is none."""
        mask = self.mask(key)
        return mask if isinstance(mask, PackedMask) else None

    def pending(self) -> list[Request]:
        """A request for every slice whose prompts have no prediction yet."""
        return [
            Request(key, there.asked(key), self.revision, model=self.model)
            for key, there in sorted(self.state.slices.items(), key=lambda item: item[0])
            if there.prompts and self._predicted(key, there) is None
        ]

    def masks(self) -> Masks:
        """The mask of every slice as it is to be shown now."""
        masks: dict[SliceKey, tuple[int, PackedMask]] = {}
        blocks: list[tuple[SliceKey, int, PackedBlock]] = []
        for key, there in self.state.slices.items():
            mask = self.mask(key)
            if isinstance(mask, PackedBlock):
                blocks.append((key, there.changed, mask))
            elif mask is not None:
                masks[key] = (there.changed, mask)
        for key, changed, block in blocks:  # an answer in 3D counts as masks of its axial slices
            for index, mask in enumerate(block.slices, start=block.start):
                on_slice = SliceKey(key.object_id, 0, index)
                if on_slice not in masks or masks[on_slice][0] < changed:
                    masks[on_slice] = (changed, mask)
        return masks

    def _predicted(self, key: SliceKey, there: SliceState) -> PackedPrediction | None:
        number = self._numbers.get((key, there.asked(key), there.model))
        return None if number is None else self._packed.get(number)

    def _keep(self, key: SliceKey, prompts: tuple[Given, ...], model: int, packed: PackedPrediction) -> None:
        if (key, prompts, model) not in self._numbers:
            number = self._numbers[key, prompts, model] = len(self._numbers)
            self._packed.put(number, packed)

    def _forget_predictions(self) -> None:
        self._numbers: dict[tuple[SliceKey, tuple[Given, ...], int], int] = {}
        self._packed: Shelf[PackedPrediction] = Shelf(lambda packed: packed.nbytes, self._budget)

    def _walk(self, step: Callable[[], bool]) -> None:
        before, order = self.masks(), self.state.objects
        if step():
            self._changed(before, order != self.state.objects)

    def _changed(self, before: Masks, order_changed: bool) -> None:
        """Repaint what differs from `before`, and tell who listens."""
        after = self.masks()
        differing = before.keys() | after.keys()
        if not order_changed:
            differing = {key for key in differing if before.get(key) != after.get(key)}
        planes = sorted({(key.axis, key.index) for key in differing})
        order = [one.object_id for one in self.state.objects]
        self.painted += repaint(self.labels, after, order, planes, self.voxels)
        self.revision += 1
        for listener in list(self.listeners):
            listener()
