"""Where work runs: here, or on a dask.distributed cluster whose scheduler has an address.

    cluster = connect("tcp://gpu-box:8786", timeout=10)
    cluster.call(function, *args)                   # waits; a lost worker's work is done again on another
    task = cluster.submit(function, *args, retries=2); task.done(); task.result(); task.cancel()
    cluster.state                                   # "connected", "reconnecting" or "local"
    cluster.close()

Functions travel by name, so they live at the top of a module of this package, and the workers have the same version of
it. Arrays travel compressed without loss (`pack_array`), so that what comes back is what would have been computed here.
distributed is imported when a cluster is connected, not before.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from napari_medtransformer.errors import ClusterLost, ClusterUnreachable
from napari_medtransformer.given import real
from napari_medtransformer.given import text as text_of

ClusterState = Literal["connected", "reconnecting", "local"]
"""connected: work runs there. reconnecting: the connection dropped or no worker is left. local: given up or closed."""

_PACKAGE = "napari-medtransformer"
_POLL_SECONDS = 0.2  # between two looks at whether anybody is still working
_PATIENCE_SECONDS = 10.0  # without any worker, before work is given up there
_CLOSING_SECONDS = 3.0
_LARGEST_PALETTE = 65536  # indices of two bytes
_SCHEMES = ("tcp://", "tls://", "ucx://", "ws://", "wss://")


@dataclass(frozen=True)
class Worker:
    """A worker of a cluster. address: where it listens; threads: how much it does at once; memory_bytes: its limit."""

    address: str
    threads: int
    memory_bytes: int


@dataclass(frozen=True)
class PackedArray:
    """An array compressed without loss. data: a Blosc frame (Zstandard), of the numbers or of indices into `palette`.

    palette: the bytes of the distinct values, a Blosc frame too; empty where the numbers themselves are packed.
    """

    shape: tuple[int, ...]
    dtype: str
    data: bytes
    palette: bytes = b""


def pack_array(array: np.ndarray) -> PackedArray:
    """Compress an array of numbers of any shape for the way to a worker or back."""
    array = np.ascontiguousarray(array)
    if array.nbytes == 0:
        return PackedArray(array.shape, array.dtype.str, b"")
    if array.dtype.kind == "f" and array.dtype.itemsize <= 8:
        # A slice through a window has as many values as the window has integers: their indices are half as long.
        bits = array.reshape(-1).view(f"u{array.dtype.itemsize}")
        values, indices = np.unique(bits, return_inverse=True)
        if len(values) <= min(_LARGEST_PALETTE, array.size // 4):
            narrow = indices.astype(np.min_scalar_type(len(values) - 1))
            return PackedArray(array.shape, array.dtype.str, _compressed(narrow), _compressed(values))
    return PackedArray(array.shape, array.dtype.str, _compressed(array))


def unpack_array(packed: PackedArray) -> np.ndarray:
    """The array that was packed, a new one."""
    dtype = np.dtype(packed.dtype)
    if not packed.data:
        return np.empty(packed.shape, dtype)
    flat = _expanded(packed.data)
    if packed.palette:
        values = _expanded(packed.palette).view(f"u{dtype.itemsize}")
        flat = values[flat.view(np.min_scalar_type(len(values) - 1))]
    return flat.view(dtype).reshape(packed.shape).copy()


def _compressed(array: np.ndarray) -> bytes:
    from numcodecs import Blosc

    return bytes(Blosc(cname="zstd", clevel=3, shuffle=Blosc.SHUFFLE).encode(array))


def _expanded(frame: bytes) -> np.ndarray:
    from numcodecs import Blosc

    return np.frombuffer(Blosc().decode(frame), np.uint8)


def connect(address: str, timeout: float = 10.0) -> Cluster:
    """A cluster whose scheduler listens at `address`, such as "tcp://gpu-box:8786", within `timeout` seconds.

    Raises ClusterUnreachable if distributed is not installed, nobody answers, no worker is there, or scheduler,
    workers and this program have versions that do not fit; InvalidOption for a timeout that is none.
    """
    cluster = Cluster(normal_address(address), real(timeout, "a timeout in seconds", above=0))
    cluster.open()
    return cluster


def normal_address(address: str) -> str:
    """A scheduler's address with its protocol. Raises ClusterUnreachable for what cannot be one."""
    text = text_of(address, "a scheduler's address", ClusterUnreachable).strip().rstrip("/")
    if "://" not in text:
        text = f"tcp://{text}"
    host, _, port = text.partition("://")[2].rpartition(":")
    if not text.startswith(_SCHEMES) or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ClusterUnreachable(
            f"{address!r} is no scheduler's address; expected a protocol, host and port, such as tcp://gpu-box:8786."
        )
    return text


class Task:
    """Work given to a cluster; `result` waits for it, and gives it out again if the connection came back meanwhile."""

    def __init__(self, cluster: Cluster, start: Callable[[], Any], retries: int) -> None:
        self._cluster, self._start, self._retries = cluster, start, retries
        self._future = start()
        self._answer: Future[Any] | None = None  # the result on its way, once it is asked for

    def done(self) -> bool:
        """Whether a result, or an error, is there."""
        return bool(self._future.done())

    def cancel(self) -> None:
        """Stop waiting; what runs already runs to its end, and its result is dropped."""
        if self._answer is not None:
            self._answer.cancel()
        with suppress(Exception):  # the connection may be gone, and then so is the work
            self._future.cancel()

    def result(self, timeout: float | None = None) -> Any:
        """What the function returned; its own errors are raised as they are.

        timeout: seconds, None for as long as workers are there. Raises TimeoutError, or ClusterLost if the scheduler
        went away, no worker was left for 10 s, or workers died of this work.
        """
        from distributed import KilledWorker

        begun = time.monotonic()
        check = self._cluster.watch()
        while True:
            if self._future.client.status in ("closing", "closed"):
                self._again()  # somebody else found the connection lost, and perhaps another
            if self._answer is None:
                self._answer = _on_its_way(self._future)
            try:
                return self._answer.result(timeout=_POLL_SECONDS)
            except KilledWorker as error:
                raise ClusterLost(
                    f"workers of {self._cluster.address} died doing this; they may lack memory. It can run here."
                ) from error
            except TimeoutError:
                if self._answer.done():
                    raise  # the work's own
            except Exception as error:
                if not _is_lost(error):
                    raise
                self._again(error)
            if timeout is not None and time.monotonic() - begun > timeout:
                raise TimeoutError(f"{self._cluster.address} gave no answer within {timeout:g} s.")
            check()

    def _again(self, error: Exception | None = None) -> None:
        """Give the work out again after the scheduler was lost, or raise ClusterLost."""
        if self._retries > 0 and self._cluster.reconnect():
            self._retries -= 1
            self._future, self._answer = self._start(), None
            return
        raise ClusterLost(f"the connection to {self._cluster.address} was lost.") from error


class Cluster:
    """A connection to a scheduler; made by `connect`. Safe to use from threads.

    patience: seconds to wait for a worker once none is left.
    """

    def __init__(self, address: str, timeout: float, patience: float = _PATIENCE_SECONDS) -> None:
        self.address, self.timeout, self.patience = address, timeout, patience
        self._client: Any = None
        self._closed = False
        self._told: ClusterState = "local"
        self._listeners: list[Callable[[ClusterState], None]] = []
        self._opening = threading.RLock()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state(self) -> ClusterState:
        """Where work runs now."""
        if self._closed or self._client is None:
            state: ClusterState = "local"
        else:
            state = "connected" if self.has_workers() else "reconnecting"
        self._tell(state)
        return state

    def subscribe(self, callback: Callable[[ClusterState], None]) -> Callable[[], None]:
        """Call `callback(state)` when a change of state is noticed, in whatever thread; returns how to stop that."""
        self._listeners.append(callback)

        def unsubscribe() -> None:
            if callback in self._listeners:
                self._listeners.remove(callback)

        return unsubscribe

    def workers(self) -> list[Worker]:
        """The workers that are there now; empty when the connection is lost."""
        client = self._client
        if client is None or client.status != "running":
            return []
        try:
            known = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=self.timeout)["workers"]
        except (OSError, RuntimeError, AttributeError, TimeoutError, UnboundLocalError):
            return []  # the last is what distributed raises when it closes while one asks (dask/distributed#8514)
        return [Worker(at, int(one["nthreads"]), int(one.get("memory_limit") or 0)) for at, one in known.items()]

    def has_workers(self) -> bool:
        """Whether anybody is there to work."""
        return bool(self.workers())

    def watch(self) -> Callable[[], None]:
        """What to call again and again while waiting; it raises ClusterLost once workers are missing for `patience`."""
        alone_since: float | None = None

        def check() -> None:
            nonlocal alone_since
            if self.has_workers():
                alone_since = None
            elif alone_since is None:
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > self.patience:
                raise ClusterLost(f"{self.address} has no worker any more; start one, or work here.")

        return check

    def submit(
        self, function: Callable[..., Any], *args: Any, retries: int = 2, worker: str | None = None, **kwargs: Any
    ) -> Task:
        """Have `function(*args, **kwargs)` run on a worker.

        retries: how often it is given out again when its worker or the connection is lost. worker: the address of the
        worker that should do it if it is there. Raises ClusterLost without a connection.
        """

        def start() -> Any:
            client = self._client
            if self._closed or client is None or client.status != "running":
                raise ClusterLost(f"there is no connection to {self.address}.")
            where = {} if worker is None else {"workers": [worker], "allow_other_workers": True}
            return client.submit(function, *args, pure=False, **where, **kwargs)

        if self._client is not None and not self._closed and self._client.status != "running":
            self.reconnect()
        return Task(self, start, retries)

    def call(self, function: Callable[..., Any], *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """`submit` and wait; errors as Task.result's."""
        return self.submit(function, *args, **kwargs).result(timeout)

    def open(self) -> None:
        """Connect. Raises ClusterUnreachable."""
        try:
            from distributed import Client
        except ImportError as error:
            raise ClusterUnreachable(
                f"working on {self.address} needs the package distributed; install it with pip install distributed."
            ) from error
        with self._opening:
            try:
                client = Client(self.address, timeout=self.timeout, set_as_default=False, name=_PACKAGE)
            except (OSError, ValueError, RuntimeError) as error:
                raise ClusterUnreachable(
                    f"no scheduler answers at {self.address} within {self.timeout:g} s; "
                    f"start one with: dask scheduler --port {self.address.rpartition(':')[2]}"
                ) from error
            try:
                client.wait_for_workers(1, timeout=self.timeout)
                _check_versions(self.address, client.get_versions(packages=[_PACKAGE]))
            except TimeoutError as error:
                client.close(timeout=_CLOSING_SECONDS)
                raise ClusterUnreachable(
                    f"the scheduler at {self.address} has no worker; start one with: dask worker {self.address}"
                ) from error
            except BaseException:
                client.close(timeout=_CLOSING_SECONDS)
                raise
            self._client, self._closed = client, False
        self._tell("connected")

    def reconnect(self) -> bool:
        """Connect again if the connection is lost; whether it is there now. Waits up to the timeout."""
        with self._opening:
            if self._closed:
                return False
            if self._client is not None and self._client.status == "running" and self.has_workers():
                return True
            self._tell("reconnecting")
            self._drop()
            try:
                self.open()
            except ClusterUnreachable:
                self._tell("reconnecting")
                return False
            return True

    def close(self) -> None:
        """Let go of the connection; scheduler and workers go on."""
        with self._opening:
            self._closed = True
            self._drop()
        self._tell("local")

    def _drop(self) -> None:
        client = self._client
        if client is not None and client.status != "closed":
            with suppress(Exception):  # it may be half gone already
                client.close(timeout=_CLOSING_SECONDS)

    def _tell(self, state: ClusterState) -> None:
        if state != self._told:
            self._told = state
            for listener in list(self._listeners):
                listener(state)


def _on_its_way(future: Any) -> Future[Any]:
    """The result of a future of distributed, asked for once and waited for as often as one likes.

    Its own `result(timeout)` asks anew each time and takes the question back when the time is over: a result that is
    longer on its way never comes, or what was taken back is taken for the answer (dask/distributed#8514).
    """
    client = future.client
    return asyncio.run_coroutine_threadsafe(client.gather(future, asynchronous=True), client.loop.asyncio_loop)


def _is_lost(error: Exception) -> bool:
    """Whether an error says that the connection, not the work, failed."""
    from distributed.client import FutureCancelledError
    from distributed.comm.core import CommClosedError

    return isinstance(error, CancelledError | FutureCancelledError | CommClosedError)


def _check_versions(address: str, known: dict[str, Any]) -> None:
    """Raises ClusterUnreachable where pickles or protocols of two sides would not fit, or results would differ."""
    here = known["client"]["packages"]
    places: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
        f"the scheduler at {address}": (known["scheduler"]["packages"], ("distributed",))
    }
    for worker, said in known["workers"].items():
        places[f"the worker at {worker}"] = (said["packages"], ("distributed", _PACKAGE))
    for place, (there, packages) in places.items():
        for package in packages:
            if there.get(package) != here.get(package):
                raise ClusterUnreachable(
                    f"{place} has {package} {there.get(package) or 'not installed'}, here is {here.get(package)}; "
                    "install the same version in both places."
                )
        python, python_here = (".".join(str(one["python"]).split(".")[:2]) for one in (there, here))
        if python != python_here:
            raise ClusterUnreachable(
                f"{place} runs Python {python}, here is {python_here}; use the same version in both places."
            )
