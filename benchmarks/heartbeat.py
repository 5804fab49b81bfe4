"""How long the event loop of a window is held up, by the clock and by the window's own work, and who else computed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

BEAT_MS = 5
LONG_MS = 50
"""A pause that people feel."""


@dataclass
class Heart:
    """Beats while the event loop is free. gaps: (wall, this thread's CPU) seconds between beats."""

    gaps: list[tuple[float, float]] = field(default_factory=list)
    last: tuple[float, float] | None = None
    seconds: float = 0.0
    others: float | None = 0.0  # CPU seconds of other processes meanwhile; None where that is not known

    def beat(self) -> None:
        """Once per beat, in the window's thread."""
        now = (time.perf_counter(), time.thread_time())
        if self.last is not None:
            self.gaps.append((now[0] - self.last[0], now[1] - self.last[1]))
        self.last = now

    def told(self) -> dict[str, Any]:
        """What the gaps were, in milliseconds, and how many of the cores other processes took."""
        wall, cpu = (1000 * np.array(column) for column in zip(*self.gaps))
        return {
            "gap_median": round(float(np.median(wall)), 1),
            "gap_99th": round(float(np.percentile(wall, 99)), 1),
            "longest": round(float(wall.max()), 1),
            "own_cpu_in_longest": round(float(cpu[wall.argmax()]), 1),
            "most_own_cpu_in_a_gap": round(float(cpu.max()), 1),
            "gaps": len(wall),
            "gaps_over_50": int(np.count_nonzero(wall > LONG_MS)),
            "gaps_over_50_by_own_cpu": int(np.count_nonzero(cpu > LONG_MS)),
            "cores_taken_by_others": None if self.others is None else round(max(self.others, 0.0) / self.seconds, 2),
        }


@contextmanager
def beating(heart: Heart | None = None) -> Iterator[Heart]:
    """Have a heart beat meanwhile, in the thread of the window; a heart that beat before goes on."""
    from qtpy.QtCore import Qt, QTimer

    heart = Heart() if heart is None else heart
    heart.last = None
    timer = QTimer()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.setInterval(BEAT_MS)
    timer.timeout.connect(heart.beat)
    start, others = time.perf_counter(), _cpu_of_others()
    timer.start()
    try:
        yield heart
    finally:
        timer.stop()
        now = _cpu_of_others()
        heart.seconds += time.perf_counter() - start
        heart.others = None if heart.others is None or others is None or now is None else heart.others + now - others


@contextmanager
def working(work: Callable[[], None], threads: int) -> Iterator[None]:
    """Have a thread do some work of torch's again and again meanwhile, on so many cores."""
    over = threading.Event()

    def run() -> None:
        import torch

        torch.set_num_threads(threads)
        while not over.is_set():
            work()

    worker = threading.Thread(target=run)
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()


def _cpu_of_others() -> float | None:
    """CPU seconds that other processes have used so far. Linux only."""
    try:
        numbers = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return None
    idle, waiting = numbers[3], numbers[4]
    return (sum(numbers) - idle - waiting) / os.sysconf("SC_CLK_TCK") - time.process_time()
