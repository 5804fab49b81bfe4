"""Encoded slices, kept while memory allows: encoding is what costs, prompts are nearly free after it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from napari_medtransformer.models.base import ImageEmbedding

SliceAt = tuple[int, int]
"""(axis, index) of a slice."""


class EmbeddingCache:
    """The most recently used embeddings within a budget of bytes; at least one is kept. Safe to use from threads."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._kept: OrderedDict[SliceAt, ImageEmbedding] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._encoding = threading.Lock()

    def get(self, where: SliceAt, encode: Callable[[], ImageEmbedding]) -> ImageEmbedding:
        """The embedding of a slice, encoded now if it is not kept; one at a time, never the same one twice."""
        found = self._find(where)
        if found is not None:
            return found
        with self._encoding:
            found = self._find(where)  # another thread may have encoded it while this one waited
            if found is None:
                found = encode()
                self._keep(where, found)
            return found

    def full(self, at_least: int = 1) -> bool:
        """Whether one more embedding like those kept, of at least so many, would push one out."""
        with self._lock:
            count = len(self._kept)
            return count >= at_least and count > 0 and self._bytes + self._bytes // count > self.budget_bytes

    def __contains__(self, where: SliceAt) -> bool:
        with self._lock:
            return where in self._kept

    def _find(self, where: SliceAt) -> ImageEmbedding | None:
        with self._lock:
            found = self._kept.get(where)
            if found is not None:
                self._kept.move_to_end(where)
            return found

    def _keep(self, where: SliceAt, embedding: ImageEmbedding) -> None:
        with self._lock:
            self._kept[where] = embedding
            self._bytes += _size(embedding)
            while self._bytes > self.budget_bytes and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= _size(dropped)


def _size(embedding: ImageEmbedding) -> int:
    return sum(feature.nbytes for feature in embedding.features)
