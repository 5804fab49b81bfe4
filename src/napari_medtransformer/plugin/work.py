"""One worker thread for everything that is slow, so that the window never waits and model calls never overlap."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from qtpy.QtCore import QObject, Qt, Signal

from napari_medtransformer.plugin.cores import FreeCores
from napari_medtransformer.progress import Partial, Progress, Result

Handler = Callable[[Any], None]

_NICER = 4
"""So much nicer is the worker: beside a thread of the window it gets about a third of a core that both want.

With 10, a tenth, two other programs on two cores kept the first click of a demo waiting 5.5 s; with 4 it took 0.7 s, as
without them.
"""


def _give_way() -> None:
    """Let the window's thread, and those of a software renderer, go before the calling one and all that it starts.

    Where a network takes all cores, a frame else waits its turn, and with it the answer that it is to show. Linux
    only: elsewhere threads have no niceness of their own, or do not hand it to the team of threads they start.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(nice + _NICER, 19))


@dataclass(eq=False)
class Job:
    """Work that was asked for. `cancel` stops it before it starts, or at the next yield of its generator.

    key: of several waiting jobs with one key only the newest runs; None runs in any case. label: what the user reads
    while it runs; empty for quick work that is not worth a word.
    """

    label: str
    key: str | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        self.cancelled.set()


class WorkQueue(QObject):
    """Runs jobs one after another in one thread of its own, and their handlers in the window's thread.

    lasting: whether that thread stays when nothing is left. Else it ends, and torch's team of threads with it: several
    teams at once make all of them slower (see `openmp`). In one that stays, that team is no larger than the cores that
    other programs leave (see `cores`).

    Urgent jobs, such as answering a click, go before the others, and between two steps of a generator that runs.
    Handlers of a cancelled job, and of any job after `close`, are not called; `on_end` always is, unless closed.
    """

    busy_changed = Signal(str)  # the label of the job that runs; empty when none with a label is left
    _report = Signal(object, object)

    def __init__(self, *, lasting: bool = False) -> None:
        super().__init__()
        self._lasting = lasting
        self._cores = FreeCores(self) if lasting else None
        self._executor: ThreadPoolExecutor | None = None
        self._newest: dict[str, Job] = {}
        self._open: list[Job] = []
        self._urgent: deque[Callable[[], None]] = deque()
        self._waiting: deque[Callable[[], None]] = deque()
        self._closed = False
        # Emitted in the worker, delivered in the thread this object lives in: the window's.
        self._report.connect(self._deliver, Qt.ConnectionType.QueuedConnection)

    @property
    def pending(self) -> int:
        """Jobs that wait or run."""
        return len(self._open)

    def share_cores(self, spare: int = 0) -> None:
        """In the worker: size torch's team by what is free now, but for some cores to spare."""
        if self._cores is not None:
            self._cores.share(spare)

    def submit(
        self,
        function: Callable[[], Any],
        *,
        label: str,
        on_done: Handler | None = None,
        on_error: Handler | None = None,
        on_end: Callable[[], None] | None = None,
        key: str | None = None,
        urgent: bool = False,
    ) -> Job:
        """Run `function()` in the worker and hand its value to `on_done`, or its exception to `on_error`."""
        job = Job(label, key)
        self._enqueue(
            job, lambda: self._call(job, function, on_done), on_error, on_end, self._urgent if urgent else None
        )
        return job

    def submit_steps(
        self,
        make_steps: Callable[[], Iterator[Progress | Partial[Any] | Result[Any]]],
        *,
        label: str,
        on_progress: Handler | None = None,
        on_partial: Handler | None = None,
        on_done: Handler | None = None,
        on_error: Handler | None = None,
        on_end: Callable[[], None] | None = None,
        key: str | None = None,
    ) -> Job:
        """Drive a generator of Progress | Partial | Result in the worker; it can be cancelled at every yield."""
        job = Job(label, key)
        handlers = {Progress: on_progress, Partial: on_partial, Result: on_done}
        self._enqueue(job, lambda: self._drive(job, make_steps, handlers), on_error, on_end)
        return job

    def close(self) -> None:
        """Cancel everything; what runs ends by itself and nobody hears of it."""
        self._closed = True
        if self._cores is not None:
            self._cores.stop()
        for job in self._open:
            job.cancel()
        self._open.clear()
        self._urgent.clear()
        self._waiting.clear()
        self._newest.clear()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    def wait(self) -> None:
        """Block until what runs has ended; for the end of the program, after `close`."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def _enqueue(
        self,
        job: Job,
        work: Callable[[], None],
        on_error: Handler | None,
        on_end: Any,
        line: deque[Callable[[], None]] | None = None,
    ) -> None:
        if self._closed:
            return
        if job.key is not None:
            superseded = self._newest.get(job.key)
            if superseded is not None:
                superseded.cancel()
            self._newest[job.key] = job
        self._open.append(job)
        (self._waiting if line is None else line).append(lambda: self._run(job, work, on_error, on_end))
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="medtransformer", initializer=_give_way)
        self._executor.submit(self._run_next)

    def _run_next(self) -> None:
        """In the worker thread: what is most urgent. One call per job; a job that ran inside another leaves it idle."""
        for line in (self._urgent, self._waiting):
            if line:
                line.popleft()()
                return

    def _run(self, job: Job, work: Callable[[], None], on_error: Handler | None, on_end: Any) -> None:
        """In the worker thread."""
        if not job.cancelled.is_set():
            if job.label:
                self._tell(None, lambda: self.busy_changed.emit(job.label))
            self.share_cores()
            try:
                work()
            except Exception as error:  # whatever it is, it is shown in the window's thread, never lost in this one
                # A traceback keeps frames, and with them widgets and arrays, alive: only the text goes on to the log.
                if on_error is not None:
                    self._tell(job, lambda error=error: on_error(error))
        self._tell(None, lambda: self._ended(job, on_end))

    def _call(self, job: Job, function: Callable[[], Any], on_done: Handler | None) -> None:
        value = function()
        if on_done is not None:
            self._tell(job, lambda: on_done(value))

    def _drive(self, job: Job, make_steps: Callable[[], Iterator[Any]], handlers: dict[type, Handler | None]) -> None:
        steps = make_steps()
        try:
            for step in steps:
                if job.cancelled.is_set():
                    return
                handler = handlers[type(step)]
                if handler is not None:
                    value = step if isinstance(step, Progress) else step.value
                    self._tell(job, lambda handler=handler, value=value: handler(value))
                while self._urgent:
                    self._urgent.popleft()()
                    if job.label:
                        self._tell(None, lambda: self.busy_changed.emit(job.label))
        finally:
            close = getattr(steps, "close", None)
            if close is not None:
                close()

    def _tell(self, job: Job | None, action: Callable[[], None]) -> None:
        if not self._closed:
            self._report.emit(job, action)

    def _deliver(self, job: Job | None, action: Callable[[], None]) -> None:
        """In the window's thread."""
        if self._closed or (job is not None and job.cancelled.is_set()):
            return
        action()

    def _ended(self, job: Job, on_end: Callable[[], None] | None) -> None:
        if job in self._open:
            self._open.remove(job)
        if job.key is not None and self._newest.get(job.key) is job:
            del self._newest[job.key]
        if job.label and not any(waiting.label for waiting in self._open):
            self.busy_changed.emit("")
        if on_end is not None:
            on_end()
        if not self._open and not self._lasting and self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None
