"""How long the window is ever held up while a volume is segmented, and by what.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/segment_pauses.py [--case mr|tiled|large] [--repeat N]

A real viewer and the real Segment dock with the bundled model. A heartbeat of 5 ms runs in the window's thread from the
press of Segment to the filled table. Gaps between two beats are given by the clock, and by what that thread computed
itself meanwhile: a gap in which it did not compute was another process's, or a worker's that held the interpreter's
lock. Beside every long gap stands the function of this package, or of napari, that ran in the middle of it.

mr: the sample MR about a hippocampus. tiled: 16 of them, so that there are many windows. large: 512 × 512 × 96 voxels,
cancelled after some slabs.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

BEAT_MS = 5
LONG_S = 0.05
PATIENCE_S = 300.0


@dataclass
class Heart:
    """Beats while the event loop is free. gaps: (when, wall seconds, seconds of this thread's CPU, what ran)."""

    gaps: list[tuple[float, float, float, str]] = field(default_factory=list)
    last: tuple[float, float] = (0.0, 0.0)
    thread: int = field(default_factory=threading.get_ident)
    seen: Counter[str] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)
    collections: list[float] = field(default_factory=list)
    collecting: float = 0.0

    def collected(self, phase: str, info: dict[str, int]) -> None:
        """Called by the garbage collector: how long it takes the interpreter to look through everything."""
        if info["generation"] < 2:
            return
        if phase == "start":
            self.collecting = time.perf_counter()
        else:
            self.collections.append(1000 * (time.perf_counter() - self.collecting))

    def beat(self) -> None:
        """Once per beat, in the window's thread."""
        now = (time.perf_counter(), time.thread_time())
        if self.last[0]:
            what = self.seen.most_common(1)[0][0] if self.seen else ""
            self.gaps.append((now[0], now[0] - self.last[0], now[1] - self.last[1], what))
        self.seen = Counter()
        self.last = now

    def watch(self) -> None:
        """In another thread: what the window's thread does while a beat is overdue."""
        while not self.over.wait(0.004):
            if self.last[0] and time.perf_counter() - self.last[0] > 0.02:
                frames = traceback.extract_stack(sys._current_frames()[self.thread])
                ours = [f for f in frames if "napari" in f.filename and "benchmarks" not in f.filename]
                path = " < ".join(f"{Path(f.filename).stem}.{f.name}" for f in reversed(ours[-6:]))
                self.seen[path] += 1


def sample(case: str) -> Any:
    """The image layer of a case."""
    from napari.layers import Image

    from napari_medtransformer.plugin.layers import image_layer
    from napari_medtransformer.plugin.samples import hippocampus
    from napari_medtransformer.volumes import Volume

    data, options, _ = hippocampus()[0]
    if case != "mr":
        times = (4, 2, 2) if case == "tiled" else (3, 11, 15)
        many = np.tile(np.asarray(data), times)
        data, options, _ = image_layer(Volume.from_array(many[:96, :512, :512] if case == "large" else many))
    return Image(data, **options)


def pump(until: Any) -> None:
    """Let the window live until it is done."""
    from qtpy.QtWidgets import QApplication

    end = time.perf_counter() + PATIENCE_S
    while not until():
        if time.perf_counter() > end:
            raise TimeoutError("the window did not get there")
        QApplication.processEvents()
        time.sleep(0.0005)


def rest(seconds: float) -> None:
    """Let the window live for a while."""
    end = time.perf_counter() + seconds
    pump(lambda: time.perf_counter() > end)


def measure(case: str, repeat: int) -> None:
    """Print the gaps of every run."""
    import napari
    from qtpy.QtCore import Qt, QTimer

    viewer = napari.Viewer()
    viewer.window.resize(1600, 1000)
    viewer.add_layer(sample(case))
    _, dock = viewer.window.add_plugin_dock_widget("napari-medtransformer", "Segment")
    dock.options.uncertainty.setChecked(True)
    pump(lambda: dock.models.model is not None)
    rest(2.0)
    for number in range(repeat):
        heart, timer = Heart(), QTimer()
        watcher = threading.Thread(target=heart.watch, daemon=True)
        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.setInterval(BEAT_MS)
        timer.timeout.connect(heart.beat)
        timer.start()
        watcher.start()
        gc.callbacks.append(heart.collected)
        begun = time.perf_counter()
        rest(0.1)
        dock.run.click()
        if case == "large":
            pump(lambda: dock.state.slabs > 4 or not dock.state.running)
            dock.state.cancel()
        pump(lambda: not dock.state.running and bool(dock.state.organs) and not dock.queue.pending)
        rest(1.0)
        timer.stop()
        heart.over.set()
        watcher.join()
        gc.callbacks.remove(heart.collected)
        wall, cpu = (1000 * np.array([gap[i] for gap in heart.gaps]) for i in (1, 2))
        print(
            f"run {number + 1}: longest gap {wall.max():.0f} ms, of own work {cpu.max():.0f}; over 50 ms "
            f"{np.count_nonzero(wall > 50)}, by own work {np.count_nonzero(cpu > 50)}; {len(wall)} beats; "
            f"full garbage collections: {', '.join(f'{ms:.0f} ms' for ms in heart.collections) or 'none'}"
        )
        for when, gap, own, what in heart.gaps:
            if gap > LONG_S or own > LONG_S:
                print(f"   {when - begun:6.2f} s  {1000 * gap:4.0f} ms, own {1000 * own:4.0f}  {what}")
        sys.stdout.flush()
    viewer.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=("mr", "tiled", "large"), default="mr")
    parser.add_argument("--repeat", type=int, default=2)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        os.environ["MEDT_PREFERENCES"] = str(Path(folder) / "preferences.json")
        os.environ["XDG_STATE_HOME"] = folder
        measure(options.case, options.repeat)


if __name__ == "__main__":
    main()
