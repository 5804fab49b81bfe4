"""Many volumes: here one after another, in several processes, or on a cluster; resumable, and nothing half-written."""

from __future__ import annotations

import csv
import io
import os
import re
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

from filelock import FileLock, Timeout

from napari_medtransformer.errors import CannotWrite, ClusterLost, MedTransformerError
from napari_medtransformer.progress import Partial, Progress, Result, Steps
from napari_medtransformer.segmentation.work import (
    Done,
    Errand,
    Job,
    check_ours,
    elsewhere,
    errand_steps,
    finished,
    run_errand,
)

SUMMARY = "summary.csv"
FAILURES = "failures.csv"
_LOCK = ".medtransformer.lock"
_TABLE_START = b"case,input"
_LOOK_SECONDS = 0.1
# How often a case is begun when the processes that did it died.
_TRIES = 3
_PART = re.compile(r"^\.(?P<name>.+)\.[0-9a-f]{8}\.part$")


@dataclass(frozen=True)
class Failed:
    """A case that could not be done. error: one line."""

    name: str
    input: str
    error: str


@dataclass(frozen=True)
class BatchReport:
    """A whole batch, by name: what is done, now or before (`skipped`), and what failed."""

    done: tuple[Done, ...]
    failed: tuple[Failed, ...]


class Handle(Protocol):
    """Work given out."""

    def done(self) -> bool: ...
    def result(self) -> Any: ...
    def cancel(self) -> Any: ...


def batch_steps(
    errands: Sequence[Errand], job: Job, folder: Path, *, jobs: int = 1, cluster: Any = None
) -> Steps[BatchReport]:
    """Segment every case whose labels are not there yet; Progress in cases, Partial of each Done or Failed.

    folder: where the labels lie; SUMMARY (millilitres per structure) and, if any case failed, FAILURES are written
    there. jobs: processes of this machine. cluster: a cluster.Cluster, whose workers see the same folders. A case that
    fails is reported and the others go on; work of a process or worker that died is done again elsewhere, and fails
    once no worker is left. Files of those names that no batch made, and labels that were changed since, are left alone,
    and their cases fail.
    Raises CannotWrite if another batch works on the folder, or has tables that no batch made.
    """
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise CannotWrite(f"another batch is writing to {folder}; wait for it, or choose another folder.") from None
    try:
        _check_tables(folder)
        _remove_parts(errands)
        report = yield from _all(errands, job, jobs, cluster)
        _write_tables(report, job, folder)
        yield Result(report)
    finally:
        _remove_parts(errands)
        lock.release()
        with suppress(OSError):
            (folder / _LOCK).unlink()


def _all(
    errands: Sequence[Errand], job: Job, jobs: int, cluster: Any
) -> Generator[Progress | Partial[Done | Failed], None, BatchReport]:
    total = len(errands)
    outcomes: dict[str, Done | Failed] = {}
    open_errands = []
    for errand in errands:
        before: Done | Failed | None = finished(job, errand)
        if before is None:
            try:
                check_ours(errand)
            except CannotWrite as error:
                before = _failed(errand, error)
        if before is None:
            open_errands.append(errand)
        else:
            outcomes[errand.case.name] = before
            yield Partial(before)
            said = "done before" if isinstance(before, Done) else before.error
            yield Progress(len(outcomes), total, f"{before.name}: {said}")
    if cluster is not None:
        steps = _on_cluster(open_errands, job, cluster)
    elif jobs > 1 and len(open_errands) > 1:
        steps = _in_processes(open_errands, job, min(jobs, len(open_errands)))
    else:
        steps = _here(open_errands, job)
    for step in steps:
        if isinstance(step, Progress):
            yield Progress(len(outcomes), total, step.message)
        else:
            outcomes[step.name] = step
            yield Partial(step)
            yield Progress(len(outcomes), total, step.name)
    in_order = [outcomes[errand.case.name] for errand in errands]
    done = tuple(one for one in in_order if isinstance(one, Done))
    return BatchReport(done, tuple(one for one in in_order if isinstance(one, Failed)))


def _here(errands: Sequence[Errand], job: Job) -> Iterator[Progress | Done | Failed]:
    """One after another, in this thread, with every window's progress."""
    for errand in errands:
        try:
            for step in errand_steps(*elsewhere(job, errand)):
                if isinstance(step, Progress):
                    yield replace(step, message=f"{errand.case.name}: {step.message}")
                else:
                    yield step.value
        except Exception as error:  # whatever it is, the other cases go on
            yield _failed(errand, error)


def _on_cluster(errands: Sequence[Errand], job: Job, cluster: Any) -> Iterator[Progress | Done | Failed]:
    """On the workers of a cluster, which does a lost worker's cases again, until none is left."""

    def submit(errand: Errand) -> Handle:
        handle: Handle = cluster.submit(run_errand, *elsewhere(job, errand))
        return handle

    left = {errand.case.name: errand for errand in errands}
    try:
        for step in _given_out(errands, submit, cluster.watch()):
            if not isinstance(step, Progress):
                del left[step.name]
            yield step
    except ClusterLost as error:
        for errand in left.values():
            yield _failed(errand, error)


def _given_out(
    errands: Sequence[Errand], submit: Callable[[Errand], Handle], check: Callable[[], None] = lambda: None
) -> Iterator[Progress | Done | Failed]:
    """All at once to whoever works, taken back as they come; check: raises where nobody works any more."""
    waiting = [(errand, submit(errand)) for errand in errands]
    try:
        while waiting:
            ready = [pair for pair in waiting if pair[1].done()]
            waiting = [pair for pair in waiting if pair not in ready]
            for errand, handle in ready:
                try:
                    yield handle.result()
                except BrokenProcessPool:
                    waiting.append((errand, handle))
                    raise
                except Exception as error:  # whatever it is, the other cases go on
                    yield _failed(errand, error)
            if waiting and not ready:
                time.sleep(_LOOK_SECONDS)
                check()
                yield Progress(0, None, f"{len(waiting)} cases to go")
    finally:
        for _, handle in waiting:
            handle.cancel()


def _in_processes(errands: Sequence[Errand], job: Job, jobs: int) -> Iterator[Progress | Done | Failed]:
    """In processes of this machine, which share its cores; when one dies, what is not done is given out again."""
    mine = replace(job, threads=max(1, (os.cpu_count() or 1) // jobs))
    left = {errand.case.name: errand for errand in errands}
    while left:
        try:
            for step in _in_pool(list(left.values()), mine, jobs):
                if not isinstance(step, Progress):
                    del left[step.name]
                yield step
        except BrokenProcessPool:
            # Nobody knows which process died, and all are gone. Cases are begun in order: it worked on one of these.
            for errand in list(left.values())[:jobs]:
                del left[errand.case.name]
                yield from _alone(errand, mine)


def _alone(errand: Errand, job: Job) -> Iterator[Progress | Done | Failed]:
    """A case whose process may have died, in one of its own: if that dies too, it is the case."""
    for tries in range(2, _TRIES + 1):
        try:
            yield from _in_pool([errand], job, 1)
            return
        except BrokenProcessPool as error:
            if tries == _TRIES:
                yield _failed(errand, RuntimeError(f"{tries} processes died, perhaps for lack of memory: {error}"))


def _in_pool(errands: Sequence[Errand], job: Job, jobs: int) -> Iterator[Progress | Done | Failed]:
    """In new processes. Raises BrokenProcessPool when one dies."""
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_end_with_parent)
    try:
        yield from _given_out(errands, partial(_submit, pool, job))
    finally:
        _end(pool)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, killed perhaps: nobody would ever give it work again."""
    parent = parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        Thread(target=watch, name="parent-watch", daemon=True).start()


def _end(pool: ProcessPoolExecutor) -> None:
    """Stop the processes at once, whether they work, wait or still start: what they half wrote is taken away later."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _submit(pool: ProcessPoolExecutor, job: Job, errand: Errand) -> Future[Done]:
    return pool.submit(run_errand, *elsewhere(job, errand))


def _failed(errand: Errand, error: BaseException) -> Failed:
    text = " ".join(str(error).split())
    if not isinstance(error, MedTransformerError):
        text = f"{type(error).__name__}: {text}"
    return Failed(errand.case.name, str(errand.case.path), text)


def _remove_parts(errands: Sequence[Errand]) -> None:
    """Take away what killed processes left half-written beside the outputs; nobody else writes there now."""
    ours: dict[Path, set[str]] = {}
    for errand in errands:
        for path in (errand.output, errand.record, *([errand.uncertainty] if errand.uncertainty else [])):
            ours.setdefault(path.parent, set()).add(path.name[:80])
    for folder, names in ours.items():
        if not folder.is_dir():
            continue
        for file in folder.iterdir():
            match = _PART.match(file.name)
            if match and match["name"] in names:
                with suppress(OSError):
                    file.unlink()


def _check_tables(folder: Path) -> None:
    """Raises CannotWrite where a file that no batch made has the name of a table."""
    for table in (folder / SUMMARY, folder / FAILURES):
        if table.exists():
            with suppress(OSError), table.open("rb") as stream:
                if stream.read(len(_TABLE_START)) == _TABLE_START:
                    continue
            raise CannotWrite(f"{table} is not from this program's batch and was left alone; choose another folder.")


def _write_tables(report: BatchReport, job: Job, folder: Path) -> None:
    """The summary of what is done, and of what failed or nothing."""
    from napari_medtransformer.files import replacing

    structures = list(dict.fromkeys(label.name for label in job.card.labels))
    rows = [
        [
            one.name,
            Path(one.input).name,
            *(f"{one.volumes_ml[name]:.6g}" if name in one.volumes_ml else "" for name in structures),
        ]
        for one in report.done
    ]
    with replacing(folder / SUMMARY) as stream:
        stream.write(_csv([["case", "input", *(f"{name} [ml]" for name in structures)], *rows]))
    if report.failed:
        with replacing(folder / FAILURES) as stream:
            stream.write(_csv([["case", "input", "error"], *([f.name, f.input, f.error] for f in report.failed)]))
    else:
        with suppress(FileNotFoundError):
            (folder / FAILURES).unlink()


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()
