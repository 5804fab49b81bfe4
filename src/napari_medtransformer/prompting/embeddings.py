"""Encoded slices, kept while memory allows: encoding is what costs, prompts are nearly free after it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from napari_medtransformer.models.base import ImageEmbedding
from napari_medtransformer.models.volume_model import VolumeEmbedding

Embedding = TypeVar("Embedding", ImageEmbedding, VolumeEmbedding)
Where = tuple[int, ...]
"""(axis, index) of a slice, or (z, y, x) of a crop's first voxel."""


class EmbeddingCache(Generic[Embedding]):
    """The most recently used embeddings within a budget of bytes; at least one is kept. Safe to use from threads."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._kept: OrderedDict[Where, Embedding] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._encoding = threading.Lock()

    def get(self, where: Where, encode: Callable[[], Embedding]) -> Embedding:
        """The embedding of a slice or crop, encoded now if it is not kept; one at a time, never the same one twice."""
        found = self._find(where)
        if found is not None:
            return found
        with self._encoding:
            found = self._find(where)  # another thread may have encoded it while this one waited
            if found is None:
                found = encode()
                self._keep(where, found)
            return found

    def fits(self, count: int) -> bool:
        """Whether so many embeddings like those kept fit into the budget; yes while none is."""
        with self._lock:
            return not self._kept or self._bytes / len(self._kept) * count <= self.budget_bytes

    def __contains__(self, where: Where) -> bool:
        with self._lock:
            return where in self._kept

    def _find(self, where: Where) -> Embedding | None:
        with self._lock:
            found = self._kept.get(where)
            if found is not None:
                self._kept.move_to_end(where)
            return found

    def _keep(self, where: Where, embedding: Embedding) -> None:
        with self._lock:
            self._kept[where] = embedding
            self._bytes += _size(embedding)
            while self._bytes > self.budget_bytes and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= _size(dropped)


def _size(embedding: ImageEmbedding | VolumeEmbedding) -> int:
    return sum(feature.nbytes for feature in embedding.features)
