"""Queries and keys that a probe keeps: as many as fit a budget in memory, the others in a file without a name."""

from __future__ import annotations

import tempfile
import threading
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from napari_medtransformer.attention.bias import Bias
from napari_medtransformer.attention.calls import AttentionCall

# of the processor's memory, what queries and keys of one probe take: a block of SAM ViT-B at 1024², windowed or global
MEMORY_BYTES = 32_000_000


class KeptCall:
    """An AttentionCall whose queries and keys are read back, bit for bit, when they are asked for.

    Everything but `q` and `k` is at hand: their shapes, the bias, the scale, the kernel that ran.
    """

    def __init__(self, store: CallStore, number: int, call: AttentionCall) -> None:
        self._store, self._number = store, number
        self.q_shape, self.k_shape, self.dtype = tuple(call.q.shape), tuple(call.k.shape), call.q.dtype
        self.bias: Bias | None = call.bias
        self.scale, self.kernel, self.causal = call.scale, call.kernel, call.causal

    @property
    def q(self) -> Tensor:
        """(B, heads, N, head_dim)."""
        return self._store.tensors(self._number, (self.q_shape, self.k_shape), self.dtype)[0]

    @property
    def k(self) -> Tensor:
        """(B, key heads, K, head_dim)."""
        return self._store.tensors(self._number, (self.q_shape, self.k_shape), self.dtype)[1]

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.q_shape[1]

    def __del__(self) -> None:
        self._store.forget(self._number)


class CallStore:
    """Keeps calls, the least recently used beyond a budget on disk; safe in threads.

    memory_bytes: of the processor's memory, for queries and keys; None for no limit. The one that is used is always
    in memory, whatever it takes. Tensors on other devices stay there and do not count. The file has no name: it is
    gone with the store, also when the program is killed. Where it cannot be written, calls stay in memory, with a
    warning.
    """

    def __init__(self, memory_bytes: int | None = MEMORY_BYTES, folder: Path | None = None) -> None:
        self._limit, self._folder = memory_bytes, folder
        # a call may be forgotten by the garbage collector in the midst of all this
        self._lock = threading.RLock()
        self._here: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()
        self._places: dict[int, tuple[tuple[int, int], tuple[int, int]]] = {}  # (start, bytes) of queries and keys
        self._free: dict[int, list[int]] = {}  # bytes → where so many were written and are needed no more
        self._file: IO[bytes] | None = None
        self._end = self._count = 0

    @property
    def bytes_in_memory(self) -> int:
        """What queries and keys take of the processor's memory now."""
        with self._lock:
            return self._held()

    @property
    def bytes_on_disk(self) -> int:
        """How long the file is."""
        return self._end

    def keep(self, call: AttentionCall) -> KeptCall | AttentionCall:
        """The same call, kept; one on another device is returned as it is."""
        if self._limit is None or call.q.device.type != "cpu":
            return call
        with self._lock:
            self._count += 1
            kept = KeptCall(self, self._count, call)
            self._here[self._count] = (call.q, call.k)
            self._make_room(self._count)
        return kept

    def tensors(
        self, number: int, shapes: tuple[tuple[int, ...], tuple[int, ...]], dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys of a call of this store."""
        with self._lock:
            found = self._here.get(number)
            if found is None:
                places = self._places[number]
                found = self._read(places[0][0], shapes[0], dtype), self._read(places[1][0], shapes[1], dtype)
                self._here[number] = found
            self._here.move_to_end(number)
            self._make_room(number)
            return found

    def forget(self, number: int) -> None:
        """A call is needed no more; its place in the file may be written again."""
        with self._lock:
            self._here.pop(number, None)
            for start, size in self._places.pop(number, ()):
                self._free.setdefault(size, []).append(start)

    def _held(self) -> int:
        return sum(q.nbytes + k.nbytes for q, k in self._here.values())

    def _make_room(self, used: int) -> None:
        """Put the least recently used away until the rest fits, but never the one in use."""
        held = self._held()
        for number in list(self._here):
            if self._limit is None or held <= self._limit or number == used or number not in self._here:
                return
            q, k = self._here[number]
            if number not in self._places:
                try:
                    self._places[number] = (self._write(q), self._write(k))
                except OSError as error:
                    self._limit = None
                    warnings.warn(
                        f"queries and keys stay in memory: {error.strerror or error} in {self._folder}. Free some disk "
                        "space, or record fewer sites.",
                        stacklevel=2,
                    )
                    return
            del self._here[number]
            held -= q.nbytes + k.nbytes

    def _write(self, tensor: Tensor) -> tuple[int, int]:
        """Write a tensor's bytes. Returns where they begin, and how many there are."""
        if self._file is None:
            self._folder = self._folder or _cache_folder()
            self._folder.mkdir(parents=True, exist_ok=True)
            # closed with the store
            self._file = tempfile.TemporaryFile(prefix="attention-", dir=self._folder, buffering=0)  # noqa: SIM115
        unused = self._free.get(tensor.nbytes)
        start = unused.pop() if unused else self._end
        self._file.seek(start)
        data = memoryview(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        while data:
            data = data[self._file.write(data) :]
        self._end = max(self._end, start + tensor.nbytes)
        return start, tensor.nbytes

    def _read(self, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        tensor = torch.empty(shape, dtype=dtype)
        data = memoryview(tensor.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        if self._file is None:
            raise RuntimeError("nothing was written yet")
        self._file.seek(start)
        while data:
            count = self._file.readinto(data)  # type: ignore[attr-defined]
            if not count:
                raise OSError(f"the file of queries and keys in {self._folder} ended too early")
            data = data[count:]
        return tensor

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()


def _cache_folder() -> Path:
    """This user's cache: the folder of temporary files may itself lie in memory."""
    from platformdirs import user_cache_path

    return user_cache_path("napari-medtransformer", appauthor=False) / "attention"
