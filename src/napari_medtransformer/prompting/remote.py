"""A session's model on a cluster: compressed slices go up, masks come back, and what is lost is only the connection.

    remote = RemoteModel(model, connect("tcp://gpu-box:8786"), on_state=tell)
    session.use(remote)                     # from now on workers answer; session.use(None) for here

Every question carries all prompts of its slice, so a worker needs to remember nothing: one that starts in the place of
another is given the model and the slice again, and the same prompts give the same masks. While nobody answers there,
the model here does, which is told; the way back is looked for meanwhile, and told too.
"""

from __future__ import annotations

import hashlib
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from napari_medtransformer.cluster import Cluster, pack_array, unpack_array
from napari_medtransformer.errors import ClusterLost, UnsupportedModel
from napari_medtransformer.models.base import PromptableModel, Prompts
from napari_medtransformer.models.volume_model import VolumePromptableModel
from napari_medtransformer.prompting import remote_worker
from napari_medtransformer.prompting.masks import unpacked
from napari_medtransformer.prompting.model_prompts import logits_of
from napari_medtransformer.prompting.predictor import Prediction
from napari_medtransformer.prompting.rounding import logits_from_levels

_PIECE_BYTES = 4_000_000  # of weights sent at once
_PATIENCE_SECONDS = 3.0  # without any worker, before a click is answered here
_RETRY_SECONDS = 2.0  # between two looks whether the cluster is back
_ROUNDS = 6  # a worker may be replaced while it is given the model; not for ever
_WORKERS_KNOWN_SECONDS = 5.0


class RemoteModel:
    """A model that answers on a cluster's workers; `model` is the same one here. Safe in threads.

    on_state: called with a line when the place where prompts are answered changes, in whatever thread notices.
    """

    def __init__(
        self,
        model: PromptableModel | VolumePromptableModel,
        cluster: Cluster,
        on_state: Callable[[str], None] | None = None,
    ) -> None:
        if not isinstance(model, PromptableModel):
            raise UnsupportedModel(f"{model.card.name} answers in 3D and is not asked on clusters; use it here.")
        self.model, self.cluster = model, cluster
        self.on_state = on_state
        self.answered_there = self.answered_here = 0
        cluster.patience = min(cluster.patience, _PATIENCE_SECONDS)
        self._fingerprint = remote_worker.content_fingerprint(model)
        self._away = False  # whether the cluster does not answer at the moment
        self._looking = threading.Lock()
        self._closed = threading.Event()
        self._workers: tuple[float, list[str]] = (0.0, [])

    @property
    def place(self) -> str:
        """Where prompts are answered now: the cluster's address, or "here"."""
        return "here" if self._away or self._closed.is_set() else self.cluster.address

    def decode(self, image: np.ndarray, pixel_size: tuple[float, float], prompts: Prompts, levels: bool) -> Prediction:
        """Predict one object on an image, as the model here would.

        levels: logits in steps (see rounding); else masks alone come back, as certain logits.
        Raises ClusterLost while nobody answers there; it has been told then.
        """
        said = self._ask(image, pixel_size, prompts, levels)
        scores = np.array(said.scores, np.float32)
        if said.levels is not None:
            candidates = logits_from_levels(unpack_array(said.levels))
        else:
            candidates = np.stack([logits_of(unpacked(mask)) for mask in said.masks])
        self.answered_there += 1
        return Prediction(candidates, scores, int(np.argmax(scores)))

    def encode(self, image: np.ndarray, pixel_size: tuple[float, float]) -> None:
        """Have an image encoded there, for questions to come. Raises ClusterLost."""
        self._ask(image, pixel_size, None, False)

    def close(self) -> None:
        """Ask no more, and look for no way back. The cluster's connection is the caller's."""
        self._closed.set()

    def _ask(
        self, image: np.ndarray, pixel_size: tuple[float, float], prompts: Prompts | None, levels: bool
    ) -> remote_worker.Answer:
        if self._away or self._closed.is_set():
            self._look_for_it()
            raise ClusterLost(f"{self.cluster.address} does not answer at the moment.")
        key = hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
        packed_prompts = None if prompts is None else remote_worker.pack_prompts(prompts)
        packed_image = None
        try:
            worker = self._worker_of(key)
            for _ in range(_ROUNDS):
                said: Any = self.cluster.call(
                    remote_worker.answer,
                    self._fingerprint,
                    key,
                    pixel_size,
                    packed_image,
                    packed_prompts,
                    levels,
                    worker=worker,
                )
                if isinstance(said, remote_worker.Answer):
                    return said
                if said == "model":
                    self._give_model(worker)
                else:
                    packed_image = pack_array(image)
        except ClusterLost as lost:
            self._lost(str(lost))
            raise
        raise ClusterLost(f"workers of {self.cluster.address} come and go too fast to be given the model.")

    def _give_model(self, worker: str | None) -> None:
        card = self.model.card
        if self.cluster.call(remote_worker.load_there, card, self._fingerprint, worker=worker):
            return
        data = remote_worker.weights_bytes(self.model)
        pieces = [data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES)]
        for number, piece in enumerate(pieces):
            given = (card, self._fingerprint, number, len(pieces), piece)
            self.cluster.call(remote_worker.receive_there, *given, worker=worker)

    def _worker_of(self, key: str) -> str | None:
        """The worker that holds an image, as long as the workers are the same: the slices are shared among them."""
        known, addresses = self._workers
        if time.monotonic() - known > _WORKERS_KNOWN_SECONDS or not addresses:
            addresses = sorted(worker.address for worker in self.cluster.workers())
            self._workers = (time.monotonic(), addresses)
        return addresses[zlib.crc32(key.encode()) % len(addresses)] if addresses else None

    def _lost(self, why: str) -> None:
        self._workers = (0.0, [])
        if not self._away:
            self._away = True
            self._tell(f"{why} Prompts are answered here until it is back.")
        self._look_for_it()

    def _look_for_it(self) -> None:
        """Look for the way back, in a thread of its own, unless that is being done."""
        if not self._closed.is_set() and self._looking.acquire(blocking=False):
            threading.Thread(target=self._until_back, name="cluster", daemon=True).start()

    def _until_back(self) -> None:
        try:
            while not self._closed.is_set():
                if self.cluster.reconnect() and self.cluster.has_workers():
                    self._away = False
                    self._tell(f"{self.cluster.address} is back; prompts are answered there again.")
                    return
                self._closed.wait(_RETRY_SECONDS)
        finally:
            self._looking.release()

    def _tell(self, line: str) -> None:
        if self.on_state is not None:
            self.on_state(line)
