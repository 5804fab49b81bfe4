"""From a click to the repainted canvas, and how long the event loop is ever held up, in a real viewer.

    xvfb-run -a -s "-screen 0 1600x1000x24" \\
        python benchmarks/click_latency.py [--clicks 200] [--size 512] [--only floor|clicks]

The sample CT is resampled to size × size pixels. A click is a real mouse event at a place where the pointer has rested
for a moment, as a hand's does; `click_where_the_pointer_was_not` is one without, during which napari also looks up what
is under the new place and writes it into its status bar. `drawn` is the end of the first frame
that the canvas paints after the mask has changed, `on_screen` is when the window that holds it was swapped. Wall times
hold only on an idle machine, so CPU times stand beside them: of the whole process per click, and of the window's own
thread in the longest gap between two beats of a 5 ms heartbeat. A gap in which that thread did not compute was
somebody else's: another process, or a worker that held the interpreter's lock.

`floor` is what napari needs without the plugin, in a window of the same size: to repaint one changed layer of
size × size pixels, and to take a click that does nothing. No plugin can be faster than the former. Its
`gaps_with_a_worker` are those of the event loop while a labels layer is repainted as many times as there are clicks,
and a plain thread runs the model's encoder again and again, on one core less than there are, as the plugin does while
somebody clicks, or on all of them; `gaps_alone` those without such a thread.

`first_click` is the first one in the window, which also makes what is made only once. `box_dragged` are the gaps while
a box is drawn, a move of the mouse every 50 ms.

In `event_loop`, slices are encoded ahead during every click: when all are, the contrast is moved by a hair, and they
are encoded anew. `cores_taken_by_others` says how idle the machine was.

Prints JSON, milliseconds unless a name says otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
from heartbeat import Heart, beating, working

from napari_medtransformer.openmp import wait_briefly

PATIENCE_S = 120.0
REST_S = 0.15
"""How long the pointer rests before the button goes down; people need longer."""
WINDOW = (1600, 1000)
FLOOR_REPEATS = 24
PER_CLICK_S = 0.25
"""How often bare napari repaints while its gaps are measured: about as often as clicks come."""
CLEARED_EVERY = 10
"""So many clicks are given to one object."""
DRAG_MOVES = 20
HAIR = 0.01
"""By so much the contrast is moved when every slice is encoded, so that all are encoded anew."""


Times = tuple[float, float, float]
"""Seconds: to the drawn frame, to that frame on the screen, and the process' CPU time to the drawn frame."""


class Hand:
    """A viewer with a hand on its mouse and an eye on its canvas."""

    def __init__(self, viewer: Any, layer: Any) -> None:
        self.viewer, self.layer = viewer, layer
        self.canvas = viewer.window._qt_viewer.canvas
        self.drawn_at = self.swapped_at = 0.0
        self.canvas._scene_canvas.events.draw.connect(self._drawn, position="last")
        self.canvas.native.frameSwapped.connect(self._swapped)

    def _drawn(self, event: Any = None) -> None:
        self.drawn_at = time.perf_counter()

    def _swapped(self) -> None:
        self.swapped_at = time.perf_counter()

    def pump(self, seconds: float) -> None:
        """Let the window live."""
        from qtpy.QtWidgets import QApplication

        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            QApplication.processEvents()
            time.sleep(0.001)

    def until(self, done: Callable[[], bool]) -> None:
        """Let the window live until it is done."""
        end = time.perf_counter() + PATIENCE_S
        while not done():
            if time.perf_counter() > end:
                raise TimeoutError("the window did not get there")
            self.pump(0.002)

    def press(self, z: int, y: float, x: float) -> None:
        """A real click on a voxel."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        at = self.pixel(z, y, x)
        QTest.mouseClick(self.canvas.native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, at)

    def point(self, z: int, y: float, x: float) -> None:
        """Move the mouse to a voxel, and rest there as a hand does before it presses."""
        from qtpy.QtTest import QTest

        QTest.mouseMove(self.canvas.native, self.pixel(z, y, x))
        self.pump(REST_S)

    def pixel(self, z: int, y: float, x: float) -> Any:
        """Where on the canvas a voxel is."""
        from qtpy.QtCore import QPoint

        world = np.asarray(self.layer.data_to_world((z, y, x)))[1:]
        (top, left), (bottom, right) = np.asarray(self.canvas._viewbox_corners_in_world)[:, 1:]
        width, height = self.canvas.view.rect.size
        return QPoint(
            round((world[1] - left) / (right - left) * width), round((world[0] - top) / (bottom - top) * height)
        )

    def timed(self, act: Callable[[], None], answered_at: Callable[[], float] | None = None) -> Times:
        """From an act to the next frame, or the first one after it was answered; and to that frame on the screen."""
        start, cpu = time.perf_counter(), time.process_time()
        act()
        self.until(lambda: self.drawn_at > (start if answered_at is None else answered_at()) >= start)
        drawn, used = self.drawn_at, time.process_time() - cpu
        self.until(lambda: self.swapped_at > drawn)
        return drawn - start, self.swapped_at - start, used


class Bench(Hand):
    """A viewer on the resampled CT, with the Prompt dock."""

    def __init__(self, size: int) -> None:
        import napari
        from napari.layers import Image
        from scipy import ndimage

        from napari_medtransformer.plugin.layers import image_layer
        from napari_medtransformer.plugin.prompts.dock import PromptDock
        from napari_medtransformer.volumes import Volume, read_volume
        from napari_medtransformer.volumes.sample_data import sample_path

        small = read_volume(sample_path("example_ct.nii.gz"))
        data = small.data[60:112]
        scale = (1.0, size / data.shape[1], size / data.shape[2])
        spacing = tuple(s / f for s, f in zip(small.spacing, scale))
        volume = Volume.from_array(ndimage.zoom(data, scale, order=1), spacing)
        viewer = napari.Viewer()
        viewer.window.resize(*WINDOW)
        pixels, options, _ = image_layer(volume)
        super().__init__(viewer, viewer.add_layer(Image(pixels, **options)))
        self.dock = PromptDock(viewer)
        viewer.window.add_dock_widget(self.dock, name="Prompt", area="right")
        self.controller = self.dock.controller
        self.until(lambda: self.controller.session is not None)
        viewer.reset_view()
        self.shape = volume.shape
        self.answered_at = 0.0
        self._answers = 0
        self.controller.changed.connect(self._changed)
        self.pump(0.5)

    def _changed(self) -> None:
        if self.controller.prediction.answers != self._answers:
            self._answers = self.controller.prediction.answers
            self.answered_at = time.perf_counter()

    def idle(self) -> bool:
        """Whether the worker has nothing left to do."""
        return self.controller.queue.pending == 0

    def show(self, z: int) -> None:
        """Show a slice."""
        self.viewer.dims.set_point(0, float(self.layer.data_to_world((z, 0, 0))[0]))

    def click(self, z: int, y: float, x: float, *, jump: bool = False) -> Times:
        """From the click to the first frame with its mask. jump: the pointer is elsewhere until the button is down."""
        if not jump:
            self.point(z, y, x)
        return self.timed(lambda: self.press(z, y, x), lambda: self.answered_at)

    def drag_box(self, z: int, size: int) -> dict[str, Any]:
        """The gaps while a box is drawn; it is taken back then."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        from napari_medtransformer.plugin.prompts.tools import Tool

        native, left, none = self.canvas.native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        start, stop = self.pixel(z, 0.3 * size, 0.3 * size), self.pixel(z, 0.6 * size, 0.6 * size)
        self.controller.set_tool(Tool.BOX)
        self.pump(1.0)
        QTest.mousePress(native, left, none, start)
        with beating() as heart:
            for i in range(DRAG_MOVES):
                QTest.mouseMove(native, start + (stop - start) * ((i + 1) / DRAG_MOVES))
                self.pump(0.05)
        QTest.mouseRelease(native, left, none, stop)
        self.until(self.idle)
        self.controller.undo()
        self.controller.set_tool(Tool.POINT)
        self.pump(0.5)
        told = heart.told()
        return {key: told[key] for key in ("longest", "most_own_cpu_in_a_gap", "gaps_over_50", "gaps")}


def place(random: np.random.Generator, size: int) -> tuple[float, float]:
    """Somewhere in the body."""
    y, x = size * (0.5 + 0.15 * random.uniform(-1, 1, 2))
    return float(y), float(x)


def told(times: list[Times]) -> dict[str, float]:
    """Medians and the slow end of some clicks."""
    drawn, swapped, cpu = (1000 * np.array(column) for column in zip(*times))
    return {
        "drawn": round(float(np.median(drawn)), 1),
        "drawn_90th": round(float(np.percentile(drawn, 90)), 1),
        "on_screen": round(float(np.median(swapped)), 1),
        "cpu": round(float(np.median(cpu)), 1),
        "times": len(times),
    }


def floor(size: int, clicks: int) -> dict[str, Any]:
    """What napari alone needs: a layer repainted, a click taken."""
    import napari
    from qtpy.QtWidgets import QWidget

    viewer = napari.Viewer()
    viewer.window.resize(*WINDOW)
    random = np.random.default_rng(0)
    image = viewer.add_image(random.normal(size=(1, size, size)).astype(np.float32))
    labels = viewer.add_labels(np.zeros((1, size, size), np.uint16))
    dock = QWidget()
    dock.setMinimumWidth(320)  # of the Prompt dock
    viewer.window.add_dock_widget(dock, name="empty", area="right")
    viewer.layers.selection = {image}
    viewer.mouse_double_click_callbacks.clear()  # two clicks in a row shall not zoom
    hand = Hand(viewer, image)
    viewer.reset_view()
    hand.pump(1.0)

    def repaint(layer: Any, values: np.ndarray) -> Callable[[], None]:
        def act() -> None:
            layer.data[0] = values
            layer.refresh(extent=False, thumbnail=False)

        return act

    def repeated(make: Callable[[int], Callable[[], None]]) -> dict[str, float]:
        times = []
        for i in range(FLOOR_REPEATS):
            times.append(hand.timed(make(i)))
            hand.pump(0.1)
        return told(times[4:])

    discs = [(np.hypot(*np.ogrid[-i : size - i, :size]) < size / 3).astype(np.uint16) for i in range(FLOOR_REPEATS)]
    noise = random.normal(size=(size, size)).astype(np.float32)
    found = {
        "canvas": list(hand.canvas.size),
        "labels_repainted": repeated(lambda i: repaint(labels, discs[i])),
        "image_repainted": repeated(lambda i: repaint(image, np.roll(noise, i))),
        "click_that_does_nothing": repeated(lambda i: lambda: hand.press(0, size / 2 + i, size / 2)),
    }
    encoder = encoding(size)
    cores = int(os.environ["OMP_NUM_THREADS"])
    workers: dict[str, Any] = {"gaps_alone": nullcontext()}
    for threads in sorted({max(1, cores - 1), cores}):
        workers[f"gaps_with_a_worker_on_{threads}_of_{cores}_cores"] = working(encoder, threads)
    for name, worker in workers.items():
        with worker, beating() as heart:
            for i in range(clicks):
                hand.timed(repaint(labels, discs[i % len(discs)]))
                hand.pump(PER_CLICK_S)
        found[name] = heart.told()
    viewer.close()
    return found


def encoding(size: int) -> Callable[[], None]:
    """What a worker does while slices are encoded ahead, and nothing of the plugin's."""
    from napari_medtransformer import ImagePredictor, load_model
    from napari_medtransformer.plugin.models.slot import DEFAULT_MODEL

    predictor = ImagePredictor(load_model(DEFAULT_MODEL))
    image = np.random.default_rng(1).normal(size=(size, size)).astype(np.float32)
    return lambda: predictor.set_image(image)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--only", choices=("floor", "clicks"), help="napari alone, or the plugin alone")
    options = parser.parse_args()
    if options.only is None:  # each in a process of its own: a thread that used torch in one would slow the other
        print(json.dumps({name: part for only in ("floor", "clicks") for name, part in apart(only).items()}, indent=1))
        return
    wait_briefly()
    with TemporaryDirectory() as folder:
        os.environ["MEDT_PREFERENCES"] = str(Path(folder) / "preferences.json")
        os.environ["XDG_STATE_HOME"] = os.environ["XDG_CACHE_HOME"] = folder
        found: dict[str, Any] = {}
        if options.only == "floor":
            found["floor"] = floor(options.size, options.clicks)
        else:
            found |= measure(options.clicks, options.size)
        print(json.dumps(found, indent=1))


def apart(only: str) -> dict[str, Any]:
    """What this program prints when it runs one part alone."""
    run = subprocess.run([sys.executable, *sys.argv, "--only", only], stdout=subprocess.PIPE, check=True)
    return dict(json.loads(run.stdout))


def measure(clicks: int, size: int) -> dict[str, Any]:
    """Click on an encoded slice, on fresh ones, and while neighbours are encoded."""
    from dataclasses import replace

    random = np.random.default_rng(0)
    bench = Bench(size)
    controller = bench.controller
    controller.preferences = replace(controller.preferences, reach=0)
    found: dict[str, Any] = {
        "size": size,
        "canvas": list(bench.canvas.size),
        "cores": os.cpu_count(),
        "threads": int(os.environ["OMP_NUM_THREADS"]),
        "load_before": round(os.getloadavg()[0], 1),
    }
    z0 = bench.shape[0] // 2
    bench.show(z0)
    bench.until(lambda: bench.idle() and controller.session.is_encoded(0, z0))
    bench.pump(1.0)  # a hand needs longer from the dock to the image
    with beating() as heart:  # the rest of what is made only once
        first = told([bench.click(z0, *place(random, size))])
        bench.pump(0.5)
    found["first_click"] = {"drawn": first["drawn"], "longest_gap": heart.told()["longest"]}
    bench.click(z0, *place(random, size))
    bench.pump(0.5)
    for name, jump in (("click_on_encoded_slice", False), ("click_where_the_pointer_was_not", True)):
        encoded = []
        for i in range(24):
            if i % 6 == 0:
                controller.actions.clear_object(1)
            bench.pump(0.3)
            encoded.append(bench.click(z0, *place(random, size), jump=jump))
        found[name] = told(encoded)
    fresh = []
    for z in range(z0 + 1, z0 + 13):
        bench.show(z)
        bench.pump(0.05)
        controller.view._timer.stop()  # the click comes before anything was encoded ahead
        fresh.append(bench.click(z, *place(random, size)))
        bench.pump(0.3)
    found["click_with_encoding"] = told(fresh)

    ahead, heart, rounds = clicks_while_encoding(bench, clicks, random)
    found["clicks_while_slices_are_encoded"] = told(ahead)
    found["event_loop"] = heart.told() | {"rounds_of_encoding": rounds}
    bench.show(z0)
    bench.until(bench.idle)
    found["box_dragged"] = bench.drag_box(z0, size)
    bench.viewer.close()
    return found


def clicks_while_encoding(bench: Bench, clicks: int, random: np.random.Generator) -> tuple[list[Times], Heart, int]:
    """Clicks on a slice while the others are encoded, the gaps of the event loop, and how often all were encoded."""
    from dataclasses import replace

    controller, z = bench.controller, 2
    controller.preferences = replace(controller.preferences, reach=100)
    bench.show(z)
    bench.pump(0.3)
    low, high = bench.layer.contrast_limits
    times: list[Times] = []
    rounds = 1
    with beating() as heart:
        for i in range(clicks):
            if i % CLEARED_EVERY == 0:
                bench.pump(REST_S)  # from the canvas to a button a hand needs longer
                controller.actions.clear_object(1)
            if bench.idle():
                bench.layer.contrast_limits = (low, high + HAIR * rounds)
                rounds += 1
                bench.until(lambda: not bench.idle() and controller.session.is_encoded(0, z))
            times.append(bench.click(z, *place(random, bench.shape[1])))
    return times, heart, rounds


if __name__ == "__main__":
    main()
