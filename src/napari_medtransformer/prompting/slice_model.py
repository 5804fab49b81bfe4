"""A promptable model on a volume: what is asked of it, and one of 2D on slices, encoded once. Safe in any thread."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from napari_medtransformer.errors import ClusterLost, UnsupportedModel
from napari_medtransformer.models.base import ImageEmbedding, PromptableModel, Prompts
from napari_medtransformer.models.volume_model import VolumePromptableModel
from napari_medtransformer.prompting.embedding_store import EmbeddingStore
from napari_medtransformer.prompting.embeddings import EmbeddingCache
from napari_medtransformer.prompting.fingerprints import model_fingerprint, volume_fingerprint
from napari_medtransformer.prompting.labels import plane
from napari_medtransformer.prompting.masks import Packed, PackedMask, unpacked
from napari_medtransformer.prompting.model_prompts import contradicts, honour, model_prompts, refines, stroke_logits
from napari_medtransformer.prompting.predictor import Prediction, checked_window, predict, promptable
from napari_medtransformer.prompting.prompts import BlockPrompt, Given, MaskPrompt, Prompt, SliceKey
from napari_medtransformer.prompting.refining import Answers, mask_to_refine, refined_logits
from napari_medtransformer.prompting.remote import RemoteModel
from napari_medtransformer.prompting.rounding import logits_from_levels, rounded_levels
from napari_medtransformer.volumes.intensity import apply_window
from napari_medtransformer.volumes.volume import Volume


@dataclass(frozen=True)
class Request:
    """A prediction to be made: for one object on one slice or in 3D, from all of its prompts there.

    revision: the session's when it was asked. prompt_id: the prompt that was added, moved or removed, if any.
    model: the number of the session's model that is asked.
    """

    key: SliceKey
    prompts: tuple[Given, ...]
    revision: int = 0
    prompt_id: int | None = None
    model: int = 0


@dataclass(frozen=True)
class PackedPrediction:
    """A prediction as a session keeps it: candidate masks, their scores, and which of them has the best."""

    masks: tuple[Packed, ...]
    scores: tuple[float, ...]
    best: int

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        return sum(mask.nbytes for mask in self.masks)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What was predicted for a request: packed for the session, and with logits for who wants to show them."""

    request: Request
    prediction: Prediction
    packed: PackedPrediction


class ModelOnVolume(ABC):
    """A model, a volume, and the window through which the one sees the other; SliceModel and CropModel answer.

    Raises InvalidPrompt for a window that is none.
    """

    in_3d = False
    """Whether prompts are answered in the whole volume, not on their slices."""

    def __init__(
        self, model: PromptableModel | VolumePromptableModel, volume: Volume, window: tuple[float, float] | None
    ) -> None:
        self.model, self.volume = model, volume
        self._volume_fingerprint: str | None = None
        self._model_fingerprint: str | None = None
        self.set_window((volume.window.low, volume.window.high) if window is None else window)

    def set_window(self, window: tuple[float, float]) -> None:
        """Let the model see other intensities from now on; only for one that has encoded nothing through the old ones.

        Raises InvalidPrompt.
        """
        self.window = checked_window(window)

    # functools.cached_property would do, but for the lock that all objects share in Python 3.11: while autosave
    # computes one fingerprint, the window would wait to read another.

    @property
    def volume_fingerprint(self) -> str:
        """See fingerprints.volume_fingerprint; computed at the first call."""
        if self._volume_fingerprint is None:
            self._volume_fingerprint = volume_fingerprint(self.volume)
        return self._volume_fingerprint

    @property
    def model_fingerprint(self) -> str:
        """See fingerprints.model_fingerprint; computed at the first call."""
        if self._model_fingerprint is None:
            self._model_fingerprint = model_fingerprint(self.model)
        return self._model_fingerprint

    def slice_shape(self, axis: int) -> tuple[int, int]:
        """(H, W) of the slices across `axis`."""
        rows, columns = (n for a, n in enumerate(self.volume.shape) if a != axis)
        return rows, columns

    def key_of(self, prompt: Prompt) -> SliceKey:
        """Where the prompt is answered: on its slice, or in the whole volume."""
        return prompt.key

    @abstractmethod
    def check(self, prompt: Prompt) -> None:
        """Raises PointOutsideVolume, InvalidPrompt or UnsupportedModel for a prompt that cannot be answered."""

    @abstractmethod
    def predict(self, request: Request) -> Outcome:
        """Encode what is needed and decode the request's prompts."""


class SliceModel(ModelOnVolume):
    """A promptable 2D model on slices: windowed, in true proportions, encoded once.

    One that `refines` answers prompt after prompt: a point or a stroke that the answer before contradicts is given with
    that answer. The mask is a function of the prompts and their order, whenever and wherever they are answered.
    embeddings_bytes: how much memory encoded slices may keep. store: where they are kept on disk too, None for nowhere.
    Raises UnsupportedModel for a model that takes no prompts, InvalidPrompt for a window that is none.
    """

    model: PromptableModel

    def __init__(
        self,
        model: PromptableModel,
        volume: Volume,
        window: tuple[float, float] | None,
        embeddings_bytes: int,
        store: EmbeddingStore | None = None,
    ) -> None:
        super().__init__(promptable(model), volume, window)
        self.embeddings: EmbeddingCache[ImageEmbedding] = EmbeddingCache(embeddings_bytes)
        self.store = store
        self.remote: RemoteModel | None = None
        self._answers = Answers()
        self._decoding = threading.Lock()

    def image(self, axis: int, index: int, part: tuple[slice, slice] = (slice(None), slice(None))) -> np.ndarray:
        """(H, W) float32 in [0, 1]: a slice, or a part of its rows and columns, through the window."""
        return apply_window(plane(self.volume.data, axis, index)[part], self.window)

    def embedding(self, axis: int, index: int) -> ImageEmbedding:
        """The encoded slice, from memory if it is there."""
        return self.embeddings.get((axis, index), lambda: self._encode(axis, index))

    def prepare(self, axis: int, index: int) -> None:
        """Encode a slice where prompts are answered, for questions to come."""
        if self.remote is not None:
            with suppress(ClusterLost):  # the remote model has told it
                self.remote.encode(self.image(axis, index), self._pixel_size(axis))
                return
        self.embedding(axis, index)

    def decode(self, axis: int, index: int, prompts: Prompts, levels: bool = False) -> Prediction:
        """Predict one object on a slice, on the cluster if there is one, else here.

        levels: logits in steps (see rounding), the same wherever they come from; else only their signs may be.
        """
        if self.remote is not None:
            with suppress(ClusterLost):  # the remote model has told it, and this one answers
                return self.remote.decode(self.image(axis, index), self._pixel_size(axis), prompts, levels)
            self.remote.answered_here += 1
        embedding = self.embedding(axis, index)
        with self._decoding:
            prediction = predict(self.model, embedding, prompts)
        if not levels:
            return prediction
        return replace(prediction, candidates=logits_from_levels(rounded_levels(prediction.candidates)))

    def prompts_for_model(self, key: SliceKey, prompts: tuple[Prompt, ...]) -> Prompts:
        """A slice's prompts as the model takes them (see model_prompts), with the mask that they refine.

        Answers that are not remembered are asked for again. Raises PointOutsideVolume, InvalidPrompt.
        """
        return self._asked(key, prompts, self._to_refine(key, prompts))

    def check(self, prompt: Prompt) -> None:
        """Raises PointOutsideVolume or InvalidPrompt for a prompt that its slice cannot take."""
        self.prompts_for_model(prompt.key, (prompt,))

    def predict(self, request: Request, levels: bool = False) -> Outcome:
        """Encode the slice if need be and decode the request's prompts. levels: see decode.

        Raises UnsupportedModel for prompts that were given in 3D.
        """
        key = request.key
        if key.in_3d:
            raise UnsupportedModel(
                f"the prompts of object {key.object_id} were given in 3D, and {self.model.card.name} works on slices; "
                "choose a 3D model to change them, or correct the mask with new prompts on slices."
            )
        prompts = tuple(prompt for prompt in request.prompts if not isinstance(prompt, BlockPrompt))
        prediction = self._answer(key, prompts, self.prompts_for_model(key, prompts), levels)
        masks = tuple(PackedMask.pack(logits > 0) for logits in prediction.candidates)
        scores = tuple(float(score) for score in prediction.scores)
        return Outcome(request, prediction, PackedPrediction(masks, scores, prediction.chosen))

    def _answer(self, key: SliceKey, prompts: tuple[Prompt, ...], asked: Prompts, levels: bool = False) -> Prediction:
        """What the model says, as far as the prompts leave it a choice; remembered for the next prompt."""
        decoded = self.decode(key.axis, key.index, asked, levels)
        prediction = replace(decoded, candidates=honour(decoded.candidates, prompts))
        if self.model.refines:
            self._answers.keep((key, prompts), prediction.mask)
        return prediction

    def _to_refine(self, key: SliceKey, prompts: tuple[Prompt, ...]) -> np.ndarray | None:
        """(H, W) bool: the mask that all prompts together refine; None where they say what is meant themselves."""
        if not self.model.refines:
            return None
        # `first` prompts say what is meant; the first answer is to them.
        first = next((n for n in range(len(prompts), 1, -1) if not refines(prompts[n - 1])), 1)
        meant = prompts[first - 1]
        if isinstance(meant, MaskPrompt):  # what was there, which holds until a prompt contradicts it
            mask, first = unpacked(meant.mask), first + 1
            while first < len(prompts) and not contradicts(prompts[first - 1], mask):
                first += 1

        def answer(count: int, refined: np.ndarray | None) -> np.ndarray:
            given = prompts[:count]
            known = self._answers.get((key, given))
            return self._answer(key, given, self._asked(key, given, refined)).mask if known is None else known

        return mask_to_refine(first, len(prompts), answer, lambda n, mask: contradicts(prompts[n], mask))

    def _asked(self, key: SliceKey, prompts: tuple[Prompt, ...], refined: np.ndarray | None) -> Prompts:
        shape = self.slice_shape(key.axis)
        asked = model_prompts(shape, prompts, boxed_lassos=not self.model.refines)
        if refined is not None:
            return replace(asked, mask_logits=refined_logits(refined))
        if self.model.refines and asked.mask_logits is None:
            return replace(asked, mask_logits=stroke_logits(shape, prompts))
        return asked

    def _encode(self, axis: int, index: int) -> ImageEmbedding:
        image = self.image(axis, index)
        if self.store is None:
            return self.model.encode(image, self._pixel_size(axis))
        return self.store.get(self.model, image, self._pixel_size(axis))

    def _pixel_size(self, axis: int) -> tuple[float, float]:
        dy, dx = (spacing for a, spacing in enumerate(self.volume.spacing) if a != axis)
        return dy, dx
