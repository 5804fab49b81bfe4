"""A promptable 2D model on the slices of a volume: windowed, in true proportions, encoded once. Safe in any thread."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from napari_medtransformer.errors import ClusterLost, InvalidPrompt
from napari_medtransformer.models.base import ImageEmbedding, PromptableModel, Prompts
from napari_medtransformer.prompting.embedding_store import EmbeddingStore
from napari_medtransformer.prompting.embeddings import EmbeddingCache
from napari_medtransformer.prompting.fingerprints import model_fingerprint, volume_fingerprint
from napari_medtransformer.prompting.labels import plane
from napari_medtransformer.prompting.masks import PackedMask
from napari_medtransformer.prompting.model_prompts import honour, model_prompts
from napari_medtransformer.prompting.predictor import Prediction, predict, promptable
from napari_medtransformer.prompting.prompts import Prompt, SliceKey
from napari_medtransformer.prompting.remote import RemoteModel
from napari_medtransformer.prompting.rounding import logits_from_levels, rounded_levels
from napari_medtransformer.volumes.intensity import apply_window
from napari_medtransformer.volumes.volume import Volume


@dataclass(frozen=True)
class Request:
    """A prediction to be made: for one object on one slice, from all of its prompts there.

    revision: the session's when it was asked. prompt_id: the prompt that was added, moved or removed, if any.
    model: the number of the session's model that is asked.
    """

    key: SliceKey
    prompts: tuple[Prompt, ...]
    revision: int = 0
    prompt_id: int | None = None
    model: int = 0


@dataclass(frozen=True)
class PackedPrediction:
    """A prediction as a session keeps it: candidate masks, their scores, and which of them has the best."""

    masks: tuple[PackedMask, ...]
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


class SliceModel:
    """A model, a volume, the window through which the one sees the other, and the slices encoded so far.

    embeddings_bytes: how much memory those may keep. store: where they are kept on disk too, None for nowhere.
    Raises UnsupportedModel for a model that takes no prompts, InvalidPrompt for a window that is none.
    """

    def __init__(
        self,
        model: PromptableModel,
        volume: Volume,
        window: tuple[float, float] | None,
        embeddings_bytes: int,
        store: EmbeddingStore | None = None,
    ) -> None:
        if window is not None and not window[0] < window[1]:
            raise InvalidPrompt(f"a window is (low, high) with low < high, not {tuple(window)}.")
        self.model, self.volume = promptable(model), volume
        self.window = (volume.window.low, volume.window.high) if window is None else (window[0], window[1])
        self.embeddings = EmbeddingCache(embeddings_bytes)
        self.store = store
        self.remote: RemoteModel | None = None
        self._decoding = threading.Lock()

    @cached_property
    def volume_fingerprint(self) -> str:
        """See fingerprints.volume_fingerprint."""
        return volume_fingerprint(self.volume)

    @cached_property
    def model_fingerprint(self) -> str:
        """See fingerprints.model_fingerprint."""
        return model_fingerprint(self.model)

    def slice_shape(self, axis: int) -> tuple[int, int]:
        """(H, W) of the slices across `axis`."""
        rows, columns = (n for a, n in enumerate(self.volume.shape) if a != axis)
        return rows, columns

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
        """A slice's prompts as the model takes them (see model_prompts). Raises PointOutsideVolume, InvalidPrompt."""
        return model_prompts(self.slice_shape(key.axis), prompts)

    def predict(self, request: Request, levels: bool = False) -> Outcome:
        """Encode the slice if need be and decode the request's prompts. levels: see decode."""
        key = request.key
        decoded = self.decode(key.axis, key.index, self.prompts_for_model(key, request.prompts), levels)
        prediction = replace(decoded, candidates=honour(decoded.candidates, request.prompts))
        masks = tuple(PackedMask.pack(logits > 0) for logits in prediction.candidates)
        scores = tuple(float(score) for score in prediction.scores)
        return Outcome(request, prediction, PackedPrediction(masks, scores, prediction.chosen))

    def _encode(self, axis: int, index: int) -> ImageEmbedding:
        image = self.image(axis, index)
        if self.store is None:
            return self.model.encode(image, self._pixel_size(axis))
        return self.store.get(self.model, image, self._pixel_size(axis))

    def _pixel_size(self, axis: int) -> tuple[float, float]:
        dy, dx = (spacing for a, spacing in enumerate(self.volume.spacing) if a != axis)
        return dy, dx
