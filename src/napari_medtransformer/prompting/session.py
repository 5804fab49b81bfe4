"""One volume, many objects, every prompt: the session behind the Prompt dock and `medtransformer click`.

All coordinates are voxels in (z, y, x), an integer is a voxel's centre, boxes are half-open. A prediction is made for
one object on one slice (a `SliceKey`: object, axis, index) from all of that object's prompts on it.

Synchronously (tests, scripts, the command line)::

    session = PromptSession(model, volume)                      # window=(low, high) to override the automatic one
    prompt_id = session.add_point((z, y, x), positive=True, object_id=1, axis=0)    # encodes, predicts, accepts
    prompt_id = session.add_box((z, y0, x0), (z, y1, x1), object_id=1, axis=0)
    prompt_id = session.add_scribble(pixels, axis=0, index=z, positive=True, object_id=1)   # (H, W) bool, a stroke
    prompt_id = session.add_lasso([(z, y, x), ...], positive=True, object_id=1, axis=0)
    prompt_id = session.add_mask(mask, axis=0, index=z, object_id=1)                # refine an existing label
    session.labels                                              # (z, y, x) uint16, a read-only snapshot

A model that answers in 3D (SAM-Med3D) takes the same points, strokes and lassos on slices of any plane, and answers all
of an object's together, with one mask in 3D; boxes are refused. `session.in_3d` says whether the model is one.

With a window that must not freeze, the same in three steps::

    request = session.add_prompt(PointPrompt((z, y, x), positive=True, object_id=1, axis=0))   # main thread, instant
    outcome = session.predict(request)      # any thread; changes no state; encodes the slice if it is not cached
    session.accept(outcome)                 # main thread; False, and nothing changes, if it has become stale

`request` is None when there is nothing to predict (the last prompt of a slice was removed: its mask is gone already).
`request.prompt_id` names the prompt added, moved or removed. A stale outcome is one whose slice has other prompts by
now; it is remembered, so that undo back to those prompts needs no new prediction.

    session.remove_prompt(prompt_id) -> Request | None
    session.move_prompt(prompt_id, new_prompt) -> Request; session.shift_prompt(prompt_id, (dz, dy, dx)) -> Request
    session.prompts                         # dict {prompt_id: Point-, Box-, Scribble-, Lasso- or MaskPrompt}
    session.choose_candidate(key, n) / session.cycle_candidate(key)      # the model's other masks; instant
    session.candidates(key) -> Candidates | None       # .masks (m, H, W) bool, .scores (m,), .chosen
    session.pending() -> list[Request]      # slices whose prediction is missing (after undo, or dropped ones)
    session.predict_pending()               # the same, synchronously

Objects. `session.objects` is a tuple of `SessionObject(object_id, name, class_name, colour)`, from the lowest to the
one on top: where they overlap, the upper one is in the labels. An object is there from its first prompt on, or from
    session.new_object(name="", class_name="") -> object_id
    session.rename_object(object_id, name); session.class_object(object_id, class_name)
    session.colour_object(object_id, "#rrggbb"); session.move_object(object_id, by=±1); session.order_objects(numbers)
    session.remove_object(object_id); session.clear_object(object_id) (prompts and masks go, the object stays)

Masks. One step each, returning how many slices changed:
    session.fill_between(object_id); session.smooth(object_id, sigma_mm=None); session.keep_largest(object_id)
    session.close_holes(object_id); session.import_mask(mask_zyx, object_id, axis=0)    # an existing label, to refine
The same without freezing a window, the first in any thread: `edit = session.edit("smooth", object_id)`, and
`session.accept_edit(edit)`, False if the object changed meanwhile.
    session.object_mask(object_id) -> (z, y, x) bool, whatever lies on top
    session.statistics(object_id) -> ObjectStatistics (ml, mean, std, diameters in mm), or session.statistics() of all

Undo. `session.undo()` and `session.redo()` return the list of Requests still to be predicted (normally empty), and do
nothing at the end of the history; `session.can_undo`, `session.can_redo`. Every call above that changes something is
one step. `accept` is no step of its own: it fills in the step that asked for it.

For the canvas: `session.live_labels` is a read-only view of the array in which the session works: give it to the layer
once and refresh after each change. `session.revision` grows with every change; `session.subscribe(callback)` calls
`callback(session)` after each, in the thread that made it; it returns a function that unsubscribes.
`session.slice_mask(key)` is one object's (H, W) bool mask on a slice.

    session.prefetch(axis, indices)         # generator of Progress: encode slices ahead, any thread
    session.prefetch_around(axis, index)    # the same, the slice first and then its neighbours, while memory allows
    session.propagate(object_id=1)          # generator of Progress | Partial[PropagatedSlice] | Result[Propagation];
                                            # the masks are in the session, as one step, when the Result is yielded
    session.propagation_steps(object_id=1)  # the same for a worker thread: changes no state;
    session.accept_propagation(value)       # does, in the main thread; False if the prompts changed meanwhile
    session.switch_model(model, window=None) -> list[Request]   # prompts, masks and history stay
    session.use(remote.RemoteModel(model, cluster)); session.use(None); session.place      # answered on a cluster
    session.save(path); PromptSession.load(path, model, volume); session.unsaved
    PromptSession.recover(path, model, volume)      # what autosave.Autosave(session) kept; see autosave.recoverable()

Errors: PointOutsideVolume, InvalidPrompt, UnsupportedModel (the model takes no clicks), InvalidSession, CannotWrite.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from os import PathLike

from napari_medtransformer.errors import UnreadableFile, UnsupportedModel
from napari_medtransformer.given import flag, record, text, whole
from napari_medtransformer.given import path as path_of
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.models.volume_model import VolumePromptableModel
from napari_medtransformer.prompting.crop_model import CropModel, model_on_volume
from napari_medtransformer.prompting.embedding_store import EmbeddingStore
from napari_medtransformer.prompting.journal import read_journal
from napari_medtransformer.prompting.predictor import checked_window
from napari_medtransformer.prompting.prompts import LassoPrompt, PointPrompt, ScribblePrompt, SliceKey
from napari_medtransformer.prompting.remote import RemoteModel
from napari_medtransformer.prompting.session_core import Candidates
from napari_medtransformer.prompting.session_following import FollowSteps
from napari_medtransformer.prompting.session_masks import MaskSteps
from napari_medtransformer.prompting.session_objects import ObjectSteps
from napari_medtransformer.prompting.slice_model import PackedPrediction, Request, SliceModel
from napari_medtransformer.prompting.state import SessionState
from napari_medtransformer.prompting.storage import (
    ModelName,
    SessionFacts,
    check_volume,
    facts_of,
    read_session,
    write_session,
)
from napari_medtransformer.prompting.timeline import Timeline
from napari_medtransformer.volumes.volume import Volume

__all__ = ["Candidates", "PromptSession"]

_EMBEDDINGS_BYTES = 1_000_000_000  # about 300 slices of the bundled model, 240 of SAM


class PromptSession(ObjectSteps, MaskSteps, FollowSteps):
    """One volume, one promptable model, many objects; see the module's docstring for how it is used.

    volume: the image. window: (low, high) of the intensities the model sees; None takes the volume's own.
    embeddings_bytes: how much memory encoded slices may keep. store: where they are kept on disk too, None for nowhere.
    part: which 3D part of a larger image the volume is, such as "time 3", to be saved with the session.
    Raises UnsupportedModel for a model without prompts, UnsupportedVolume, InvalidPrompt for a window that is none, and
    InvalidOption.
    """

    def __init__(
        self,
        model: PromptableModel | VolumePromptableModel,
        volume: Volume,
        window: tuple[float, float] | None = None,
        embeddings_bytes: int = _EMBEDDINGS_BYTES,
        store: EmbeddingStore | None = None,
        part: str = "",
    ) -> None:
        self.part = text(part, "the part of a larger image")
        embeddings_bytes = whole(embeddings_bytes, "what encoded slices may keep, in bytes,", least=0)
        _check_store(store)
        self._slices = model_on_volume(model, volume, window, embeddings_bytes, store)
        self._timeline = Timeline(volume.shape)
        self._saved = SessionState()
        self._earlier: list[ModelName] = []  # the models before the present one, in the order in which they were

    @property
    def steps_made(self) -> int:
        """How many steps were ever made: undo and redo make none."""
        return self._timeline.steps_made

    def remove_prompts(self, prompt_ids: Iterable[int]) -> list[Request]:
        """Remove prompts as one step; returns what is to be predicted. Raises InvalidPrompt for one that is not there.

        Then nothing has changed.
        """
        state, last = self.state, {}
        for prompt_id in prompt_ids:
            key, _ = state.find(prompt_id)
            state = state.without_prompt(prompt_id, self._timeline.mask(key), self._timeline.model)
            last[key] = prompt_id
        if last:
            self._timeline.push(state)
        return [self._request(key, prompt_id) for key, prompt_id in last.items() if self._timeline.slice(key).prompts]

    def switch_model(
        self,
        model: PromptableModel | VolumePromptableModel,
        window: tuple[float, float] | None = None,
        repredict: bool = True,
    ) -> list[Request]:
        """Let another model answer, or the same one through another window; prompts, masks and history stay.

        repredict: every prompted slice is to be predicted anew, as one step; undo brings the masks before back.
        Otherwise the new model answers from the next prompt on. Prompts that were given in 3D keep their answer where
        the new model works on slices; one of 3D takes the points, strokes and lassos of slices over. The same model
        goes on answering where it did, another one answers here. Returns what is to be predicted.
        Raises UnsupportedModel and InvalidPrompt, and then nothing has changed.
        """
        old = self._slices
        repredict = flag(repredict, "whether slices are predicted anew")
        slices = model_on_volume(
            model, self.volume, old.window if window is None else window, old.embeddings.budget_bytes, old.store
        )
        if slices.model is old.model and isinstance(slices, SliceModel) and isinstance(old, SliceModel):
            slices.remote = old.remote
        self._earlier.append(ModelName(old.model.card.name, old.model_fingerprint))
        self._slices = slices
        self._timeline.model = number = len(self._earlier)
        changed = {
            key: replace(there, model=number, shown=self._timeline.mask(key), candidate=None, picked=None)
            for key, there in self.state.slices.items()
            if there.prompts and there.edited is None and key.in_3d == slices.in_3d
        }
        state = self.state.with_slices(changed)
        if slices.in_3d:
            state = self._taken_into_3d(state)
        if repredict and state.slices != self.state.slices:
            self._timeline.push(state)
        return self.pending()

    def set_window(self, window: tuple[float, float]) -> None:
        """Let the model see the volume through another window from the next prompt on; masks stay as they are.

        A model that answers in 3D sees native intensities: for it, the window is only kept. Raises InvalidPrompt.
        """
        window = checked_window(window)
        if self.in_3d:
            self._slices.set_window(window)
        else:
            self.switch_model(self.model, window, repredict=False)

    def use(self, remote: RemoteModel | None) -> None:
        """Have prompts answered on a cluster from now on, or here again (None).

        Raises UnsupportedModel if it is another model than the session's.
        """
        slices = self._slices
        if not isinstance(slices, SliceModel):
            if remote is None:
                return
            raise UnsupportedModel(f"{slices.model.card.name} answers in 3D and is not asked on clusters; use it here.")
        if remote is not None and record(remote, RemoteModel, "a RemoteModel, or None").model is not self.model:
            raise UnsupportedModel(
                f"the cluster was given {remote.model.card.name}, the session works with {self.model.card.name}; "
                "give it the session's model."
            )
        slices.remote = remote

    @property
    def place(self) -> str:
        """Where prompts are answered now: "here", or a cluster's address."""
        remote = self._slices.remote if isinstance(self._slices, SliceModel) else None
        return "here" if remote is None else remote.place

    def facts_later(self) -> Callable[[], SessionFacts]:
        """What gives `facts` of this moment, in any thread: hashing a volume takes a while."""
        slices, earlier, part = self._slices, tuple(self._earlier), self.part
        return lambda: facts_of(slices, earlier, part)

    def known_predictions(self) -> dict[SliceKey, PackedPrediction]:
        """What was predicted for the present prompts of every slice."""
        return self._timeline.predictions()

    @property
    def unsaved(self) -> bool:
        """Whether there is anything that the last file saved or loaded does not hold."""
        return self.state != self._saved

    @property
    def facts(self) -> SessionFacts:
        """What the session belongs to. The first call hashes the volume."""
        return facts_of(self._slices, self._earlier, self.part)

    def save(self, path: str | PathLike[str]) -> None:
        """Write objects, prompts and masks into one file, whole or not at all. Raises CannotWrite."""
        state = self.state
        write_session(path, self.facts, state, self._timeline.predictions())
        self._saved = state

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        model: PromptableModel | VolumePromptableModel,
        volume: Volume,
        store: EmbeddingStore | None = None,
    ) -> PromptSession:
        """A session as it was saved, with an empty history. Raises UnreadableFile and InvalidSession."""
        _check_store(store)
        slices, facts, state, predictions = read_session(path, model, volume, _EMBEDDINGS_BYTES)
        slices.store = store
        return cls._restored(slices, facts, state, predictions)

    @classmethod
    def recover(
        cls,
        path: str | PathLike[str],
        model: PromptableModel | VolumePromptableModel,
        volume: Volume,
        store: EmbeddingStore | None = None,
    ) -> PromptSession:
        """A session that autosave kept, as far as it was written, with an empty history.

        The model may be another than before: masks stay, and it answers from the next prompt on.
        Raises UnreadableFile and InvalidSession; what was cut off by the crash is told by a warning.
        """
        _check_store(store)
        source = path_of(path, "a session that was kept", UnreadableFile)
        facts, state, predictions, cut_off = read_journal(source)
        if cut_off:
            warnings.warn(f"{source.name}: the last step was not written whole and is left out", stacklevel=2)
        slices = model_on_volume(model, volume, facts.window, _EMBEDDINGS_BYTES, store)
        check_volume(source, facts, slices)
        now = ModelName(model.card.name, slices.model_fingerprint)
        if facts.models[-1] != now:
            facts = replace(facts, models=(*facts.models, now))
        session = cls._restored(slices, facts, state, predictions)
        session._saved = SessionState()
        return session

    def _taken_into_3d(self, state: SessionState) -> SessionState:
        """The state with every object's points, strokes and lassos on slices given in 3D instead."""
        for key in sorted(state.slices):
            for prompt_id, prompt in () if key.in_3d else state.slices[key].prompts:
                if isinstance(prompt, PointPrompt | ScribblePrompt | LassoPrompt):
                    state = state.without_prompt(prompt_id, self._timeline.mask(key), self._timeline.model)
                    state = self._with_prompt(state, prompt, prompt_id, self.key_of(prompt))
        return state

    @classmethod
    def _restored(
        cls,
        slices: SliceModel | CropModel,
        facts: SessionFacts,
        state: SessionState,
        predictions: dict[SliceKey, PackedPrediction],
    ) -> PromptSession:
        session = cls(slices.model, slices.volume, slices.window, part=facts.part)
        session._slices = slices  # its fingerprints are known
        session._earlier = list(facts.models[:-1])
        session._timeline.model = len(session._earlier)
        session._timeline.restore(state, predictions)
        session._saved = state
        return session


def _check_store(store: EmbeddingStore | None) -> None:
    if store is not None:
        record(store, EmbeddingStore, "an EmbeddingStore, or None")
