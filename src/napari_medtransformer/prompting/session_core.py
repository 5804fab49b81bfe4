"""The heart of a session: its state, its prompts and what is predicted from them, and undo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_medtransformer.errors import InvalidOption, InvalidPrompt, PointOutsideVolume, in_words
from napari_medtransformer.given import record, whole
from napari_medtransformer.models.base import PromptableModel, Prompts
from napari_medtransformer.models.volume_model import VolumePromptableModel
from napari_medtransformer.prompting.crop_model import CropModel
from napari_medtransformer.prompting.labels import composed_object, object_on_plane
from napari_medtransformer.prompting.masks import Packed, PackedBlock, PackedMask, unpacked
from napari_medtransformer.prompting.prompts import (
    IN_3D,
    BoxPrompt,
    LassoPrompt,
    MaskPrompt,
    PointPrompt,
    Prompt,
    ScribblePrompt,
    SliceKey,
    Zyx,
    check_key,
    check_prompt,
    check_slice,
    moved,
    triple,
)
from napari_medtransformer.prompting.slice_model import Outcome, Request, SliceModel
from napari_medtransformer.prompting.state import SessionObject, SessionState, SliceState
from napari_medtransformer.prompting.timeline import Timeline
from napari_medtransformer.volumes.numbers import numbers
from napari_medtransformer.volumes.volume import Volume


@dataclass(frozen=True, eq=False)
class Candidates:
    """The masks a model offers for one slice. masks: (m, H, W) bool; scores: (m,) expected IoU; chosen: which one.

    Of an answer in 3D, masks: (m, z, H, W), the slices that the model saw.
    """

    masks: np.ndarray
    scores: np.ndarray
    chosen: int


class SessionCore:
    """State, prompts, candidates and undo; PromptSession adds what is done to objects, masks and files."""

    _slices: SliceModel | CropModel
    _timeline: Timeline

    # What there is

    @property
    def model(self) -> PromptableModel | VolumePromptableModel:
        """The model that answers."""
        return self._slices.model

    @property
    def in_3d(self) -> bool:
        """Whether the model answers in 3D, whatever slices the prompts are on."""
        return self._slices.in_3d

    @property
    def volume(self) -> Volume:
        """The image."""
        return self._slices.volume

    @property
    def window(self) -> tuple[float, float]:
        """(low, high) of the intensities the model sees."""
        return self._slices.window

    @property
    def revision(self) -> int:
        """A number that grows with every change."""
        return self._timeline.revision

    @property
    def painted(self) -> int:
        """A number that grows with every change of the labels; prompts alone do not change them."""
        return self._timeline.painted

    @property
    def volumes_ml(self) -> dict[int, float]:
        """Millilitres of every object that has voxels, by its number: of what no other object lies on."""
        voxel = float(np.prod(self.volume.spacing)) / 1000
        return {number: voxel * count for number, count in sorted(self._timeline.voxels.items()) if count > 0}

    @property
    def state(self) -> SessionState:
        """The present state: immutable, comparable, and enough to be saved."""
        return self._timeline.state

    @property
    def objects(self) -> tuple[SessionObject, ...]:
        """The objects from the lowest to the one on top."""
        return self.state.objects

    @property
    def prompts(self) -> dict[int, Prompt]:
        """Every prompt by its number, oldest first."""
        return dict(sorted((n, p) for there in self.state.slices.values() for n, p in there.prompts))

    @property
    def live_labels(self) -> np.ndarray:
        """(z, y, x) uint16: a read-only view of the array that changes as the session does."""
        view = self._timeline.labels.view()
        view.flags.writeable = False
        return view

    @property
    def labels(self) -> np.ndarray:
        """(z, y, x) uint16: the objects as they are now; a read-only copy."""
        copy = self._timeline.labels.copy()
        copy.flags.writeable = False
        return copy

    def prompts_at(self, key: SliceKey) -> tuple[Prompt, ...]:
        """An object's prompts that are answered on a slice, or in 3D, oldest first."""
        return tuple(prompt for _, prompt in self._timeline.slice(check_key(key)).prompts)

    def slice_mask(self, key: SliceKey) -> np.ndarray:
        """(H, W) bool: one object on a slice, whatever lies on top of it. Raises PointOutsideVolume, InvalidPrompt."""
        check_slice(check_key(key), self.volume.shape)
        shape = self._slices.slice_shape(key.axis)
        return object_on_plane(self._timeline.masks(), key.object_id, key.axis, key.index, shape)

    def candidates(self, key: SliceKey) -> Candidates | None:
        """The masks the model offers for the prompts on a slice; None where nothing is predicted (yet)."""
        key = check_key(key)
        prediction, offered = self._timeline.prediction(key), self.candidate_scores(key)
        if prediction is None or offered is None:
            return None
        masks = np.stack([unpacked(m) if isinstance(m, PackedMask) else m.unpack() for m in prediction.masks])
        return Candidates(masks, np.array(offered[0], np.float32), offered[1])

    def candidate_scores(self, key: SliceKey) -> tuple[tuple[float, ...], int] | None:
        """The scores of those masks and which of them is chosen, without unpacking any."""
        key = check_key(key)
        prediction, there = self._timeline.prediction(key), self._timeline.slice(key)
        if prediction is None:
            return None
        return prediction.scores, prediction.best if there.candidate is None else there.candidate

    def pending(self) -> list[Request]:
        """A request for every slice whose prompts have no prediction yet, if the present model can give it."""
        return [request for request in self._timeline.pending() if request.key.in_3d == self.in_3d]

    def key_of(self, prompt: Prompt) -> SliceKey:
        """Where a prompt would be answered now: on its slice, or in 3D."""
        return self._slices.key_of(check_prompt(prompt))

    # Prompts, in three steps

    def add_prompt(self, prompt: Prompt) -> Request:
        """Add a prompt; its mask changes once the request's outcome is accepted.

        On a slice whose mask came from neighbours or from an edit, the prompt corrects that mask.
        Raises PointOutsideVolume or InvalidPrompt, and then nothing has changed.
        """
        self._check(prompt)
        prompt_id, key = self.state.next_prompt_id, self.key_of(prompt)
        self._timeline.push(self._with_prompt(self.state, prompt, prompt_id, key))
        return self._request(key, prompt_id)

    def request_with(self, prompt: Prompt) -> Request:
        """What `add_prompt` would ask with this prompt; nothing changes. For a preview."""
        key = self.key_of(prompt)
        there = self._with_prompt(self.state, prompt, self.state.next_prompt_id, key).slices[key]
        return Request(key, there.asked(key), self.revision, model=self._timeline.model)

    def remove_prompt(self, prompt_id: int) -> Request | None:
        """Remove a prompt; None if its slice has no other. Raises InvalidPrompt if there is no such prompt."""
        key, _ = self.state.find(prompt_id)
        shown = self._timeline.mask(key)
        self._timeline.push(self.state.without_prompt(prompt_id, shown, self._timeline.model))
        return self._request(key, prompt_id) if self._timeline.slice(key).prompts else None

    def move_prompt(self, prompt_id: int, prompt: Prompt) -> Request:
        """Put another prompt in the place of one; it keeps its number.

        Moved to another slice, the prompts left on the old one may be in `pending`. Errors as add_prompt's.
        """
        old, _ = self.state.find(prompt_id)
        self._check(prompt)
        state, model, key = self.state, self._timeline.model, self.key_of(prompt)
        if key == old:
            state = state.replaced(prompt_id, prompt, self._timeline.mask(old), model)
        else:
            state = state.without_prompt(prompt_id, self._timeline.mask(old), model)
            state = self._with_prompt(state, prompt, prompt_id, key)
        self._timeline.push(state)
        return self._request(key, prompt_id)

    def shift_prompt(self, prompt_id: int, by_zyx: Zyx) -> Request:
        """Move a prompt of any kind by voxels; strokes and masks by whole ones. Otherwise as move_prompt."""
        _, prompt = self.state.find(prompt_id)
        return self.move_prompt(prompt_id, moved(prompt, triple(by_zyx, "the voxels (z, y, x) to move by")))

    def predict(self, request: Request) -> Outcome:
        """Encode the slice if need be and decode the prompts. Changes nothing; may run in any thread."""
        return self._slices.predict(record(request, Request, "a Request, as add_prompt gives one", InvalidPrompt))

    def asked_of_model(self, key: SliceKey) -> Callable[[], Prompts] | None:
        """What a model of slices is given for an object's present prompts on a slice; None without any, or in 3D.

        A function, as a model that refines is given the mask before the last prompt too, and predicts it where it is
        not remembered. It may run in any thread.
        """
        given = self._timeline.slice(check_key(key)).given(key)
        slices = self._slices
        return None if isinstance(slices, CropModel) or not given else lambda: slices.prompts_for_model(key, given)

    def accept(self, outcome: Outcome) -> bool:
        """Take in a prediction; False if the slice has other prompts by now, and then nothing visible changes."""
        return self._timeline.record(record(outcome, Outcome, "an Outcome, as predict gives one", InvalidPrompt))

    # Prompts, at once

    def add_point(self, position_zyx: Zyx, positive: bool = True, object_id: int = 1, axis: int = 0) -> int:
        """Click at a voxel of a slice across `axis`, predict and accept. Returns the prompt's number."""
        return self._at_once(PointPrompt(position_zyx, positive, object_id, axis))

    def add_box(self, start_zyx: Zyx, stop_zyx: Zyx, object_id: int = 1, axis: int = 0) -> int:
        """Draw a box on a slice, half-open within it, predict and accept. Returns the prompt's number.

        Of several boxes of an object on one slice the last one counts.
        """
        return self._at_once(BoxPrompt(start_zyx, stop_zyx, object_id, axis))

    def add_scribble(self, pixels: np.ndarray, axis: int, index: int, positive: bool = True, object_id: int = 1) -> int:
        """Paint a stroke, given as the (H, W) bool pixels of a slice, predict and accept. Returns the prompt's number.

        What was painted is in the mask (positive), or out of it, whatever the model thinks.
        """
        stroke = PackedMask.pack(_slice_of(pixels, "a stroke"))
        return self._at_once(ScribblePrompt(stroke, index, positive, object_id, axis))

    def add_lasso(self, vertices_zyx: Sequence[Zyx], positive: bool = True, object_id: int = 1, axis: int = 0) -> int:
        """Draw an outline around the object, or around what is not (all of that is taken out of the mask).

        vertices_zyx: at least three on one slice. Predicts and accepts. Returns the prompt's number.
        """
        return self._at_once(LassoPrompt(vertices_zyx, positive, object_id, axis))

    def add_mask(self, mask: np.ndarray, axis: int, index: int, object_id: int = 1) -> int:
        """Give a (H, W) bool mask of a slice to refine, predict and accept. Returns the prompt's number."""
        return self._at_once(MaskPrompt(PackedMask.pack(_slice_of(mask, "a mask prompt")), index, object_id, axis))

    def predict_pending(self) -> None:
        """Predict and accept whatever is pending."""
        for request in self.pending():
            self.accept(self.predict(request))

    # The model's other masks

    def choose_candidate(self, key: SliceKey, candidate: int) -> None:
        """Show another of the model's masks on a slice. Raises InvalidPrompt if there is none of that number."""
        offered = self._timeline.prediction(check_key(key))
        candidate = whole(candidate, "a mask's number", InvalidPrompt)
        if offered is None or not 0 <= candidate < len(offered.masks):
            there = "nothing is predicted" if offered is None else f"there are masks 0 to {len(offered.masks) - 1}"
            raise InvalidPrompt(f"mask {candidate} cannot be chosen on slice {key.index} of axis {key.axis}: {there}.")
        changed = replace(self.state.slices[key], candidate=candidate, edited=None, changed=self.state.step + 1)
        self._timeline.push(self.state.with_slices({key: changed}))

    def cycle_candidate(self, key: SliceKey) -> None:
        """Show the next of the model's masks on a slice, the first after the last."""
        offered = self.candidate_scores(key)
        if offered is None:
            raise InvalidPrompt(f"nothing is predicted on slice {key.index} of axis {key.axis} yet.")
        self.choose_candidate(key, (offered[1] + 1) % len(offered[0]))

    # Undo

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return self._timeline.can_undo

    @property
    def can_redo(self) -> bool:
        """Whether a step that was taken back can be done again."""
        return self._timeline.can_redo

    def undo(self) -> list[Request]:
        """Take the last step back; nothing happens at the beginning. Returns what is still to be predicted."""
        self._timeline.undo()
        return self.pending()

    def redo(self) -> list[Request]:
        """Do the step again that was taken back last. Returns what is still to be predicted."""
        self._timeline.redo()
        return self.pending()

    # For the canvas

    def subscribe(self, callback: Callable[[Any], None]) -> Callable[[], None]:
        """Call `callback(session)` after every change, in the thread that made it; returns how to stop that."""
        if not callable(callback):
            raise InvalidOption(
                f"what is called after every change is a function of a session, not {in_words(callback)}."
            )
        listeners = self._timeline.listeners

        def tell() -> None:
            callback(self)

        listeners.append(tell)

        def unsubscribe() -> None:
            if tell in listeners:
                listeners.remove(tell)

        return unsubscribe

    def _request(self, key: SliceKey, prompt_id: int) -> Request:
        return Request(key, self._timeline.slice(key).asked(key), self.revision, prompt_id, self._timeline.model)

    def _with_prompt(self, state: SessionState, prompt: Prompt, prompt_id: int, key: SliceKey) -> SessionState:
        """The state with one more prompt; a mask that no prompts made is corrected by it."""
        there = state.slices.get(key, SliceState())
        if key.in_3d:
            later = self._block_to_correct(key, there)
            base, shown = (there.base, self._timeline.mask(key)) if later is None else (later, later)
        else:
            shown = self._mask_on(key)
            base = there.base if there.prompts and there.edited is None else shown
        return state.with_prompt(prompt, prompt_id, key, shown, base, self._timeline.model)

    def _mask_on(self, key: SliceKey) -> Packed | None:
        """An object's mask on a slice, be it a part of an answer in 3D."""
        if SliceKey(key.object_id, IN_3D, 0) not in self.state.slices:
            return self._timeline.mask(key)
        found = self._timeline.masks().get(key)
        return None if found is None else found[1]

    def _block_to_correct(self, key: SliceKey, there: SliceState) -> PackedBlock | None:
        """What prompts in 3D correct: the object as edits, imports or propagation left it since the last of them."""
        if not any(
            one.changed > there.changed and (one.edited is not None or (one.propagated is not None and not one.prompts))
            for one in self.state.of_object(key.object_id).values()
        ):
            return None
        masks = {one: m for one, m in self._timeline.masks().items() if one.object_id == key.object_id}
        composed = composed_object(masks, self.volume.shape)
        found = np.flatnonzero(composed.any(axis=(1, 2)))
        if not len(found):
            return None
        first, last = int(found[0]), int(found[-1])
        return PackedBlock.pack(composed[first : last + 1], (first, 0, 0), self.volume.shape)

    def _at_once(self, prompt: Prompt) -> int:
        request = self.add_prompt(prompt)
        self.accept(self.predict(request))
        return request.prompt_id or 0

    def _check(self, prompt: Prompt) -> None:
        """Raises PointOutsideVolume or InvalidPrompt for a prompt that this volume cannot take."""
        shape = self.volume.shape
        check_slice(check_prompt(prompt).key, shape)
        if isinstance(prompt, PointPrompt):
            z, y, x = prompt.position_zyx
            if not all(-0.5 <= p < n - 0.5 for p, n in zip(prompt.position_zyx, shape)):
                raise PointOutsideVolume(
                    f"the point ({z:g}, {y:g}, {x:g}) lies outside the volume of {shape} voxels (z, y, x)."
                )
        self._slices.check(prompt)

    def _check_object(self, object_id: int) -> None:
        object_id = whole(object_id, "an object's number", InvalidPrompt)
        if all(one.object_id != object_id for one in self.objects):
            there = ", ".join(str(one.object_id) for one in self.objects) or "none yet"
            raise InvalidPrompt(f"there is no object {object_id}; there are: {there}.")

    def _busiest_axis(self, object_id: int, prompted: bool) -> int:
        """The axis across which most slices of an object have prompts, or masks; 0 if none has."""
        slices = self.state.of_object(object_id).items()
        counts = [
            sum(key.axis == a and (bool(there.prompts) or not prompted) for key, there in slices) for a in (0, 1, 2)
        ]
        return counts.index(max(counts))


def _slice_of(mask: np.ndarray, what: str) -> np.ndarray:
    mask = numbers(mask, what, InvalidPrompt)
    if mask.ndim != 2:
        raise InvalidPrompt(f"{what} is one slice (H, W), not an array of shape {mask.shape}.")
    return mask
