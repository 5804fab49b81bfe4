"""torch's team is no larger than the cores that other programs leave."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from napari_medtransformer.plugin import cores
from napari_medtransformer.plugin.cores import FreeCores
from napari_medtransformer.plugin.work import WorkQueue


class Clock:
    """What the system counts, told by the test: seconds, of all programs, of this one."""

    def __init__(self) -> None:
        self.now = (0.0, 0.0, 0.0)

    def __call__(self) -> tuple[float, float, float]:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(cores, "_counted", made)
    monkeypatch.setattr(cores.psutil, "cpu_count", lambda: 4)
    return made


@pytest.mark.parametrize(
    ("all_programs", "this_one", "free"),
    [(0.0, 0.0, 4), (3.0, 3.0, 4), (0.3, 0.0, 4), (1.0, 0.0, 3), (2.5, 1.4, 3), (4.0, 0.1, 1), (9.0, 0.0, 1)],
)
def test_cores_are_free_that_no_other_program_takes(
    qapp: Any, clock: Clock, all_programs: float, this_one: float, free: int
) -> None:
    looked = FreeCores()
    clock.now = (1.0, all_programs, this_one)
    looked.look()
    assert looked.free == free
    looked.look()  # no time has passed: nothing is known anew
    assert looked.free == free
    looked.stop()


def test_what_is_past_no_longer_counts(qapp: Any, clock: Clock) -> None:
    looked = FreeCores()
    for now, free in (((1.0, 3.0, 0.0), 1), ((2.0, 3.1, 0.1), 4)):
        clock.now = now
        looked.look()
        assert looked.free == free
    looked.stop()


@pytest.fixture
def busy_program() -> Iterator[None]:
    """Another program that keeps a core busy."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield
    other.kill()
    other.wait()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="of one core none is left in any case")
def test_a_program_that_keeps_a_core_busy_is_seen(qapp: Any, busy_program: None) -> None:
    looked = FreeCores()
    time.sleep(1.0)
    looked.look()
    assert looked.free < (os.cpu_count() or 1)
    looked.stop()


def test_jobs_of_a_lasting_queue_run_on_the_free_cores_and_others_on_all(
    qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = torch.get_num_threads(), {}
    monkeypatch.setattr(cores, "_most_threads", lambda: before)
    for lasting in (True, False):
        queue = WorkQueue(lasting=lasting)
        for free in (1, 2, 8):
            if lasting:
                queue._cores.free = free
                queue._cores.stop()
            found = threading.Event()
            queue.submit(
                lambda: torch.get_num_threads(),
                label="",
                on_done=lambda n, lasting=lasting, free=free: seen.update({(lasting, free): n}),
                on_end=found.set,
            )
            qtbot.waitUntil(found.is_set)
        queue.close()
        queue.wait()
    assert {free: n for (lasting, free), n in seen.items() if lasting} == {1: 1, 2: min(2, before), 8: before}
    assert {n for (lasting, _), n in seen.items() if not lasting} == {before}
    assert torch.get_num_threads() == before
