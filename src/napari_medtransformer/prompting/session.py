"""One volume, many objects, every prompt: the session behind the Prompt dock and `medtransformer click`.

All coordinates are voxels in (z, y, x), an integer is a voxel's centre, boxes are half-open. A prediction is made for
one object on one slice (a `SliceKey`: object, axis, index) from all of that object's prompts on it.

Synchronously (tests, scripts, the command line)::

    session = PromptSession(model, volume)                      # window=(low, high) to override the automatic one
    prompt_id = session.add_point((z, y, x), positive=True, object_id=1, axis=0)    # encodes, predicts, accepts
    prompt_id = session.add_box((z, y0, x0), (z, y1, x1), object_id=1, axis=0)
    prompt_id = session.add_mask(mask, axis=0, index=z, object_id=1)                # refine an existing label
    session.labels                                              # (z, y, x) uint16, a read-only snapshot

With a window that must not freeze, the same in three steps::

    request = session.add_prompt(PointPrompt((z, y, x), positive=True, object_id=1, axis=0))   # main thread, instant
    outcome = session.predict(request)      # any thread; changes no state; encodes the slice if it is not cached
    session.accept(outcome)                 # main thread; False, and nothing changes, if it has become stale

`request` is None when there is nothing to predict (the last prompt of a slice was removed: its mask is gone already).
`request.prompt_id` names the prompt added, moved or removed. A stale outcome is one whose slice has other prompts by
now; it is remembered, so that undo back to those prompts needs no new prediction.

    session.remove_prompt(prompt_id) -> Request | None
    session.move_prompt(prompt_id, new_prompt) -> Request | None
    session.prompts                         # dict {prompt_id: PointPrompt | BoxPrompt | MaskPrompt}, oldest first
    session.choose_candidate(key, n) / session.cycle_candidate(key)      # the model's other masks; instant
    session.candidates(key) -> Candidates | None       # .masks (m, H, W) bool, .scores (m,), .chosen
    session.pending() -> list[Request]      # slices whose prediction is missing (after undo, or dropped ones)
    session.predict_pending()               # the same, synchronously

Objects. `session.objects` is a tuple of `SessionObject(object_id, name)`; later ones lie on top. An object
is there from its first prompt on, or from
    session.new_object(name="") -> object_id; session.rename_object(object_id, name);
    session.remove_object(object_id); session.clear_object(object_id) (prompts and masks go, the object stays)

Undo. `session.undo()` and `session.redo()` return the list of Requests still to be predicted (normally empty), and do
nothing at the end of the history; `session.can_undo`, `session.can_redo`. Every call above that changes something is
one step. `accept` is no step of its own: it fills in the step that asked for it.

For the canvas: `session.live_labels` is a read-only view of the array in which the session works: give it to the layer
once and refresh after each change. `session.revision` grows with every change; `session.subscribe(callback)` calls
`callback(session)` after each, in the thread that made it; it returns a function that unsubscribes.
`session.slice_mask(key)` is one object's (H, W) bool mask on a slice.

    session.prefetch(axis, indices)         # generator of Progress: encode slices ahead, any thread
    session.propagate(object_id=1)          # generator of Progress | Partial[PropagatedSlice] | Result[Propagation];
                                            # the masks are in the session, as one step, when the Result is yielded
    session.propagation_steps(object_id=1)  # the same for a worker thread: changes no state;
    session.accept_propagation(value)       # does, in the main thread; False if the prompts changed meanwhile
    session.save(path); PromptSession.load(path, model, volume)

Errors: PointOutsideVolume, InvalidPrompt, UnsupportedModel (the model takes no clicks), InvalidSession, CannotWrite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from os import PathLike

import numpy as np

from napari_medtransformer.errors import InvalidPrompt, PointOutsideVolume
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.progress import Progress, Result, Steps
from napari_medtransformer.prompting.history import SessionObject, SessionState, SliceState
from napari_medtransformer.prompting.labels import object_on_plane
from napari_medtransformer.prompting.masks import PackedMask, unpacked
from napari_medtransformer.prompting.prompts import BoxPrompt, MaskPrompt, PointPrompt, Prompt, SliceKey
from napari_medtransformer.prompting.propagation import Propagation, Seed, follow
from napari_medtransformer.prompting.slice_model import Outcome, Request, SliceModel
from napari_medtransformer.prompting.storage import read_session, write_session
from napari_medtransformer.prompting.timeline import Timeline
from napari_medtransformer.volumes.volume import Volume

_EMBEDDINGS_BYTES = 1_000_000_000  # about 300 slices of the bundled model, 240 of SAM

Zyx = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Candidates:
    """The masks a model offers for one slice. masks: (m, H, W) bool; scores: (m,) expected IoU; chosen: which one."""

    masks: np.ndarray
    scores: np.ndarray
    chosen: int


class PromptSession:
    """One volume, one promptable model, many objects; see the module's docstring for how it is used.

    volume: the image. window: (low, high) of the intensities the model sees; None takes the volume's own.
    embeddings_bytes: how much memory encoded slices may keep. Raises UnsupportedModel for a model without prompts.
    """

    def __init__(
        self,
        model: PromptableModel,
        volume: Volume,
        window: tuple[float, float] | None = None,
        embeddings_bytes: int = _EMBEDDINGS_BYTES,
    ) -> None:
        self._slices = SliceModel(model, volume, window, embeddings_bytes)
        self._timeline = Timeline(volume.shape)

    # What there is

    @property
    def model(self) -> PromptableModel:
        """The model that answers."""
        return self._slices.model

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
        return dict(sorted(one for there in self.state.slices.values() for one in there.prompts))

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

    def slice_mask(self, key: SliceKey) -> np.ndarray:
        """(H, W) bool: one object on a slice, whatever lies on top of it."""
        shape = self._slices.slice_shape(key.axis)
        return object_on_plane(self._timeline.masks(), key.object_id, key.axis, key.index, shape)

    def candidates(self, key: SliceKey) -> Candidates | None:
        """The masks the model offers for the prompts on a slice; None where nothing is predicted (yet)."""
        prediction, there = self._timeline.prediction(key), self._timeline.slice(key)
        if prediction is None:
            return None
        masks = np.stack([unpacked(mask) for mask in prediction.masks])
        chosen = prediction.best if there.candidate is None else there.candidate
        return Candidates(masks, np.array(prediction.scores, np.float32), chosen)

    def pending(self) -> list[Request]:
        """A request for every slice whose prompts have no prediction yet."""
        return self._timeline.pending()

    # Prompts, in three steps

    def add_prompt(self, prompt: Prompt) -> Request:
        """Add a prompt; its mask changes once the request's outcome is accepted.

        Raises PointOutsideVolume or InvalidPrompt, and then nothing has changed.
        """
        self._check(prompt)
        prompt_id = self.state.next_prompt_id
        self._timeline.push(self.state.with_prompt(prompt, prompt_id, self._timeline.shown(prompt.key)))
        return self._request(prompt.key, prompt_id)

    def remove_prompt(self, prompt_id: int) -> Request | None:
        """Remove a prompt; None if its slice has no other. Raises InvalidPrompt if there is no such prompt."""
        key, _ = self.state.find(prompt_id)
        self._timeline.push(self.state.without_prompt(prompt_id, self._timeline.shown(key)))
        return self._request(key, prompt_id) if self._timeline.slice(key).prompts else None

    def move_prompt(self, prompt_id: int, prompt: Prompt) -> Request:
        """Put another prompt in the place of one; it keeps its number.

        Moved to another slice, the prompts left on the old one may be in `pending`. Errors as add_prompt's.
        """
        old, _ = self.state.find(prompt_id)
        self._check(prompt)
        state = self.state
        if prompt.key == old:
            state = state.replaced(prompt_id, prompt, self._timeline.shown(old))
        else:
            state = state.without_prompt(prompt_id, self._timeline.shown(old))
            state = state.with_prompt(prompt, prompt_id, self._timeline.shown(prompt.key))
        self._timeline.push(state)
        return self._request(prompt.key, prompt_id)

    def predict(self, request: Request) -> Outcome:
        """Encode the slice if need be and decode the prompts. Changes nothing; may run in any thread."""
        return self._slices.predict(request)

    def accept(self, outcome: Outcome) -> bool:
        """Take in a prediction; False if the slice has other prompts by now, and then nothing visible changes."""
        return self._timeline.record(outcome.request.key, outcome.request.prompts, outcome.packed)

    # Prompts, at once

    def add_point(self, position_zyx: Zyx, positive: bool = True, object_id: int = 1, axis: int = 0) -> int:
        """Click at a voxel of a slice across `axis`, predict and accept. Returns the prompt's number."""
        return self._at_once(PointPrompt(_triple(position_zyx), bool(positive), object_id, axis))

    def add_box(self, start_zyx: Zyx, stop_zyx: Zyx, object_id: int = 1, axis: int = 0) -> int:
        """Draw a box on a slice, half-open within it, predict and accept. Returns the prompt's number.

        Of several boxes of an object on one slice the last one counts.
        """
        return self._at_once(BoxPrompt(_triple(start_zyx), _triple(stop_zyx), object_id, axis))

    def add_mask(self, mask: np.ndarray, axis: int, index: int, object_id: int = 1) -> int:
        """Give a (H, W) bool mask of a slice to refine, predict and accept. Returns the prompt's number."""
        mask = np.asarray(mask)
        if mask.ndim != 2:
            raise InvalidPrompt(f"a mask prompt is one slice (H, W), not an array of shape {mask.shape}.")
        return self._at_once(MaskPrompt(PackedMask.pack(mask), index, object_id, axis))

    def predict_pending(self) -> None:
        """Predict and accept whatever is pending."""
        for request in self.pending():
            self.accept(self.predict(request))

    # The model's other masks

    def choose_candidate(self, key: SliceKey, candidate: int) -> None:
        """Show another of the model's masks on a slice. Raises InvalidPrompt if there is none of that number."""
        offered = self._timeline.prediction(key)
        if offered is None or not 0 <= candidate < len(offered.masks):
            there = "nothing is predicted" if offered is None else f"there are masks 0 to {len(offered.masks) - 1}"
            raise InvalidPrompt(f"mask {candidate} cannot be chosen on slice {key.index} of axis {key.axis}: {there}.")
        changed = replace(self.state.slices[key], candidate=candidate, changed=self.state.step + 1)
        self._timeline.push(self.state.with_slices({key: changed}))

    def cycle_candidate(self, key: SliceKey) -> None:
        """Show the next of the model's masks on a slice, the first after the last."""
        candidates = self.candidates(key)
        if candidates is None:
            raise InvalidPrompt(f"nothing is predicted on slice {key.index} of axis {key.axis} yet.")
        self.choose_candidate(key, (candidates.chosen + 1) % len(candidates.masks))

    # Objects

    def new_object(self, name: str = "") -> int:
        """Add an object on top; its number is one more than the highest there is."""
        object_id = 1 + max((one.object_id for one in self.objects), default=0)
        self._timeline.push(self.state.with_object(object_id, name))
        return object_id

    def rename_object(self, object_id: int, name: str) -> None:
        """Name an object. Raises InvalidPrompt if there is none of that number."""
        self._check_object(object_id)
        self._timeline.push(self.state.with_object(object_id, name))

    def clear_object(self, object_id: int) -> None:
        """Take an object's prompts and masks away; the object stays."""
        self._check_object(object_id)
        self._timeline.push(self.state.without_slices_of(object_id))

    def remove_object(self, object_id: int) -> None:
        """Take an object away with all its prompts and masks."""
        self._check_object(object_id)
        kept = tuple(one for one in self.objects if one.object_id != object_id)
        self._timeline.push(replace(self.state.without_slices_of(object_id), objects=kept))

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

    # 3D

    def prefetch(self, axis: int, indices: Iterable[int]) -> Iterator[Progress]:
        """Encode slices ahead, in any thread; those outside the volume are left out."""
        wanted = [index for index in indices if 0 <= index < self.volume.shape[axis]]
        for done, index in enumerate(wanted):
            yield Progress(done, len(wanted), f"encoding slice {index}")
            self._slices.embedding(axis, index)
        yield Progress(len(wanted), len(wanted), "slices are encoded")

    def propagation_steps(self, object_id: int = 1, axis: int | None = None) -> Steps[Propagation]:
        """Follow an object from its prompted slices to the others. Changes nothing; may run in any thread.

        axis: across which slices; None takes the one with the most prompted slices. Partials are PropagatedSlice.
        Raises InvalidPrompt if the object has no prompts there.
        """
        prompted = {k: v for k, v in self.state.slices.items() if k.object_id == object_id and v.prompts}
        if axis is None:
            counts = [sum(key.axis == a for key in prompted) for a in range(3)]
            axis = counts.index(max(counts))
        seeds = {key.index: Seed(there.given, there.candidate) for key, there in prompted.items() if key.axis == axis}
        if not seeds:
            raise InvalidPrompt(f"object {object_id} has no prompts to propagate from; click on it first.")
        return follow(self._slices, object_id, axis, dict(sorted(seeds.items())))

    def accept_propagation(self, propagation: Propagation) -> bool:
        """Take in a propagation, as one step; False, and nothing changes, if the object's prompts changed since."""
        object_id, axis = propagation.object_id, propagation.axis
        on_axis = {k: v for k, v in self.state.slices.items() if (k.object_id, k.axis) == (object_id, axis)}
        seeds = {key.index: Seed(there.given, there.candidate) for key, there in on_axis.items() if there.prompts}
        if seeds != propagation.seeds:
            return False
        changed = self.state.step + 1
        changes = {key: replace(there, propagated=None) for key, there in on_axis.items()}
        for index, mask in propagation.masks.items():
            key = SliceKey(object_id, axis, index)
            changes[key] = replace(on_axis.get(key, SliceState()), propagated=mask, changed=changed)
        for outcome in propagation.predicted:
            self._timeline.record(outcome.request.key, outcome.request.prompts, outcome.packed)
        self._timeline.push(self.state.with_slices(changes))
        return True

    def propagate(self, object_id: int = 1, axis: int | None = None) -> Steps[Propagation]:
        """As propagation_steps, and the masks are in the session, as one step, when the Result is yielded."""
        steps = self.propagation_steps(object_id, axis)

        def accepting() -> Steps[Propagation]:
            for step in steps:
                if isinstance(step, Result):
                    self.accept_propagation(step.value)
                yield step

        return accepting()

    # Files

    def save(self, path: str | PathLike[str]) -> None:
        """Write objects, prompts and masks into one file, whole or not at all. Raises CannotWrite."""
        kept = {key: self._timeline.prediction(key) for key in self.state.slices}
        write_session(path, self._slices, self.state, {key: found for key, found in kept.items() if found is not None})

    @classmethod
    def load(cls, path: str | PathLike[str], model: PromptableModel, volume: Volume) -> PromptSession:
        """A session as it was saved, with an empty history. Raises UnreadableFile and InvalidSession."""
        slices, state, predictions = read_session(path, model, volume, _EMBEDDINGS_BYTES)
        session = cls(model, volume, slices.window)
        session._slices = slices
        session._timeline.restore(state, predictions)
        return session

    # For the canvas

    def subscribe(self, callback: Callable[[PromptSession], None]) -> Callable[[], None]:
        """Call `callback(session)` after every change, in the thread that made it; returns how to stop that."""
        listeners = self._timeline.listeners

        def tell() -> None:
            callback(self)

        listeners.append(tell)

        def unsubscribe() -> None:
            if tell in listeners:
                listeners.remove(tell)

        return unsubscribe

    def _request(self, key: SliceKey, prompt_id: int) -> Request:
        return Request(key, self._timeline.slice(key).given, self.revision, prompt_id)

    def _at_once(self, prompt: Prompt) -> int:
        request = self.add_prompt(prompt)
        self.accept(self.predict(request))
        return request.prompt_id or 0

    def _check(self, prompt: Prompt) -> None:
        """Raises PointOutsideVolume or InvalidPrompt for a prompt that this volume cannot take."""
        key, shape = prompt.key, self.volume.shape
        if not 0 <= key.index < shape[key.axis]:
            raise PointOutsideVolume(
                f"slice {key.index} of axis {key.axis} is outside the volume of {shape} voxels (z, y, x); "
                f"slices run from 0 to {shape[key.axis] - 1}."
            )
        if isinstance(prompt, PointPrompt):
            z, y, x = prompt.position_zyx
            if not all(-0.5 <= p < n - 0.5 for p, n in zip(prompt.position_zyx, shape)):
                raise PointOutsideVolume(
                    f"the point ({z:g}, {y:g}, {x:g}) lies outside the volume of {shape} voxels (z, y, x)."
                )
        self._slices.prompts_for_model(key, (prompt,))

    def _check_object(self, object_id: int) -> None:
        if all(one.object_id != object_id for one in self.objects):
            there = ", ".join(str(one.object_id) for one in self.objects) or "none yet"
            raise InvalidPrompt(f"there is no object {object_id}; there are: {there}.")


def _triple(position: Zyx) -> Zyx:
    """Three voxel coordinates as floats, from whatever sequence they come in."""
    try:
        z, y, x = (float(p) for p in position)
    except (TypeError, ValueError) as error:
        raise InvalidPrompt(f"a position is three voxel coordinates (z, y, x), not {position!r}.") from error
    return z, y, x
