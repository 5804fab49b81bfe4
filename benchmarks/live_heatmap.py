"""How often a heatmap that follows the cursor is drawn anew, in a real window. Run by benchmarks/inspector.py."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

FOLLOW_S = 5.0
"""The hand moves for so long, over another voxel every MOVE_S, faster than any map can follow."""
MOVE_S = 0.01
SINGLE = 20
"""Updates that are timed one by one, each after a rest."""
HEARTBEAT_MS = 5
ALONE_S = 2.0


def follow_the_cursor(viewer: Any, controller: Any, until: Callable[[Callable[[], bool]], None]) -> dict[str, Any]:
    """Times of a window whose Attention dock shows an answer.

    drawn: from a real mouse move to the canvas painted with the new map. on_screen: to the window swapped. cpu: of the
    process, window_cpu: of the window's own thread, per map that was drawn. maps_per_second: maps drawn while the hand
    keeps moving; napari's own status line follows it too. ceiling_per_second: maps drawn when nothing but the layer's
    values changes, without a model: what napari and OpenGL let through.
    """
    from qtpy.QtCore import QEvent, QPointF, Qt, QTimer
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication

    canvas, state = viewer.window._qt_viewer.canvas, controller.attention
    native = canvas.native
    height, width = canvas.size
    seen = {"maps": 0, "frames": 0, "drawn": 0.0, "swapped": 0.0}
    state.layers.heat.events.set_data.connect(lambda event: seen.update(maps=seen["maps"] + 1))

    def drawn(event: Any) -> None:
        if seen["maps"]:
            seen.update(maps=0, frames=seen["frames"] + 1, drawn=time.perf_counter())

    canvas._scene_canvas.events.draw.connect(drawn, position="last")
    native.frameSwapped.connect(lambda: seen.update(swapped=time.perf_counter()))

    def move(step: int) -> None:
        place = QPointF(width * (0.42 + 0.0016 * (step * 7 % 100)), height * (0.3 + 0.004 * (step * 3 % 100)))
        nothing, free = Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier
        event = QMouseEvent(QEvent.Type.MouseMove, place, native.mapToGlobal(place), nothing, nothing, free)
        QApplication.sendEvent(native, event)

    def rest(seconds: float) -> None:
        end = time.perf_counter() + seconds
        until(lambda: time.perf_counter() > end and controller.queue.pending == 0)

    controller.follows_cursor = True
    singles = []
    for step in range(SINGLE + 2):
        rest(0.3)
        begun, frames = time.perf_counter(), seen["frames"]
        move(step)
        until(lambda frames=frames: seen["frames"] > frames and seen["swapped"] > seen["drawn"])
        singles.append((seen["drawn"] - begun, seen["swapped"] - begun))
    rest(0.5)

    beats: list[float] = []
    timer = QTimer()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.timeout.connect(lambda: beats.append(time.perf_counter()))
    timer.start(HEARTBEAT_MS)
    frames, process, window = seen["frames"], time.process_time(), time.thread_time()
    begun, moved, step = time.perf_counter(), 0.0, 0
    while time.perf_counter() - begun < FOLLOW_S:
        if time.perf_counter() - moved > MOVE_S:
            step, moved = step + 1, time.perf_counter()
            move(step)
        QApplication.processEvents()
        time.sleep(0.0005)
    took, maps = time.perf_counter() - begun, seen["frames"] - frames
    process, window = time.process_time() - process, time.thread_time() - window
    timer.stop()
    controller.follows_cursor = False
    rest(0.5)

    heat, frames, begun = state.layers.heat, seen["frames"], time.perf_counter()
    values = np.array(heat.data)
    while time.perf_counter() - begun < ALONE_S:
        heat.data[...] = values * np.float32(1 - 0.2 * (seen["frames"] % 2))
        now = seen["frames"]
        heat.refresh(extent=False, thumbnail=False, highlight=False)
        until(lambda now=now: seen["frames"] > now and seen["swapped"] > seen["drawn"])
    alone = (seen["frames"] - frames) / (time.perf_counter() - begun)

    gaps = 1000 * np.diff(beats)
    to_drawn, to_screen = zip(*singles[2:])
    return {
        "canvas": [int(height), int(width)],
        "maps_per_second": round(maps / took, 1),
        "ceiling_per_second": round(alone, 1),
        "drawn_ms": round(1000 * statistics.median(to_drawn), 1),
        "on_screen_ms": round(1000 * statistics.median(to_screen), 1),
        "cpu_ms": round(1000 * process / max(maps, 1), 1),
        "window_cpu_ms": round(1000 * window / max(maps, 1), 1),
        "heartbeat_median_ms": round(float(np.median(gaps)), 1),
        "heartbeat_95_ms": round(float(np.percentile(gaps, 95)), 1),
        "heartbeat_worst_ms": round(float(gaps.max()), 1),
        "load": round(os.getloadavg()[0], 1),
    }


def bare_napari(viewer: Any, layer: Any, until: Callable[[Callable[[], bool]], None]) -> dict[str, Any]:
    """Frames of a window without any of ours, in which nothing but an image layer's values changes."""
    canvas, seen = viewer.window._qt_viewer.canvas, {"frames": 0, "swapped": 0}
    canvas._scene_canvas.events.draw.connect(lambda event: seen.update(frames=seen["frames"] + 1), position="last")
    canvas.native.frameSwapped.connect(lambda: seen.update(swapped=seen["frames"]))
    values = np.array(layer.data)
    begun, window, step = time.perf_counter(), time.thread_time(), 0
    while time.perf_counter() - begun < ALONE_S:
        step += 1
        layer.data[...] = values * np.float32(1 - 0.2 * (step % 2))
        now = seen["frames"]
        layer.refresh(extent=False, thumbnail=False, highlight=False)
        until(lambda now=now: seen["swapped"] > now)
    took, window = time.perf_counter() - begun, time.thread_time() - window
    return {
        "canvas": [int(n) for n in canvas.size[::-1]],
        "frames_per_second": round(step / took, 1),
        "window_cpu_ms": round(1000 * window / step, 1),
        "load": round(os.getloadavg()[0], 1),
    }
