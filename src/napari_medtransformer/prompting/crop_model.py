"""A promptable 3D model on a volume: an object's prompts, whatever slices they are on, answered in 3D."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from napari_medtransformer.errors import PointOutsideVolume, UnsupportedModel
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.models.volume_model import VolumeEmbedding, VolumeMask, VolumePromptableModel
from napari_medtransformer.prompting.embedding_store import EmbeddingStore
from napari_medtransformer.prompting.embeddings import EmbeddingCache
from napari_medtransformer.prompting.labels import plane
from napari_medtransformer.prompting.masks import PackedBlock
from napari_medtransformer.prompting.model_prompts import (
    MASK_LOGIT,
    lasso_mask,
    logits_of,
    marked_pixels,
    pixels_on_slice,
    stroke_points,
)
from napari_medtransformer.prompting.object_3d import Turn, answer_turns, crop_centre
from napari_medtransformer.prompting.predictor import Prediction
from napari_medtransformer.prompting.prompts import (
    IN_3D,
    BlockPrompt,
    BoxPrompt,
    Given,
    LassoPrompt,
    MaskPrompt,
    PointPrompt,
    Prompt,
    ScribblePrompt,
    SliceKey,
)
from napari_medtransformer.prompting.slice_model import ModelOnVolume, Outcome, PackedPrediction, Request, SliceModel
from napari_medtransformer.volumes.volume import Volume, check_volume

_REMEMBERED = 2  # answers in full, for the next prompt to refine


class CropModel(ModelOnVolume):
    """A model that answers in 3D. Points, strokes and lassos become clicks; each prompt refines the answer before it.

    embeddings_bytes: how much memory encoded crops may keep. Safe in any thread.
    Raises InvalidPrompt for a window that is none.
    """

    in_3d = True
    model: VolumePromptableModel

    def __init__(
        self,
        model: VolumePromptableModel,
        volume: Volume,
        window: tuple[float, float] | None,
        embeddings_bytes: int,
        store: EmbeddingStore | None = None,
    ) -> None:
        super().__init__(model, volume, window)
        self.embeddings: EmbeddingCache[VolumeEmbedding] = EmbeddingCache(embeddings_bytes)
        self.store = store  # for the next model: crops are not kept on disk
        self._answers: OrderedDict[tuple[Given, ...], VolumeMask] = OrderedDict()
        self._decoding = threading.Lock()

    def key_of(self, prompt: Prompt) -> SliceKey:
        """The object in the whole volume."""
        return SliceKey(prompt.object_id, IN_3D, 0)

    def check(self, prompt: Prompt) -> None:
        """Raises PointOutsideVolume, or UnsupportedModel for a prompt that says nothing in 3D."""
        self._turn(prompt)

    def predict(self, request: Request) -> Outcome:
        """Encode the crop around the prompts if need be and decode them, one after the other.

        Raises UnsupportedModel for prompts that were given on slices.
        """
        key = request.key
        if not key.in_3d:
            raise UnsupportedModel(
                f"the prompts on slice {key.index} of axis {key.axis} were given to a model of slices, and "
                f"{self.model.card.name} answers in 3D; choose the model of slices to change them, or click anew."
            )
        base = next((one.mask for one in request.prompts if isinstance(one, BlockPrompt)), None)
        prompts = tuple(one for one in request.prompts if not isinstance(one, BlockPrompt))
        answer = self._answer(base, prompts)
        logits = self._honoured(answer, prompts)
        block = PackedBlock.pack(logits > 0, answer.start_zyx, self.volume.shape)
        scores = np.array([answer.score], np.float32)
        return Outcome(request, Prediction(logits[None], scores, 0), PackedPrediction((block,), (float(scores[0]),), 0))

    def _answer(self, base: PackedBlock | None, prompts: tuple[Prompt, ...]) -> VolumeMask:
        """The answer to the last prompt, which refines the one before it, and so on back to `base`."""
        turns = [self._turn(prompt) for prompt in prompts]
        points = np.concatenate([turn.points_zyx for turn in turns])
        signs = np.concatenate([turn.labels for turn in turns])
        volume = self.volume
        centre = crop_centre(self.model, volume, points, signs)
        placement = self.model.placement(volume.shape, volume.spacing, centre)
        embedding = self.embeddings.get(
            placement.start, lambda: self.model.encode(volume.data, volume.spacing, centre, volume.modality)
        )
        head: tuple[Given, ...] = () if base is None else (BlockPrompt(base),)
        with self._decoding:
            before, done = None if base is None else self._as_answer(base, embedding), 0
            for known in range(len(prompts), 0, -1):
                found = self._answers.get((*head, *prompts[:known]))
                if found is not None and found.placement == embedding.placement:
                    before, done = found, known
                    break
            answer = before if before is not None and done == len(prompts) else None
            if answer is None:
                answer = answer_turns(self.model, embedding, turns, done, before)
            self._answers[(*head, *prompts)] = answer
            while len(self._answers) > _REMEMBERED:
                self._answers.popitem(last=False)
        return answer

    def _as_answer(self, base: PackedBlock, embedding: VolumeEmbedding) -> VolumeMask:
        """A mask that no model gave, for the model to refine."""
        return VolumeMask((base.start, 0, 0), logits_of(base.unpack()), 1.0, embedding.placement)

    def _turn(self, prompt: Prompt) -> Turn:
        """A prompt as clicks in the volume."""
        if isinstance(prompt, BoxPrompt | MaskPrompt):
            what = "boxes" if isinstance(prompt, BoxPrompt) else "masks of single slices"
            raise UnsupportedModel(
                f"{self.model.card.name} answers in 3D and takes no {what}; "
                "give it points, strokes or lassos, or choose a model that works on slices."
            )
        key, shape = prompt.key, self.slice_shape(prompt.key.axis)
        if isinstance(prompt, PointPrompt):
            given = [prompt.on_slice()]
        elif isinstance(prompt, ScribblePrompt):
            given = stroke_points(pixels_on_slice(prompt, shape))
        else:
            given = stroke_points(lasso_mask(prompt, shape), *((1,) if prompt.positive else ()))
        points = np.insert(np.asarray(given, np.float64).reshape(-1, 2), key.axis, key.index, axis=1)
        if isinstance(prompt, PointPrompt):
            points = np.array([prompt.position_zyx], np.float64)
        outside = ((points < -0.5) | (points >= np.array(self.volume.shape) - 0.5)).any(axis=1)
        if outside.any():
            z, y, x = points[outside][0]
            raise PointOutsideVolume(
                f"the point ({z:g}, {y:g}, {x:g}) lies outside the volume of {self.volume.shape} voxels (z, y, x)."
            )
        return Turn(points, np.full(len(points), int(prompt.positive), np.int64))

    def _honoured(self, answer: VolumeMask, prompts: tuple[Prompt, ...]) -> np.ndarray:
        """The answer's logits with every marked voxel as the person marked it, the later mark over the earlier."""
        logits = answer.logits.copy()
        for prompt in prompts:
            if isinstance(prompt, BoxPrompt | MaskPrompt) or (isinstance(prompt, LassoPrompt) and prompt.positive):
                continue
            key = prompt.key
            index = key.index - answer.start_zyx[key.axis]
            if not 0 <= index < logits.shape[key.axis]:
                continue
            shape = self.slice_shape(key.axis)
            marked = marked_pixels(prompt, shape)
            part = tuple(s for axis, s in enumerate(answer.slices) if axis != key.axis)
            seen = plane(logits, key.axis, index)
            wrong = marked[part] & ((seen > 0) != prompt.positive)
            seen[wrong] = MASK_LOGIT if prompt.positive else -MASK_LOGIT
        return logits


def model_on_volume(
    model: PromptableModel | VolumePromptableModel,
    volume: Volume,
    window: tuple[float, float] | None,
    embeddings_bytes: int,
    store: EmbeddingStore | None = None,
) -> SliceModel | CropModel:
    """A promptable model at work on a volume.

    Raises UnsupportedModel for a model that takes no prompts, UnsupportedVolume for what is no Volume.
    """
    check_volume(volume)
    if isinstance(model, VolumePromptableModel):
        return CropModel(model, volume, window, embeddings_bytes, store)
    return SliceModel(model, volume, window, embeddings_bytes, store)
