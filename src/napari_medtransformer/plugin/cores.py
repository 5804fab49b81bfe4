"""How many cores other programs leave, so that no team of threads waits for one that does not get its turn.

A layer of a click's answer is shared between torch's threads and done when the last of them is. If another program
keeps one of two cores busy, the thread there comes to its share milliseconds later, layer after layer, while the other
looks out for it: an answer then took 0.9 s on two threads and 0.07 s on one.
"""

from __future__ import annotations

import sys
import time
from functools import lru_cache

import psutil
from qtpy.QtCore import QObject, QTimer

from napari_medtransformer.openmp import keep_to

LOOK_MS = 500
"""As often the cores are looked at: the system counts in hundredths of a second."""


class FreeCores(QObject):
    """Looks at what other programs take, and sizes torch's team. Lives in the window's thread; `share` is for any."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._cores = psutil.cpu_count() or 1
        self.free = self._cores
        self._last = _counted()
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_MS)
        self._timer.timeout.connect(self.look)
        self._timer.start()

    def look(self) -> None:
        """Count anew what came since the last look."""
        now = _counted()
        seconds, busy, own = (after - before for after, before in zip(now, self._last, strict=True))
        if seconds > 0:
            others = max(0.0, busy - own) / seconds
            self.free = max(1, round(self._cores - others))
            self._last = now

    def share(self, spare: int = 0) -> None:
        """Let torch use as many threads as cores are free for what the calling thread asks, but for some to spare."""
        if "torch" in sys.modules:
            keep_to(max(1, min(self.free, _most_threads()) - spare))

    def stop(self) -> None:
        """Look no more."""
        self._timer.stop()


@lru_cache(maxsize=1)
def _most_threads() -> int:
    """What torch was told to use at most, or found."""
    import torch

    return torch.get_num_threads()


def _counted() -> tuple[float, float, float]:
    """Seconds by the clock, of processor time that all programs took, and of that this one did."""
    times = psutil.cpu_times()
    parts = ("user", "nice", "system", "irq", "softirq", "steal")
    return time.perf_counter(), sum(getattr(times, part, 0.0) for part in parts), time.process_time()
