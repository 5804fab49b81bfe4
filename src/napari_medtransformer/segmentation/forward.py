"""The network over batches of windows: precision, memory layout, mirrored passes, and a stop in mid-pass."""

from __future__ import annotations

import itertools
import math
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from contextvars import copy_context

import torch
from torch import Tensor

from napari_medtransformer.errors import OutOfMemory
from napari_medtransformer.models.base import AutomaticModel
from napari_medtransformer.models.memory import device_memory, is_out_of_memory
from napari_medtransformer.segmentation.options import Precision

# Voxels of one call that keep a device busy: more windows at once gain nothing.
_BUSY_VOXELS = {"cpu": 64**3, "cuda": 4 * 96**3}
_MOST_WINDOWS = 16
# What convolutional decoders at full resolution take, where the card does not say: bytes per voxel of the window.
_BYTES_PER_VOXEL = 2000
# How long whoever leaves waits for the layer that runs: a large one takes seconds, and a compiled pass is one layer.
_PATIENCE_SECONDS = 1.0


class Stopped(Exception):
    """The pass was told to stop."""


class Forward:
    """Runs a model on windows, in a thread of its own so that nobody waits for it, and leaves the model as it was.

    A context. window: (z, y, x) voxels; plane: the axis across the slices of a 2D model, None for 3D. mirror: axes.
    Left early, a pass ends before its next layer; leaving waits a second for that, and then lets the layer come to its
    end by itself. With listeners on `model.on_encode` (a probe) a pass runs in the caller's thread, which is the one
    they watch. Results are (b, classes [+ 1], *window) weighted sums and, last, the weights themselves.
    """

    def __init__(
        self,
        model: AutomaticModel,
        weights: Tensor,
        *,
        batch: int,
        dtype: torch.dtype,
        plane: int | None = None,
        mirror: tuple[int, ...] = (),
        disagreement: bool = False,
        compiled: bool = False,
    ) -> None:
        self.batch = batch
        self.said: list[str] = []
        self._model, self._dtype, self._plane = model, dtype, plane
        self._weights = weights.to(model.device)
        self._flips = [axes for n in range(len(mirror) + 1) for axes in itertools.combinations(sorted(mirror), n)]
        self._disagreement = disagreement
        self._compiled = compiled
        self._stop = threading.Event()
        self._stack = ExitStack()
        self._executor: ThreadPoolExecutor | None = None
        self._last: weakref.ref[Future[Tensor]] | None = None  # it holds a window's logits, and is others' to keep

    def __enter__(self) -> Forward:
        network = self._model.network
        with ExitStack() as stack:
            if self._compiled:
                network.compile(dynamic=False)  # its windows are of one size; a program for any size takes far longer
                stack.callback(setattr, network, "_compiled_call_impl", None)
            else:
                for module in network.modules():
                    if not any(True for _ in module.children()):
                        stack.callback(module.register_forward_pre_hook(self._check).remove)
            if not self._model.on_encode:
                self._executor = ThreadPoolExecutor(1, thread_name_prefix="segment")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        last = None if self._last is None else self._last()
        if last is not None:
            wait([last], _PATIENCE_SECONDS)
        if self._executor is not None:
            self._executor.shutdown(wait=last is None or last.done())
        if last is None:
            self._stack.close()
        else:  # the network is as it was when nobody runs it any more: now, or at the end of the layer
            last.add_done_callback(lambda _: self._stack.close())

    def start(self, windows: Tensor) -> Future[Tensor]:
        """Begin a pass over windows (b, channels, *window). The Future raises OutOfMemory."""
        if self._executor is not None:
            begun = self._executor.submit(copy_context().run, self._all, windows)
            self._last = weakref.ref(begun)
            return begun
        future: Future[Tensor] = Future()
        try:
            future.set_result(self._all(windows))
        except Exception as error:
            future.set_exception(error)
        return future

    @torch.inference_mode()
    def _all(self, windows: Tensor) -> Tensor:
        """All windows, as many at once as memory allows."""
        found: list[Tensor] = []
        done = 0
        while done < len(windows):
            part = windows[done : done + self.batch]
            try:
                found.append(self._weighted(part.to(self._model.device)))
            except Stopped:
                raise
            except Exception as error:
                if not is_out_of_memory(error):
                    if not self._compiled:
                        raise
                    # no compiler, or a network that it cannot compile: the same network runs as it is
                    self._compiled = False
                    self._model.network._compiled_call_impl = None
                    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                    self.said.append(f"torch.compile failed ({reason}); going on without it")
                    continue
                if len(part) == 1:
                    raise OutOfMemory(
                        f"one window of {' × '.join(map(str, self._weights.shape))} voxels does not fit into the "
                        f"memory of {self._model.device}."
                    ) from error
                self.batch = len(part) // 2
                self.said.append(f"memory ran out with {len(part)} windows at once; going on with {self.batch}")
                continue
            done += len(part)
        return found[0] if len(found) == 1 else torch.cat(found)

    def _weighted(self, windows: Tensor) -> Tensor:
        """Mean logits over mirrored passes times the weights, and the weights."""
        total = self._logits(windows, ())
        votes = [total.argmax(1)] if self._disagreement else []
        for axes in self._flips[1:]:
            logits = self._logits(windows, axes)
            total += logits
            if self._disagreement:
                votes.append(logits.argmax(1))
        classes = total.shape[1]
        out = total.new_empty((len(windows), classes + self._disagreement + 1, *self._weights.shape))
        torch.mul(total, self._weights / len(self._flips), out=out[:, :classes])
        if self._disagreement:
            mean = total.argmax(1)
            differing = sum((vote != mean).float() for vote in votes)
            out[:, classes] = differing / len(votes) * self._weights
        out[:, -1] = self._weights
        return out

    def _logits(self, windows: Tensor, flipped: tuple[int, ...]) -> Tensor:
        """(b, classes, *window) float32 of one mirrored pass, turned back."""
        self._check()
        axes = [axis + 2 for axis in flipped]
        shown = windows.flip(axes) if axes else windows
        if self._plane is not None:
            shown = shown.squeeze(self._plane + 2)
        enabled = self._dtype != torch.float32
        with torch.autocast(self._model.device.type, dtype=self._dtype if enabled else None, enabled=enabled):
            logits = self._model.logits(shown)
        if self._plane is not None:
            logits = logits.unsqueeze(self._plane + 2)
        logits = (logits.flip(axes) if axes else logits).float()
        # sums are added up in place: never in what the model was shown, or keeps
        return (
            logits.clone() if self._model.device.type == "cpu" and logits.data_ptr() == windows.data_ptr() else logits
        )

    def _check(self, *_: object) -> None:
        if self._stop.is_set():
            raise Stopped


def bytes_per_window(model: AutomaticModel, window: tuple[int, ...]) -> int:
    """Estimated peak of one window in float32, from the card's figure in proportion to the voxels."""
    voxels, own = math.prod(window), math.prod(model.card.input.size)
    known = model.card.memory_bytes
    return _BYTES_PER_VOXEL * voxels if known is None else int(known * max(1.0, voxels / own))


def windows_at_once(model: AutomaticModel, window: tuple[int, ...]) -> int:
    """How many windows keep the device busy and fit into half of its free memory; at least 1."""
    busy = _BUSY_VOXELS.get(model.device.type, _BUSY_VOXELS["cpu"]) // math.prod(window)
    fit = device_memory(model.device).free // 2 // bytes_per_window(model, window)
    return int(max(1, min(busy, fit, _MOST_WINDOWS)))


def precision(wanted: Precision, device: torch.device) -> torch.dtype:
    """The dtype of matrix products on a device: "auto" is float32, on CUDA bfloat16, or float16 where that is slow."""
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
