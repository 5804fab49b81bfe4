"""What a worker of a cluster does for a session elsewhere: it holds models and encoded slices, and answers prompts.

These functions run on the worker. What they keep lies on the worker's own record, so it goes when the worker does; a
caller that hears "model" or "image" gives again what is missing.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from napari_medtransformer.cluster import PackedArray, pack_array, unpack_array
from napari_medtransformer.models.base import ImageEmbedding, PromptableModel, Prompts
from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.prompting.masks import PackedMask
from napari_medtransformer.prompting.rounding import rounded_levels

_EMBEDDINGS_BYTES = 2_000_000_000
_MODELS = 2  # kept at once: a session uses one, and a second while it is changed

Missing = Literal["model", "image"]
"""What the worker has to be given first."""


@dataclass(frozen=True)
class PackedPrompts:
    """Prompts on their way to a worker; see models.base.Prompts."""

    points_yx: tuple[tuple[float, float], ...]
    point_labels: tuple[int, ...]
    box: tuple[float, float, float, float] | None
    mask_logits: PackedArray | None


@dataclass(frozen=True)
class Answer:
    """Candidate masks and their scores on the way back: bits, or logits in steps (see rounding) where asked for."""

    masks: tuple[PackedMask, ...]
    levels: PackedArray | None
    scores: tuple[float, ...]


@dataclass
class _Held:
    """What a worker holds for sessions."""

    models: OrderedDict[str, PromptableModel] = field(default_factory=OrderedDict)
    embeddings: OrderedDict[tuple[str, str], ImageEmbedding] = field(default_factory=OrderedDict)
    arriving: dict[str, dict[int, bytes]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


def pack_prompts(prompts: Prompts) -> PackedPrompts:
    """Prompts for the way to a worker."""
    points = tuple((float(y), float(x)) for y, x in prompts.points_yx)
    logits = None if prompts.mask_logits is None else pack_array(prompts.mask_logits)
    return PackedPrompts(points, tuple(int(label) for label in prompts.point_labels), prompts.box, logits)


def content_fingerprint(model: PromptableModel) -> str:
    """A hash of a model's name and every weight, wherever it runs and in whatever number format."""
    digest = hashlib.blake2b(f"{model.card.name} ".encode(), digest_size=20)
    for name, tensor in model.network.state_dict().items():
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if flat.numel():
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_bytes(model: PromptableModel) -> bytes:
    """A model's weights as one file."""
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().cpu() for name, tensor in model.network.state_dict().items()}, buffer)
    return buffer.getvalue()


def load_there(card: ModelCard, fingerprint: str) -> bool:
    """Load the model from this worker's own disk, if it has those weights; never from the internet."""
    from napari_medtransformer.models import load_model
    from napari_medtransformer.models.download import is_on_disk

    if not is_on_disk(card):
        return False
    model = load_model(card)
    if content_fingerprint(model) != fingerprint:
        return False
    _keep_model(_held(), fingerprint, model)
    return True


def receive_there(card: ModelCard, fingerprint: str, number: int, count: int, piece: bytes) -> bool:
    """Take a piece of a model's weights, and load the model when all of `count` are there."""
    from napari_medtransformer.models import load_model

    held = _held()
    with held.lock:
        pieces = held.arriving.setdefault(fingerprint, {})
        pieces[number] = piece
        if len(pieces) < count:
            return False
        del held.arriving[fingerprint]
    data = b"".join(pieces[n] for n in range(count))
    model = load_model(card, weights="random")
    model.network.load_state_dict(torch.load(io.BytesIO(data), weights_only=True, map_location="cpu"))
    _keep_model(held, fingerprint, model)
    return True


def answer(
    fingerprint: str,
    image_key: str,
    pixel_size: tuple[float, float],
    image: PackedArray | None,
    prompts: PackedPrompts | None,
    levels: bool,
) -> Answer | Missing:
    """Encode an image, unless it is encoded, and decode prompts on it (None: no more than encode it).

    image_key: a hash of the image; image: itself, where the worker is known to lack it. levels: logits, not masks.
    """
    held = _held()
    with held.lock:  # one at a time: a network uses all that the worker has
        model = held.models.get(fingerprint)
        if model is None:
            return "model"
        embedding = held.embeddings.get((fingerprint, image_key))
        if embedding is None:
            if image is None:
                return "image"
            embedding = model.encode(unpack_array(image), pixel_size)
            held.embeddings[fingerprint, image_key] = embedding
            while len(held.embeddings) > 1 and sum(map(_size, held.embeddings.values())) > _EMBEDDINGS_BYTES:
                held.embeddings.popitem(last=False)
        held.embeddings.move_to_end((fingerprint, image_key))
        if prompts is None:
            return Answer((), None, ())
        decoded = model.decode(embedding, _unpacked(prompts))
    scores = tuple(float(score) for score in decoded.scores)
    if levels:
        return Answer((), pack_array(rounded_levels(decoded.logits)), scores)
    return Answer(tuple(PackedMask.pack(logits > 0) for logits in decoded.logits), None, scores)


def _unpacked(prompts: PackedPrompts) -> Prompts:
    points = np.array(prompts.points_yx, np.float32).reshape(-1, 2)
    logits = None if prompts.mask_logits is None else unpack_array(prompts.mask_logits)
    return Prompts(points, np.array(prompts.point_labels, np.int64), prompts.box, logits)


def _held() -> _Held:
    """This worker's record, made at the first call."""
    from distributed import get_worker

    worker: Any = get_worker()
    held: _Held = worker.__dict__.setdefault("medtransformer_held", _Held())
    return held


def _keep_model(held: _Held, fingerprint: str, model: PromptableModel) -> None:
    with held.lock:
        held.models[fingerprint] = model
        while len(held.models) > _MODELS:
            gone, _ = held.models.popitem(last=False)
            for key in [key for key in held.embeddings if key[0] == gone]:
                del held.embeddings[key]


def _size(embedding: ImageEmbedding) -> int:
    return sum(feature.nbytes for feature in embedding.features)
