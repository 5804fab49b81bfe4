"""How long the window is ever held up while a volume is segmented, and by what.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/segment_pauses.py [--case mr|tiled|large] [--repeat N]

A real viewer and the real Segment dock with the bundled model. A heartbeat of 5 ms runs in the window's thread from the
press of Segment to the filled table. Gaps between two beats are given by the clock, and by what that thread computed
itself meanwhile: a gap in which it did not compute was another process's, or a worker's that held the interpreter's
lock. Beside every long gap stands the function of this package, or of napari, that ran in the middle of it.

Before that, napari without the plugin in a window of the same size: a labels layer of the same volume is repainted as
often as the dock shows new parts, and one is added, alone and beside a thread that runs the same model.

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
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from heartbeat import LONG_MS, Heart, beating, working

PATIENCE_S = 300.0
OVERDUE_S = 0.02
"""A beat that is so late is asked what holds it up."""
REPAINTS = 30
REPAINT_S = 0.1
"""As often as the dock shows new parts at most."""


@dataclass
class WatchedHeart(Heart):
    """A heart that knows what ran in the middle of every long gap. seen: one for each gap."""

    seen: list[tuple[float, str]] = field(default_factory=list)  # when the gap ended, and what ran
    thread: int = field(default_factory=threading.get_ident)
    over: threading.Event = field(default_factory=threading.Event)
    collections: list[float] = field(default_factory=list)
    collecting: float = 0.0
    _paths: Counter[str] = field(default_factory=Counter)

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
        known = len(self.gaps)
        super().beat()
        if len(self.gaps) > known:
            self.seen.append((time.perf_counter(), self._paths.most_common(1)[0][0] if self._paths else ""))
        self._paths = Counter()

    def watch(self) -> None:
        """In another thread: what the window's thread does while a beat is overdue."""
        while not self.over.wait(0.004):
            if self.last is not None and time.perf_counter() - self.last[0] > OVERDUE_S:
                frames = traceback.extract_stack(sys._current_frames()[self.thread])
                ours = [f for f in frames if "napari" in f.filename and "benchmarks" not in f.filename]
                path = " < ".join(f"{Path(f.filename).stem}.{f.name}" for f in reversed(ours[-6:]))
                self._paths[path] += 1

    def print_gaps(self, name: str, begun: float) -> None:
        """In one line, and one more for each long gap."""
        told = self.told()
        print(
            f"{name}: longest gap {told['longest']:.0f} ms, of own work {told['most_own_cpu_in_a_gap']:.0f}; "
            f"over 50 ms {told['gaps_over_50']}, by own work {told['gaps_over_50_by_own_cpu']}; {told['gaps']} beats; "
            f"other processes took {told['cores_taken_by_others']} cores; "
            f"full garbage collections: {', '.join(f'{ms:.0f} ms' for ms in self.collections) or 'none'}"
        )
        for (wall, own), (when, what) in zip(self.gaps, self.seen, strict=True):
            if 1000 * max(wall, own) > LONG_MS:
                print(f"   {when - begun:6.2f} s  {1000 * wall:4.0f} ms, own {1000 * own:4.0f}  {what}")
        sys.stdout.flush()


@contextmanager
def watched() -> Iterator[WatchedHeart]:
    """A heart that beats and is watched meanwhile."""
    heart = WatchedHeart()
    watcher = threading.Thread(target=heart.watch, daemon=True)
    gc.callbacks.append(heart.collected)
    watcher.start()
    try:
        with beating(heart):
            yield heart
    finally:
        heart.over.set()
        watcher.join()
        gc.callbacks.remove(heart.collected)


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

    viewer = napari.Viewer()
    viewer.window.resize(1600, 1000)
    viewer.add_layer(sample(case))
    _, dock = viewer.window.add_plugin_dock_widget("napari-medtransformer", "Segment")
    dock.options.uncertainty.setChecked(True)
    pump(lambda: dock.models.model is not None)
    rest(2.0)
    for number in range(repeat):
        begun = time.perf_counter()
        with watched() as heart:
            rest(0.1)
            dock.run.click()
            if case == "large":
                pump(lambda: dock.state.slabs > 4 or not dock.state.running)
                dock.state.cancel()
            pump(lambda: not dock.state.running and bool(dock.state.organs) and not dock.queue.pending)
            rest(1.0)
        heart.print_gaps(f"run {number + 1}", begun)
    viewer.close()


def floor(case: str) -> None:
    """Print the gaps of napari without the plugin: labels repainted while the model runs in a thread, a layer added."""
    import napari
    from napari.layers import Labels

    from napari_medtransformer import load_model, segment
    from napari_medtransformer.plugin.layers import VOLUME_KEY
    from napari_medtransformer.plugin.segment.dock import DEFAULT_MODEL

    viewer = napari.Viewer()
    viewer.window.resize(1600, 1000)
    image = viewer.add_layer(sample(case))
    model, volume = load_model(DEFAULT_MODEL), image.metadata[VOLUME_KEY]
    random = np.random.default_rng(0)
    place = {"scale": image.scale, "translate": image.translate, "units": image.units}
    labels = viewer.add_layer(Labels(np.zeros(volume.shape, np.uint8), name="repainted", **place))
    rest(2.0)

    def repaint() -> None:
        for _ in range(REPAINTS):
            labels.data[:] = random.integers(0, 3, volume.shape)
            labels.refresh(extent=False, thumbnail=False, highlight=False)
            rest(REPAINT_S)

    def add() -> None:
        rest(0.2)
        viewer.add_layer(Labels(np.ones(volume.shape, np.uint8), name="another", **place))
        rest(1.0)

    threads = int(os.environ["OMP_NUM_THREADS"])
    for name, act in (("labels repainted", repaint), ("a labels layer added", add)):
        for beside, worker in (
            ("", nullcontext()),
            (" beside the model", working(lambda: segment(model, volume), threads)),
        ):
            begun = time.perf_counter()
            with worker, watched() as heart:
                act()
            heart.print_gaps(f"napari alone, {name}{beside}", begun)
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
        if options.case != "large":
            floor(options.case)
        measure(options.case, options.repeat)


if __name__ == "__main__":
    main()
