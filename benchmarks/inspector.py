"""How fast and how large the inspector is: live heatmaps in a real window, memory of a site, ranking of heads.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/inspector.py [--only CASE]

Prints one line of JSON per case. CPU seconds of the process stand on a busy machine; wall seconds need an idle one.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SAM_SIDE = 1024  # pixels of the slice that SAM ViT-B is inspected on
PATIENCE_S = 900.0
MB = 1e6


def window(layer: Any) -> tuple[Any, Any, Callable[[Callable[[], bool]], None]]:
    """A viewer on a layer, its controller, and a function that lets the window work until something holds."""
    import napari
    from qtpy.QtCore import QSettings
    from qtpy.QtWidgets import QApplication

    from napari_medtransformer.plugin.attention import inspector_tour
    from napari_medtransformer.plugin.controller import controller_of

    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, "/tmp")
    inspector_tour.settings().setValue(inspector_tour.SEEN_KEY, True)
    viewer = napari.Viewer()
    viewer.window.resize(1600, 1000)
    viewer.add_layer(layer)
    controller = controller_of(viewer)
    controller.set_layer(layer)

    def until(done: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not done():
            if time.monotonic() > end:
                raise TimeoutError(f"not there after {PATIENCE_S:.0f} s")
            QApplication.processEvents()
            time.sleep(0.0005)  # an event loop waits, too: a core kept busy here would be missing where maps are drawn

    return viewer, controller, until


def open_dock(viewer: Any) -> Any:
    """The Attention dock in a viewer's window."""
    from napari_medtransformer.plugin.attention.dock import AttentionDock

    dock = AttentionDock(viewer)
    viewer.window.add_dock_widget(dock, name="Attention", area="bottom")
    return dock


def sam_layer(side: int = SAM_SIDE) -> Any:
    """Three slices of noise as an image layer."""
    from napari.layers import Image

    data = np.random.default_rng(0).normal(size=(3, side, side)).astype(np.float32)
    return Image(data, scale=(3.0, 0.7, 0.7), units=("mm",) * 3)


def _loaded(name: str, weights: str | None) -> Any:
    from napari_medtransformer.models import load_model

    return load_model(name, weights=weights, device="cpu")


def _slice_point(zyx: tuple[float, float, float]) -> Any:
    from napari_medtransformer.plugin.layer_volume import SlicePoint

    return SlicePoint(zyx, 0)


def live(model_name: str, weights: str | None, side: int, site: str) -> dict[str, Any]:
    """Move the mouse over a slice and time the heatmaps that follow it."""
    from live_heatmap import follow_the_cursor

    viewer, controller, until = window(sam_layer(side))
    model = _loaded(model_name, weights)
    controller.models.use(model)
    open_dock(viewer)  # with no model chosen before it, it would load the bundled one in place of this
    state = controller.attention
    until(lambda: controller.session is not None and controller.queue.pending == 0)
    viewer.dims.set_point(0, 3.0)  # the slice in the middle
    viewer.reset_view()
    controller.queried.emit(_slice_point((1.0, side / 2, side / 2)), False)
    until(lambda: state.seen is not None and controller.queue.pending == 0)
    state.choose_site(site, "0")
    until(lambda: state.site == site and controller.queue.pending == 0)
    if state.inspection.model is not model:
        raise RuntimeError(f"{state.inspection.model.card.name} was looked into where {model_name} was meant.")
    asked = state.inspection.site(site)
    place = {"site": site, "kind": asked.kind, "tokens": int(asked.query_grid.n_tokens), "heads": asked.heads}
    found = follow_the_cursor(viewer, controller, until)
    viewer.close()
    controller.queue.wait()
    return place | found


def live_tiny() -> dict[str, Any]:
    """The bundled model."""
    return live("medt-click-tiny", None, 512, "encoder.3")


def live_sam() -> dict[str, Any]:
    """SAM ViT-B's size with random weights, at a global site."""
    return live("sam-vit-b", "random", SAM_SIDE, "encoder.5")


def live_bare() -> dict[str, Any]:
    """napari alone with a slice and a map over it, as large as `live-tiny` draws them: what no plugin can exceed."""
    import napari
    from live_heatmap import bare_napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer()
    viewer.window.resize(1600, 1000)
    viewer.add_layer(sam_layer(512))
    values = np.random.default_rng(1).random((1, 512, 512), dtype=np.float32)
    over = viewer.add_image(values, scale=(3.0, 0.7, 0.7), blending="translucent_no_depth", colormap="inferno")
    viewer.dims.set_point(0, 0.0)

    def until(done: Callable[[], bool]) -> None:
        while not done():
            QApplication.processEvents()
            time.sleep(0.0005)

    for _ in range(50):
        QApplication.processEvents()
        time.sleep(0.01)
    found = bare_napari(viewer, over, until)
    viewer.close()
    return found


def memory() -> dict[str, Any]:
    """What is resident beyond a plain encoding while every site of SAM ViT-B at 1024² is asked, from Python."""
    from napari_medtransformer.attention.probe import AttentionProbe
    from napari_medtransformer.inspection import inspect_slice
    from napari_medtransformer.inspection.answering import ask
    from napari_medtransformer.inspection.full import full_matrix_says
    from napari_medtransformer.inspection.queries import ROLLOUT, VoxelQuery, drawable_sites
    from napari_medtransformer.models import load_model
    from napari_medtransformer.models.base import Prompts
    from napari_medtransformer.volumes import Volume

    model = load_model("sam-vit-b", weights="random", device="cpu")
    volume = sam_volume(Volume)
    embedding = model.encode(volume.data[0].clip(0, 1))
    before = resident()
    click = Prompts(np.array([[500.0, 400.0]], np.float32), np.array([1]))
    inspection = inspect_slice(model, volume, 0, 0, prompts=click)
    added = {"after encoding": resident() - before}
    used = time.process_time()
    for site in [site.name for site in drawable_sites(inspection)] + [ROLLOUT]:
        ask(inspection, site, VoxelQuery((0.0, 500.0, 400.0)))
        added[site] = resident() - before
    asked = time.process_time() - used
    says = full_matrix_says(inspection.captured("encoder.5"))
    kept = sum(math.prod(c.q_shape) + math.prod(c.k_shape) for c in _calls(inspection))
    del inspection
    probed = resident()
    with AttentionProbe(model) as probe:
        model.encode(volume.data[0].clip(0, 1))
    for site in probe.sites:
        probe.heatmap(site, (500.0, 400.0))
    del embedding
    return {
        "added_mb": {site: round(size / MB) for site, size in added.items()},
        "most_added_mb": round(max(added.values()) / MB),
        "probe_added_mb": round((resident() - probed) / MB),
        "queries_and_keys_of_all_sites_mb": round(4 * kept / MB),
        "cpu_s_for_all_sites": round(asked, 2),
        "whole matrix, said before": says,
    }


def _calls(inspection: Any) -> list[Any]:
    return [inspection.captured(site).call for site in inspection.sites]


def memory_dock() -> dict[str, Any]:
    """The same in a real window: beyond a click that was answered, while the dock shows one site after another."""
    viewer, controller, until = window(sam_layer())
    controller.models.use(_loaded("sam-vit-b", "random"))
    until(lambda: controller.session is not None and controller.queue.pending == 0)
    point = _slice_point((1.0, 500.0, 400.0))
    controller.clicked(point)
    until(lambda: controller.queue.pending == 0 and bool(controller.session.objects))
    before = resident()
    state = open_dock(viewer).state
    controller.queried.emit(point, False)
    until(lambda: state.seen is not None and controller.queue.pending == 0)
    added = {}
    for entry in [entry for entry in state.sites if entry.name != "rollout"]:
        state.choose_site(entry.name)
        until(lambda name=entry.name: state.site == name and controller.queue.pending == 0)
        added[entry.name] = resident() - before
    state.want_matrix(True)
    until(lambda: bool(state.matrix) and controller.queue.pending == 0)
    added["matrix of all sites"] = resident() - before
    viewer.close()
    controller.queue.wait()
    return {
        "added_mb": {site: round(size / MB) for site, size in added.items()},
        "most_added_mb": round(max(added.values()) / MB),
    }


def sam_volume(kind: Any) -> Any:
    """Noise of SAM's size, one slice."""
    data = np.random.default_rng(0).normal(size=(1, SAM_SIDE, SAM_SIDE)).astype(np.float32)
    return kind.from_array(data, (3.0, 0.7, 0.7), "MR")


def resident() -> int:
    """Bytes of this process in memory now, swapped ones too; what torch no longer uses is given back first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("VmRSS:", "VmSwap:")))


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


CASES = {
    "live-tiny": live_tiny,
    "live-sam": live_sam,
    "live-bare": live_bare,
    "memory": memory,
    "memory-dock": memory_dock,
    "ranking": ranking,
}


def main() -> int:
    """Run every case in a process of its own, or the one that was asked for in this one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(CASES))
    chosen = parser.parse_args().only
    if chosen is not None:
        with tempfile.TemporaryDirectory() as folder:  # nothing of it is kept among the user's own sessions
            os.environ["MEDT_PREFERENCES"] = f"{folder}/preferences.json"
            # no neighbours are encoded ahead: one slice is what is measured
            Path(folder, "preferences.json").write_text('{"reach": 0, "disk_gb": 0}')
            os.environ["XDG_STATE_HOME"] = os.environ["XDG_CACHE_HOME"] = folder
            print(json.dumps({chosen: CASES[chosen]()}))
        return 0
    return max(subprocess.run([sys.executable, __file__, "--only", name], check=False).returncode for name in CASES)


if __name__ == "__main__":
    sys.exit(main())
