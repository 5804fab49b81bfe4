"""SAM 2.1 and MedSAM2 follow an object through slices as through the frames of a video, with their own memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.models.base import ImageEmbedding, MaskPrediction, Prompts
from napari_medtransformer.models.following import Follower, SliceView
from napari_medtransformer.models.resizing import pad, resize
from napari_medtransformer.models.sam2_memory import Remembered, Sam2Memory

if TYPE_CHECKING:
    from napari_medtransformer.models.sam2 import Sam2Adapter

_ABSENT = -1024.0  # logit of every pixel where the network says that the object is not there, as published
_CERTAIN_SCALE, _CERTAIN_OFFSET = 20.0, -10.0  # logits of a mask that a person marked, as published
_CORRECTED = 10.0  # logit of a pixel on which the network was overruled


class MemoryFollower(Follower):
    """Frames are slices: the marked one conditions, every following one is remembered.

    What was made of a slice is remembered in place of the network's own answer where the two differ.
    """

    def __init__(self, adapter: Sam2Adapter, memory: Sam2Memory) -> None:
        self._adapter = adapter
        self._memory = memory.to(adapter.device)
        self._marked: Remembered | None = None
        self._since: list[Remembered] = []
        self._age = 0  # slices followed since the marked one
        self._latest: tuple[InputPlacement, Tensor, Tensor, Tensor, bool] | None = None

    @torch.inference_mode()
    def begin(self, view: SliceView, logits: np.ndarray) -> None:
        """Remember the slice that the object was marked on."""
        embedding = self._on_device(view.encode())
        features = self._adapter.without_memory_embedding(embedding.features)
        mask = (self._on_input(embedding.placement, logits) > 0).float()
        prompt = self._memory.mask_downsample(mask)
        _, scores, tokens, _ = self._adapter.decode_frame(features, prompt)
        token = tokens[:, int(scores.argmax())]
        certain = mask * _CERTAIN_SCALE + _CERTAIN_OFFSET
        pointer = self._memory.pointer(token, True)
        self._marked = self._memory.remember(features[-1], certain, pointer, marked=True, present=True)
        self._since, self._age, self._latest = [], 0, None

    @torch.inference_mode()
    def look(self, view: SliceView, prompts: Prompts) -> MaskPrediction:
        """One candidate, from the slice and the memory; the prompts play no part. Score 0 where nothing is there."""
        if self._marked is None:
            raise RuntimeError("look comes after begin.")
        embedding = self._on_device(view.encode())
        *fine, coarse = self._adapter.without_memory_embedding(embedding.features)
        positions = self._adapter.positions(coarse)
        recalled = self._memory.recall(coarse, positions, self._marked, self._since, self._age + 1)
        masks, scores, tokens, presence = self._adapter.decode_frame((*fine, recalled), None)
        best, present = int(scores.argmax()), bool(presence > 0)
        logits = masks[best] if present else torch.full_like(masks[best], _ABSENT)
        size = self._adapter.input_size
        whole = F.interpolate(logits[None, None].float(), size=(size, size), mode="bilinear", align_corners=False)
        pointer = self._memory.pointer(tokens[:, best], present)
        self._latest = (embedding.placement, coarse, whole, pointer, present)
        rows, columns = embedding.placement.resized_shape
        native = resize(whole[..., :rows, :columns], embedding.placement.native_shape)[0]
        score = scores[best : best + 1] if present else torch.zeros(1)
        return MaskPrediction(native.cpu().numpy(), score.float().cpu().numpy())

    @torch.inference_mode()
    def keep(self, logits: np.ndarray) -> None:
        """Remember the slice looked at last, with the mask it was given in the end. logits: (H, W)."""
        if self._latest is None:
            raise RuntimeError("keep comes after look.")
        placement, coarse, whole, pointer, present = self._latest
        rows, columns = placement.resized_shape
        own = resize(whole[..., :rows, :columns], placement.native_shape)[0, 0].cpu().numpy() > 0
        if not np.array_equal(own, logits > 0):
            final = self._on_input(placement, np.where(logits > 0, _CORRECTED, -_CORRECTED))
            whole = torch.where((final > 0) == (whole > 0), whole, final)
            present = bool((logits > 0).any())
        self._since.append(self._memory.remember(coarse, whole, pointer, marked=False, present=present))
        self._age += 1
        del self._since[: -max(self._memory.slots, self._memory.pointers)]

    def _on_input(self, placement: InputPlacement, logits: np.ndarray) -> Tensor:
        """Native logits (H, W) at the network's input, (1, 1, S, S)."""
        native = torch.from_numpy(np.ascontiguousarray(logits, np.float32)).to(self._adapter.device)[None, None]
        return pad(resize(native, placement.resized_shape), self._adapter.input_size, -_CORRECTED)

    def _on_device(self, embedding: ImageEmbedding) -> ImageEmbedding:
        features = tuple(feature.to(self._adapter.device) for feature in embedding.features)
        return ImageEmbedding(features, embedding.placement)
