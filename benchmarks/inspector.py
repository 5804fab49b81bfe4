"""How fast and how large the inspector is: live heatmaps in a real window, memory of a site, ranking of heads.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/inspector.py [--only live-tiny|live-sam|memory|ranking]

Prints one line of JSON per case. CPU seconds of the process stand on a busy machine; wall seconds need an idle one.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

UPDATES = 60
HEARTBEAT_MS = 5
SAM_SIDE = 1024  # pixels of the slice that SAM ViT-B is inspected on
PATIENCE_S = 900.0
MB = 1e6


def live(model_name: str, weights: str | None, side: int, site: str) -> dict[str, Any]:
    """Move the cursor over a slice and time every heatmap from the voxel to the drawn layer."""
    import napari
    from napari.layers import Image
    from qtpy.QtCore import QSettings, QTimer
    from qtpy.QtWidgets import QApplication

    from napari_medtransformer.models import load_model
    from napari_medtransformer.plugin import inspector_tour
    from napari_medtransformer.plugin.attention_dock import AttentionDock
    from napari_medtransformer.plugin.controller import controller_of
    from napari_medtransformer.plugin.layer_volume import SlicePoint

    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, "/tmp")
    inspector_tour.settings().setValue(inspector_tour.SEEN_KEY, True)
    viewer = napari.Viewer()
    viewer.window.resize(1600, 1000)
    data = np.random.default_rng(0).normal(size=(3, side, side)).astype(np.float32)
    viewer.add_layer(Image(data, scale=(3.0, 0.7, 0.7), units=("mm",) * 3))
    dock = AttentionDock(viewer)
    viewer.window.add_dock_widget(dock, name="Attention", area="bottom")
    controller = controller_of(viewer)
    controller.set_layer(viewer.layers[0])
    controller.models.use(load_model(model_name, weights=weights, device="cpu"))
    state = controller.attention

    def until(done: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not done() and time.monotonic() < end:
            QApplication.processEvents()

    def ask(y: int, x: int, hovering: bool) -> None:
        before = state.seen
        controller.queried.emit(SlicePoint((1.0, float(y), float(x)), 0), hovering)
        until(lambda: state.seen is not before and controller.queue.pending == 0)

    until(lambda: controller.session is not None and controller.queue.pending == 0)
    ask(side // 2, side // 2, False)
    state.choose_site(site, "0")
    until(lambda: state.site == site and controller.queue.pending == 0)
    beats: list[float] = []
    timer = QTimer()
    timer.timeout.connect(lambda: beats.append(time.perf_counter()))
    timer.start(HEARTBEAT_MS)
    wall, cpu = [], []
    for step in range(UPDATES):
        begun, used = time.perf_counter(), time.process_time()
        ask(side // 4 + step * side // (2 * UPDATES), side // 3 + step, True)
        wall.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - used)
    gaps = np.diff(beats)
    viewer.close()
    controller.queue.wait()
    return {
        "tokens": int(state.inspection.site(site).query_grid.n_tokens) if state.inspection else None,
        "cpu_ms": round(1000 * statistics.median(cpu), 1),
        "wall_ms": round(1000 * statistics.median(wall), 1),
        "per_second_by_cpu": round(1 / statistics.median(cpu), 1),
        "heartbeat_median_ms": round(1000 * float(np.median(gaps)), 1) if len(gaps) else None,
        "heartbeat_95_ms": round(1000 * float(np.percentile(gaps, 95)), 1) if len(gaps) else None,
        "heartbeat_worst_ms": round(1000 * float(gaps.max()), 1) if len(gaps) else None,
        "load": round(os.getloadavg()[0], 1),
    }


def live_tiny() -> dict[str, Any]:
    """The bundled model."""
    return live("medt-click-tiny", None, 512, "encoder.3")


def live_sam() -> dict[str, Any]:
    """SAM ViT-B's size with random weights, at a global site."""
    return live("sam-vit-b", "random", SAM_SIDE, "encoder.5")


def memory() -> dict[str, Any]:
    """What is resident after one site, and after all sites, of SAM ViT-B were inspected, beside a plain encoding."""
    from napari_medtransformer.inspection import inspect_slice
    from napari_medtransformer.inspection.full import full_matrix_bytes, full_matrix_says
    from napari_medtransformer.inspection.queries import VoxelQuery, ask
    from napari_medtransformer.models import load_model
    from napari_medtransformer.volumes import Volume

    model = load_model("sam-vit-b", weights="random", device="cpu")
    rng = np.random.default_rng(0)
    volume = Volume.from_array(rng.normal(size=(1, SAM_SIDE, SAM_SIDE)).astype(np.float32), (3.0, 0.7, 0.7), "MR")
    image = volume.data[0].clip(0, 1)
    embedding = model.encode(image)
    found: dict[str, Any] = {}
    query = VoxelQuery((0.0, 500.0, 400.0))
    for name, sites in (("global encoder.5", ["encoder.5"]), ("window encoder.4", ["encoder.4"]), ("all sites", None)):
        before, peak = resident(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        inspection = inspect_slice(model, volume, 0, 0, sites=sites)
        site = sites[0] if sites else "encoder.11"
        ask(inspection, site, query)
        calls = [inspection.captured(s).call for s in inspection.sites]
        found[name] = {
            "added_mb": round((resident() - before) / MB),
            "queries_and_keys_mb": round(sum(c.q.nbytes + c.k.nbytes for c in calls) / MB),
            "peak_grew_mb": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024 / MB),
        }
        if sites == ["encoder.5"]:
            captured = inspection.captured(site)
            found["whole matrix, all heads, mb"] = round(full_matrix_bytes(captured, captured.call.heads) / MB)
            found["said before"] = full_matrix_says(captured)
        del inspection, calls
    del embedding
    return found


def resident() -> int:
    """Bytes of this process in memory now, what torch no longer uses given back first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def ranking() -> dict[str, Any]:
    """Every head of the bundled model switched off for the liver of the sample CT."""
    from napari_medtransformer.inspection import inspect_slice
    from napari_medtransformer.inspection.ablation import rank_heads
    from napari_medtransformer.models import load_model
    from napari_medtransformer.models.base import Prompts
    from napari_medtransformer.progress import run_to_end
    from napari_medtransformer.volumes import read_volume
    from napari_medtransformer.volumes.sample_data import sample_path

    model, volume = load_model("medt-click-tiny", device="cpu"), read_volume(sample_path("example_ct.nii.gz"))
    inspection = inspect_slice(model, volume, 0, 106)
    prompts = Prompts(np.array([[42.0, 43.0]], np.float32), np.array([1]))
    begun, used = time.perf_counter(), time.process_time()
    effects = run_to_end(rank_heads(inspection, prompts))
    return {
        "heads": len(effects),
        "cpu_s": round(time.process_time() - used, 1),
        "wall_s": round(time.perf_counter() - begun, 1),
        "load": round(os.getloadavg()[0], 1),
    }


CASES = {"live-tiny": live_tiny, "live-sam": live_sam, "memory": memory, "ranking": ranking}


def main() -> int:
    """Run every case in a process of its own, or the one that was asked for in this one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(CASES))
    chosen = parser.parse_args().only
    if chosen is not None:
        print(json.dumps({chosen: CASES[chosen]()}))
        return 0
    return max(subprocess.run([sys.executable, __file__, "--only", name], check=False).returncode for name in CASES)


if __name__ == "__main__":
    sys.exit(main())
