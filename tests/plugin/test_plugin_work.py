"""The worker: one job at a time, the newest of a kind, never in the window's way."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from napari_medtransformer.errors import InvalidPrompt
from napari_medtransformer.plugin.work import WorkQueue
from napari_medtransformer.progress import Partial, Progress, Result


@pytest.fixture
def queue(qtbot):
    made = WorkQueue()
    yield made
    made.close()
    made.wait()


def test_functions_run_in_another_thread_and_handlers_in_this_one(qtbot, queue) -> None:
    threads = {}
    queue.submit(
        lambda: threads.setdefault("work", threading.get_ident()),
        label="work",
        on_done=lambda _: threads.setdefault("done", threading.get_ident()),
    )
    qtbot.waitUntil(lambda: queue.pending == 0)
    assert threads["done"] == threading.get_ident() != threads["work"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness per thread")
def test_the_worker_and_the_threads_it_starts_give_way_to_the_window(qtbot, queue) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def both() -> tuple[int, int]:
        found: list[int] = []
        started = threading.Thread(target=lambda: found.append(niceness()))
        started.start()
        started.join()
        return niceness(), found[0]

    before, found = niceness(), []
    queue.submit(both, label="work", on_done=found.append)
    qtbot.waitUntil(lambda: queue.pending == 0)
    assert found == [(min(before + 4, 19),) * 2]  # more, and two busy programs hold a click up for seconds
    assert niceness() == before


def test_of_waiting_jobs_with_one_key_only_the_newest_runs(qtbot, queue) -> None:
    gate, ran, heard = threading.Event(), [], []
    queue.submit(gate.wait, label="first")
    for n in range(5):
        queue.submit(lambda n=n: ran.append(n) or n, label="click", key="slice 3", on_done=heard.append)
    queue.submit(lambda: ran.append("other"), label="click", key="slice 4")
    gate.set()
    qtbot.waitUntil(lambda: queue.pending == 0)
    assert ran == [4, "other"]
    assert heard == [4]


def test_the_answer_of_a_running_job_is_dropped_once_a_newer_one_is_asked(qtbot, queue) -> None:
    started, gate, heard = threading.Event(), threading.Event(), []

    def slow() -> str:
        started.set()
        gate.wait()
        return "old"

    queue.submit(slow, label="", key="slice", on_done=heard.append)
    started.wait()
    queue.submit(lambda: "new", label="", key="slice", on_done=heard.append)
    gate.set()
    qtbot.waitUntil(lambda: queue.pending == 0)
    assert heard == ["new"]


def test_steps_report_progress_and_partial_results_before_the_result(qtbot, queue) -> None:
    heard = []

    def steps():
        yield Progress(0, 2)
        yield Partial("half")
        yield Result("whole")

    queue.submit_steps(steps, label="steps", on_progress=heard.append, on_partial=heard.append, on_done=heard.append)
    qtbot.waitUntil(lambda: queue.pending == 0)
    assert heard == [Progress(0, 2), "half", "whole"]


def test_cancelled_steps_stop_at_the_next_yield_and_clean_up(qtbot, queue) -> None:
    seen, cleaned, ended = [], threading.Event(), []

    def steps():
        try:
            for n in range(10_000):
                yield Progress(n, 10_000)
                time.sleep(0.001)
        finally:
            cleaned.set()

    job = queue.submit_steps(steps, label="long", on_progress=seen.append, on_end=lambda: ended.append(True))
    qtbot.waitUntil(lambda: len(seen) > 3)
    job.cancel()
    qtbot.waitUntil(lambda: queue.pending == 0)
    assert cleaned.is_set()
    assert len(seen) < 5_000
    assert ended == [True]


def test_an_error_goes_to_its_handler_and_the_next_job_runs(qtbot, queue) -> None:
    errors, values = [], []

    def fail() -> None:
        raise InvalidPrompt("a box is empty")

    queue.submit(fail, label="", on_done=values.append, on_error=errors.append)
    queue.submit(lambda: 7, label="", on_done=values.append)
    qtbot.waitUntil(lambda: queue.pending == 0)
    assert [str(error) for error in errors] == ["a box is empty"]
    assert values == [7]


def test_after_closing_nothing_is_heard(qtbot) -> None:
    queue, gate, heard = WorkQueue(), threading.Event(), []
    queue.submit(gate.wait, label="", on_done=heard.append)
    queue.close()
    gate.set()
    queue.wait()
    qtbot.wait(50)
    queue.submit(lambda: 1, label="", on_done=heard.append)
    qtbot.wait(50)
    assert heard == []


def test_the_label_of_what_runs_is_told_and_taken_back(qtbot, queue) -> None:
    told = []
    queue.busy_changed.connect(told.append)
    queue.submit(lambda: None, label="Predicting…")
    queue.submit(lambda: None, label="")
    qtbot.waitUntil(lambda: queue.pending == 0)
    assert told == ["Predicting…", ""]


@pytest.mark.parametrize("lasting", [True, False])
def test_only_a_lasting_thread_stays_when_nothing_is_left(qtbot, lasting: bool) -> None:
    queue, threads = WorkQueue(lasting=lasting), []
    for _ in range(2):
        queue.submit(lambda: threads.append(threading.current_thread()), label="")
        qtbot.waitUntil(lambda: queue.pending == 0)
        if not lasting:
            qtbot.waitUntil(lambda: not threads[-1].is_alive())
    assert [thread.is_alive() for thread in threads] == [lasting, lasting]
    assert (threads[0] is threads[1]) == lasting
    queue.close()
    queue.wait()
