"""From a click to the repainted canvas, and how long the event loop is ever held up, in a real viewer.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/click_latency.py [--clicks 200] [--size 512]

The sample CT is resampled to size × size pixels. A click is a real mouse event; it ends with the first frame the canvas
draws after the mask has changed. Wall times hold only on an idle machine, so CPU times stand beside them: of the whole
process per click, and of the window's own thread in the longest gap between two beats of a 5 ms heartbeat. A gap in
which that thread did not compute was somebody else's: another process, or a worker that held the interpreter's lock.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

BEAT_MS = 5
PATIENCE_S = 120.0


@dataclass
class Heart:
    """Beats while the event loop is free. gaps: (wall, this thread's CPU) seconds between beats."""

    gaps: list[tuple[float, float]] = field(default_factory=list)
    last: tuple[float, float] | None = None

    def beat(self) -> None:
        """Once per beat, in the window's thread."""
        now = (time.perf_counter(), time.thread_time())
        if self.last is not None:
            self.gaps.append((now[0] - self.last[0], now[1] - self.last[1]))
        self.last = now


class Bench:
    """A viewer on the resampled CT, with the Prompt dock, and a hand on the mouse."""

    def __init__(self, size: int) -> None:
        import napari
        from napari.layers import Image
        from scipy import ndimage

        from napari_medtransformer.plugin.layers import image_layer
        from napari_medtransformer.plugin.prompt_dock import PromptDock
        from napari_medtransformer.volumes import Volume, read_volume
        from napari_medtransformer.volumes.sample_data import sample_path

        small = read_volume(sample_path("example_ct.nii.gz"))
        data = small.data[60:112]
        scale = (1.0, size / data.shape[1], size / data.shape[2])
        spacing = tuple(s / f for s, f in zip(small.spacing, scale))
        volume = Volume.from_array(ndimage.zoom(data, scale, order=1), spacing)
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1600, 1000)
        pixels, options, _ = image_layer(volume)
        self.layer = self.viewer.add_layer(Image(pixels, **options))
        self.dock = PromptDock(self.viewer)
        self.viewer.window.add_dock_widget(self.dock, name="Prompt", area="right")
        self.controller = self.dock.controller
        self.until(lambda: self.controller.session is not None)
        self.viewer.reset_view()
        self.shape = volume.shape
        self.drawn_at = self.answered_at = 0.0
        self._answers = 0
        self.controller.changed.connect(self._changed)
        self.canvas = self.viewer.window._qt_viewer.canvas
        self.canvas._scene_canvas.events.draw.connect(self._drawn, position="last")
        self.pump(0.5)

    def _drawn(self, event: Any = None) -> None:
        self.drawn_at = time.perf_counter()

    def _changed(self) -> None:
        if self.controller.prediction.answers != self._answers:
            self._answers = self.controller.prediction.answers
            self.answered_at = time.perf_counter()

    def pump(self, seconds: float) -> None:
        """Let the window live."""
        from qtpy.QtWidgets import QApplication

        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            QApplication.processEvents()
            time.sleep(0.001)

    def until(self, done: Any) -> None:
        """Let the window live until it is done."""
        end = time.perf_counter() + PATIENCE_S
        while not done():
            if time.perf_counter() > end:
                raise TimeoutError("the window did not get there")
            self.pump(0.002)

    def idle(self) -> bool:
        """Whether the worker has nothing left to do."""
        return self.controller.queue.pending == 0

    def show(self, z: int) -> None:
        """Show a slice."""
        self.viewer.dims.set_point(0, float(self.layer.data_to_world((z, 0, 0))[0]))

    def press(self, z: int, y: float, x: float) -> None:
        """A real click on a voxel."""
        from qtpy.QtCore import QPoint, Qt
        from qtpy.QtTest import QTest

        world = np.asarray(self.layer.data_to_world((z, y, x)))[1:]
        (top, left), (bottom, right) = np.asarray(self.canvas._viewbox_corners_in_world)[:, 1:]
        width, height = self.canvas.view.rect.size
        at = QPoint(
            round((world[1] - left) / (right - left) * width), round((world[0] - top) / (bottom - top) * height)
        )
        QTest.mouseClick(self.canvas.native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, at)

    def click(self, z: int, y: float, x: float) -> tuple[float, float]:
        """(wall, CPU) seconds from the click to the first frame with its mask."""
        start, cpu = time.perf_counter(), time.process_time()
        self.press(z, y, x)
        self.until(lambda: self.drawn_at > self.answered_at > start)
        return self.drawn_at - start, time.process_time() - cpu


def place(random: np.random.Generator, size: int) -> tuple[float, float]:
    """Somewhere in the body."""
    y, x = size * (0.5 + 0.15 * random.uniform(-1, 1, 2))
    return float(y), float(x)


def told(name: str, times: list[tuple[float, float]]) -> str:
    """One line of the table."""
    wall, cpu = (1000 * np.array(column) for column in zip(*times))
    return f"{name:<38}{np.median(wall):8.0f}{np.percentile(wall, 90):8.0f}{np.median(cpu):10.0f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        os.environ["MEDT_PREFERENCES"] = str(Path(folder) / "preferences.json")
        os.environ["XDG_STATE_HOME"] = os.environ["XDG_CACHE_HOME"] = folder
        measure(options.clicks, options.size)


def measure(clicks: int, size: int) -> None:
    """Print the table."""
    from dataclasses import replace

    from qtpy.QtCore import Qt, QTimer

    random = np.random.default_rng(0)
    bench = Bench(size)
    controller = bench.controller
    controller.preferences = replace(controller.preferences, reach=0)
    load = os.getloadavg()[0]
    print(f"{size} × {size}, {os.cpu_count()} cores, load {load:.1f} before; milliseconds")
    print(f"{'':<38}{'median':>8}{'p90':>8}{'CPU':>10}")
    z0 = bench.shape[0] // 2
    bench.show(z0)
    bench.until(lambda: bench.idle() and controller.session.is_encoded(0, z0))
    bench.click(z0, *place(random, size))
    bench.pump(0.5)
    encoded = []
    for i in range(24):
        if i % 6 == 0:
            controller.actions.clear_object(1)
        encoded.append(bench.click(z0, *place(random, size)))
        bench.pump(0.3)
    print(told("click to repainted, slice encoded", encoded))
    fresh = []
    for z in range(z0 + 1, z0 + 13):
        bench.show(z)
        controller.view._timer.stop()  # the click comes before anything was encoded ahead
        fresh.append(bench.click(z, *place(random, size)))
        bench.pump(0.3)
    print(told("click to repainted, with encoding", fresh))

    controller.preferences = replace(controller.preferences, reach=100)
    heart, timer = Heart(), QTimer()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.setInterval(BEAT_MS)
    timer.timeout.connect(heart.beat)
    timer.start()
    bench.show(2)
    bench.pump(0.3)
    ahead = []
    for i in range(clicks):
        if i % 10 == 0:
            controller.actions.clear_object(1)
        ahead.append(bench.click(2, *place(random, size)))
    timer.stop()
    print(told(f"{clicks} clicks while slices are encoded", ahead))
    wall, cpu = (1000 * np.array(column) for column in zip(*heart.gaps))
    print(
        f"event loop: gap p50 {np.median(wall):.0f}, p99 {np.percentile(wall, 99):.0f}, longest {wall.max():.0f} "
        f"(own CPU in it {cpu[wall.argmax()]:.0f}); most own CPU in a gap {cpu.max():.0f}; "
        f"{np.count_nonzero(wall > 50)} of {len(wall)} gaps over 50, {np.count_nonzero(cpu > 50)} by own work"
    )
    bench.viewer.close()


if __name__ == "__main__":
    main()
