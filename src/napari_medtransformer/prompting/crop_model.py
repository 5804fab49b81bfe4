"""A promptable 3D model on a volume: an object's prompts, whatever slices they are on, answered in 3D."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import TypeVar

import numpy as np

from napari_medtransformer.errors import PointOutsideVolume, UnsupportedModel
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.models.volume_model import VolumeEmbedding, VolumeMask, VolumePromptableModel
from napari_medtransformer.prompting.embedding_store import EmbeddingStore
from napari_medtransformer.prompting.embeddings import EmbeddingCache
from napari_medtransformer.prompting.labels import plane
from napari_medtransformer.prompting.masks import PackedBlock
from napari_medtransformer.prompting.model_prompts import (
    lasso_mask,
    logits_of,
    marked_pixels,
    pixels_on_slice,
    stroke_points,
)
from napari_medtransformer.prompting.object_3d import Turn, answer_turns, crop_spans, found_in_crop, mask_to_refine
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
    Zyx,
)
from napari_medtransformer.prompting.slice_model import ModelOnVolume, Outcome, PackedPrediction, Request, SliceModel
from napari_medtransformer.volumes.volume import Volume, check_volume

K = TypeVar("K")
V = TypeVar("V")

_REMEMBERED = 2  # answers in full, for the next prompt to refine
_BLOCKS_REMEMBERED = 16  # masks, packed, of what was found in crops before the last one


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
        self._blocks: OrderedDict[tuple[Given, ...], PackedBlock] = OrderedDict()
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
        before, answer = self._answer(base, prompts)
        first, mask = self._composed(before, answer, prompts)
        z, y, x = answer.slices
        seen = mask[z.start - first : z.stop - first, y, x]
        logits = np.where(seen == (answer.logits > 0), answer.logits, logits_of(seen))
        block = PackedBlock.pack(mask, (first, 0, 0), self.volume.shape)
        scores = np.array([answer.score], np.float32)
        prediction = Prediction(logits[None], scores, 0)
        return Outcome(request, prediction, PackedPrediction((block,), (float(scores[0]),), 0))

    def _answer(self, base: PackedBlock | None, prompts: tuple[Prompt, ...]) -> tuple[PackedBlock | None, VolumeMask]:
        """What holds beyond the last crop, and the answer in it to the last prompt, which refines the one before it."""
        turns = [self._turn(prompt) for prompt in prompts]
        head: tuple[Given, ...] = () if base is None else (BlockPrompt(base),)
        before, start = base, 0
        *earlier, (_, centre) = crop_spans(self.model, self.volume, turns)
        for stop, earlier_centre in earlier:
            given = prompts[:stop]
            known = self._blocks.get((*head, *given))
            if known is None:
                answer = self._in_crop(earlier_centre, before, head, given, turns[:stop], start)
                first, mask = self._composed(before, answer, given, marked=False)  # all marks come last
                known = PackedBlock.pack(mask, (first, 0, 0), self.volume.shape)
                with self._decoding:
                    _remember(self._blocks, (*head, *given), known, _BLOCKS_REMEMBERED)
            before, start = known, stop
        return before, self._in_crop(centre, before, head, prompts, turns, start)

    def _in_crop(
        self,
        centre: Zyx,
        before: PackedBlock | None,
        head: tuple[Given, ...],
        prompts: tuple[Prompt, ...],
        turns: list[Turn],
        start: int,
    ) -> VolumeMask:
        """The answer in the crop at a centre, which begins with what was there before the prompt of number `start`."""
        volume = self.volume
        placement = self.model.placement(volume.shape, volume.spacing, centre)
        embedding = self.embeddings.get(
            placement.start, lambda: self.model.encode(volume.data, volume.spacing, centre, volume.modality)
        )
        with self._decoding:
            answer, done = None, start
            for known in range(len(prompts), start, -1):
                found = self._answers.get((*head, *prompts[:known]))
                if found is not None and found.placement == embedding.placement:
                    answer, done = found, known
                    break
            if answer is None and before is not None:
                answer = mask_to_refine(before.unpack(), before.start, embedding.placement)
            if answer is None or done < len(prompts):
                answer = answer_turns(self.model, embedding, turns, done, answer)
            _remember(self._answers, (*head, *prompts), answer, _REMEMBERED)
        return answer

    def _composed(
        self, before: PackedBlock | None, answer: VolumeMask, prompts: tuple[Prompt, ...], *, marked: bool = True
    ) -> tuple[int, np.ndarray]:
        """The answer in its crop over what was there, with every voxel that the person marked as it was marked.

        marked: whether with marks; of two on a voxel the later one counts.
        Returns the first slice and (z, H, W) bool from it on.
        """
        marks = [(prompt.key, prompt.positive, pixels) for prompt, pixels in self._marks(prompts if marked else ())]
        slices = [range(answer.slices[0].start, answer.slices[0].stop)]
        if before is not None:
            slices.append(range(before.start, before.start + len(before.slices)))
        for key, positive, pixels in marks:
            there = np.flatnonzero(pixels.any(axis=1))
            if positive and len(there):
                slices.append(range(key.index, key.index + 1) if key.axis == 0 else range(there[0], there[-1] + 1))
        first, stop = min(part.start for part in slices), max(part.stop for part in slices)
        mask = np.zeros((stop - first, *self.volume.shape[1:]), bool)
        if before is not None:
            mask[before.start - first :][: len(before.slices)] = before.unpack()
        z, y, x = answer.slices
        seen = mask[z.start - first : z.stop - first, y, x]
        turns = [self._turn(prompt) for prompt in prompts]
        seen[:] = found_in_crop(answer, turns, None if before is None else seen)
        for key, positive, pixels in marks:
            if key.axis:
                plane(mask, key.axis, key.index)[pixels[first:stop]] = positive
            elif first <= key.index < stop:
                mask[key.index - first][pixels] = positive
        return first, mask

    def _marks(
        self, prompts: tuple[Prompt, ...]
    ) -> Iterator[tuple[PointPrompt | ScribblePrompt | LassoPrompt, np.ndarray]]:
        """The prompts that say of voxels what they are, with the (H, W) bool pixels of their slice."""
        for prompt in prompts:
            if not isinstance(prompt, BoxPrompt | MaskPrompt) and not (
                isinstance(prompt, LassoPrompt) and prompt.positive
            ):
                yield prompt, marked_pixels(prompt, self.slice_shape(prompt.key.axis))

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


def _remember(known: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    """Keep a value, and of all of them as many as were kept last."""
    known[key] = value
    while len(known) > most:
        known.popitem(last=False)


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
