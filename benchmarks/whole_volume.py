"""Memory and time of a whole volume: this package's sliding windows against MONAI's, each case in its own process.

    python benchmarks/whole_volume.py [--only engines|network|time|compile] [--device cpu|cuda] [--threads N]

An int16 volume, 14 classes, windows of 96³, a quarter of overlap. Four tables:
engines   both engines over the whole volume with the same predictor, whose answer has the network's shape and next to
          no cost of its own: what the engines hold. Several sizes show the growth, and the labels of the largest are
          compared voxel by voxel.
network   the largest volume with MONAI's SwinUNETR (feature size 24, seeded random weights) on the first and the last
          window, when all buffers are in use; and what the network takes for one window by itself. Running every
          window would take half an hour: --every 1 does.
time      one window through the network, the variants in turn within one process: medians of rounds, because other
          work disturbs wall times. CPU time is summed over threads.
compile   the same through torch.compile, and what compiling costs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WINDOW = (96, 96, 96)
CLASSES = 14
OVERLAP = 0.25
MB = 1e6
SIZES = ((128, 128, 128), (256, 256, 256), (256, 384, 384), (256, 512, 512))

ENGINES = {"ours": "this package", "monai": "MONAI's sliding_window_inference and argmax"}
NETWORK = {
    "ours": "this package, float32",
    "ours-bf16": "this package, bfloat16",
    "monai": "MONAI's sliding_window_inference and argmax, float32",
}
WINDOWS = {
    "monai": "MONAI's SwinUNETR as it is, float32",
    "monai-bf16": "MONAI's SwinUNETR as it is, bfloat16 autocast",
    "ours": "this package, float32",
    "ours-bf16": "this package, bfloat16",
}

Shape = tuple[int, int, int]


def peak(device: str) -> float:
    """MB this process held at most: resident on a CPU, allocated on a GPU."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MB


def swin_unetr(device: str) -> Any:
    """The network, seeded."""
    import torch
    from monai.networks.nets import SwinUNETR

    torch.manual_seed(0)
    return SwinUNETR(in_channels=1, out_channels=CLASSES, feature_size=24).eval().to(device)


def stand_in() -> Any:
    """A predictor of the network's shapes at next to no cost: the nearest of as many grey values as there are classes.

    Answers depend on where in the window a voxel lies, so that windows disagree and their weights decide.
    """
    import torch
    from torch import nn

    class NearestGrey(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            grey = (torch.arange(CLASSES) + 0.3217) / CLASSES  # no voxel lies half-way between two of them
            self.register_buffer("slope", (2 * grey).reshape(1, -1, 1, 1, 1))
            self.register_buffer("offset", (-(grey**2)).reshape(1, -1, 1, 1, 1))
            self.place = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            ramp = torch.linspace(-0.05, 0.05, x.shape[-1], device=x.device)
            shifted = self.place(x) + ramp + ramp[:, None] + ramp[:, None, None]
            return (shifted * self.slope).add_(self.offset)

    return NearestGrey().eval()


def automatic(net: Any, device: str) -> Any:
    """A network as an automatic model of this package."""
    import torch

    from napari_medtransformer.models import InputContract, LabelInfo, ModelCard
    from napari_medtransformer.models.monai_attention import use_fused_attention
    from napari_medtransformer.models.window_model import WindowModel

    card = ModelCard(
        name="benchmark", title="Benchmark", family="swin-unetr", task="automatic", dimensions=3,
        builder="napari_medtransformer.models.swin_unetr:build", input=InputContract(WINDOW, clip=(-1000.0, 1000.0)),
        licence="none", citation="none", description="Random weights.",
        labels=tuple(LabelInfo(i, f"structure {i}", (1.0, 0.0, 0.0)) for i in range(1, CLASSES)),
    )  # fmt: skip
    return WindowModel(card, use_fused_attention(net), torch.device(device), torch.float32, multiple=32)


def volume_data(shape: Shape) -> Any:
    """int16 noise, made a plane at a time."""
    import numpy as np

    rng = np.random.default_rng(0)
    data = np.empty(shape, np.int16)
    for plane in data:
        plane[:] = rng.integers(-1000, 1000, plane.shape, dtype=np.int16)
    return data


def now_and_then(run: Callable[[Any], Any], every: int, total: int) -> Callable[[Any], Any]:
    """`run` on every N-th window and the last; its last answer for the others."""
    state: dict[str, Any] = {"count": 0, "answer": None}

    def answer(windows: Any) -> Any:
        count = state["count"]
        state["count"] = count + len(windows)
        if state["answer"] is None or count % every == 0 or count == total - 1:
            state["answer"] = run(windows)
        return state["answer"].clone()

    return answer


def window_count(shape: Shape) -> int:
    """How many windows cover a volume."""
    from napari_medtransformer.segmentation.windows import window_starts

    count = 1
    for n, w in zip(shape, WINDOW):
        count *= len(window_starts(n, w, OVERLAP))
    return count


def whole_pass(engine: str, shape: Shape, device: str, every: int, labels_to: str) -> dict[str, float]:
    """A pass over a volume. every: 0 for the stand-in on all windows, else the network on every N-th and the last."""
    import numpy as np
    import torch

    total = window_count(shape)
    data = volume_data(shape)
    net = swin_unetr(device) if every else stand_in().to(device)
    if engine.startswith("ours"):
        from napari_medtransformer.segmentation import segment
        from napari_medtransformer.volumes import Volume

        model = automatic(net, device)
        if every:
            model.logits = now_and_then(model.logits, every, total)
        volume = Volume.from_array(data, modality="CT")
        base, begun = peak(device), time.process_time()
        dtype = "bfloat16" if engine.endswith("bf16") else "float32"
        labels = segment(model, volume, batch=1, dtype=dtype, overlap=OVERLAP)
        seconds = time.process_time() - begun
    else:
        from monai.inferers import sliding_window_inference

        inputs = torch.from_numpy(data)[None, None].float().add_(1000).div_(2000).clamp_(0, 1)
        del data
        base, begun = peak(device), time.process_time()
        with torch.inference_mode():
            predictor = now_and_then(net, every, total) if every else net
            logits = sliding_window_inference(
                inputs, WINDOW, 1, predictor, overlap=OVERLAP, mode="gaussian", sw_device=device, device="cpu"
            )
            labels = logits[0].argmax(dim=0).numpy()
        seconds = time.process_time() - begun
    found = {"peak_mb": peak(device), "before_mb": base, "cpu_seconds": seconds, "windows": total}
    if labels_to:
        np.save(labels_to, labels.astype(np.uint8))
    return found


def window_runner(name: str, device: str, stack: Any, *, compiled: bool = False) -> Callable[[], Any]:
    """A function that passes one window through a variant of the network, weighting included."""
    import torch

    from napari_medtransformer.segmentation.forward import Forward
    from napari_medtransformer.segmentation.windows import weight_map

    net = swin_unetr(device)
    window = torch.rand((1, 1, *WINDOW), generator=torch.Generator().manual_seed(0))
    weights = weight_map(WINDOW, "gaussian")
    half = name.endswith("bf16")
    if name.startswith("ours"):
        dtype = torch.bfloat16 if half else torch.float32
        forward = Forward(automatic(net, device), weights, batch=1, dtype=dtype, compiled=compiled)
        stack.enter_context(forward)

        def ours() -> Any:
            found = forward.start(window).result()
            if forward.said:
                raise SystemExit(forward.said[0])
            return found

        return ours
    weights = weights.to(device)

    def monai() -> Any:
        with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=half):
            return net(window.to(device)).float() * weights

    return monai


def timed(run: Callable[[], Any], device: str) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    import torch

    wall, cpu = time.perf_counter(), time.process_time()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def window_alone(name: str, device: str) -> dict[str, float]:
    """What one window takes by itself, with everything it needs loaded before."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        run = window_runner(name, device, stack)
        base = peak(device)
        run()
        return {"peak_mb": peak(device), "before_mb": base}


def window_times(device: str, rounds: int) -> dict[str, Any]:
    """Medians of all variants, in turn, after a round to warm up; and how far logits lie apart."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        runs = {name: window_runner(name, device, stack) for name in WINDOWS}
        first = {name: run() for name, run in runs.items()}
        classes = slice(0, CLASSES)
        apart = float((first["ours"][:, classes] - first["monai"][:, classes]).abs().max())
        del first
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                taken[name].append(timed(run, device))
    medians = {name: [statistics.median(t[i] for t in times) for i in (0, 1)] for name, times in taken.items()}
    return {"medians": medians, "apart": apart}


def compile_times(name: str, device: str, rounds: int) -> dict[str, Any]:
    """What compiling costs, and a compiled window beside one that is not, in turn."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        plain = window_runner(name, device, stack)
        compiled = window_runner(name, device, stack, compiled=True)
        plain()
        cost = timed(compiled, device)
        pairs = [(timed(plain, device), timed(compiled, device)) for _ in range(rounds)]
    medians = [[statistics.median(pair[which][i] for pair in pairs) for i in (0, 1)] for which in (0, 1)]
    return {"cost": cost, "plain": medians[0], "compiled": medians[1]}


def in_own_process(arguments: argparse.Namespace, case: str, **settings: Any) -> dict[str, Any]:
    """Run one case in a process of its own."""
    command = [sys.executable, __file__, "--case", case, "--device", arguments.device]
    command += ["--threads", str(arguments.threads), "--rounds", str(arguments.rounds)]
    command += [f"--{name}={value}" for name, value in settings.items()]
    environment = dict(os.environ, OMP_NUM_THREADS=str(arguments.threads))
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def in_words(shape: Shape) -> str:
    """Rows × columns × slices."""
    z, y, x = shape
    return f"{y} × {x} × {z}"


def engines_table(arguments: argparse.Namespace) -> None:
    """Both engines over growing volumes, and whether they name the same labels."""
    import numpy as np

    print(f"\n| {CLASSES} classes, int16 | " + " | ".join(f"{title}, MB" for title in ENGINES.values()) + " |")
    print("|---|" + "---|" * len(ENGINES))
    peaks: dict[str, list[float]] = {name: [] for name in ENGINES}
    found: dict[str, dict[str, Any]] = {}
    largest = shape_of(arguments.shape)
    sizes = [*(shape for shape in SIZES if np.prod(shape) < np.prod(largest)), largest]
    with tempfile.TemporaryDirectory() as folder:
        for shape in sizes:
            size = ",".join(map(str, shape))
            for name in ENGINES:
                found[name] = in_own_process(arguments, "pass", engine=name, shape=size, every=0,
                                             labels_to=Path(folder) / f"{name}.npy")  # fmt: skip
                peaks[name].append(found[name]["peak_mb"])
            print(f"| {in_words(shape)} | " + " | ".join(f"{peaks[n][-1]:,.0f}" for n in ENGINES) + " |", flush=True)
        ours, theirs = (np.load(Path(folder) / f"{n}.npy", mmap_mode="r") for n in ENGINES)
        differing = sum(int(np.count_nonzero(a != b)) for a, b in zip(ours, theirs))
    voxels = [float(np.prod(shape)) for shape in sizes]
    if len(sizes) > 1:
        growth = [(p[-1] - p[0]) * MB / (voxels[-1] - voxels[0]) for p in peaks.values()]
        print("| bytes per voxel more | " + " | ".join(f"{g:.1f}" for g in growth) + " |")
    spent = [one["cpu_seconds"] / one["windows"] for one in found.values()]
    print("| CPU s per window, the largest | " + " | ".join(f"{s:.2f}" for s in spent) + " |")
    print(f"\nLabels of the largest: {differing:,} of {ours.size:,} voxels differ.")


def network_table(arguments: argparse.Namespace) -> None:
    """The whole volume with the network on some windows, and one window alone."""
    shape = shape_of(arguments.shape)
    print(f"\n| {in_words(shape)}, SwinUNETR | peak MB | before the first window MB |\n|---|---|---|")
    for name, title in NETWORK.items():
        found = in_own_process(arguments, "pass", engine=name, shape=arguments.shape, every=arguments.every)
        print(f"| {title} | {found['peak_mb']:,.0f} | {found['before_mb']:,.0f} |", flush=True)
    print("\n| one window alone | MB more than before |\n|---|---|")
    for name, title in WINDOWS.items():
        found = in_own_process(arguments, "window", engine=name)
        print(f"| {title} | {found['peak_mb'] - found['before_mb']:,.0f} |", flush=True)


def time_table(arguments: argparse.Namespace) -> None:
    """One window through every variant."""
    found = in_own_process(arguments, "time")
    print(f"\n| one window, {arguments.threads} threads | wall s | CPU s | of MONAI's CPU time |\n|---|---|---|---|")
    whole = found["medians"]["monai"][1]
    for name, title in WINDOWS.items():
        wall, cpu = found["medians"][name]
        print(f"| {title} | {wall:.2f} | {cpu:.2f} | {cpu / whole:.2f} |")
    print(f"\nWeighted logits in float32 differ by at most {found['apart']:.1e}.", flush=True)


def compile_table(arguments: argparse.Namespace) -> None:
    """torch.compile: its cost and its gain."""
    print("\n| torch.compile | compiling, s | as it is, CPU s | compiled, CPU s | wall s, both |")
    print("|---|---|---|---|---|")
    for name in ("ours", "ours-bf16"):
        found = in_own_process(arguments, "compile", engine=name)
        (wall, cpu), (wall_compiled, cpu_compiled) = found["plain"], found["compiled"]
        row = f"{found['cost'][0]:.0f} | {cpu:.2f} | {cpu_compiled:.2f} | {wall:.2f}, {wall_compiled:.2f}"
        print(f"| {WINDOWS[name]} | {row} |", flush=True)


def shape_of(text: str) -> Shape:
    """(z, y, x) of "z,y,x"."""
    z, y, x = (int(n) for n in text.split(","))
    return z, y, x


TABLES = {"engines": engines_table, "network": network_table, "time": time_table, "compile": compile_table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="engines,network,time", help="tables, separated by commas")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--shape", default="256,512,512", help="z,y,x of the largest volume")
    parser.add_argument("--every", type=int, default=10**6, help="the network on every N-th window, and the last")
    parser.add_argument("--rounds", type=int, default=3)
    for name in ("case", "engine", "labels_to"):
        parser.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.case:
        for name in arguments.only.split(","):
            TABLES[name](arguments)
        return
    import torch

    torch.set_num_threads(arguments.threads)
    engine, device, rounds = arguments.engine, arguments.device, arguments.rounds
    cases: dict[str, Callable[[], dict[str, Any]]] = {
        "pass": lambda: whole_pass(engine, shape_of(arguments.shape), device, arguments.every, arguments.labels_to),
        "window": lambda: window_alone(engine, device),
        "time": lambda: window_times(device, rounds),
        "compile": lambda: compile_times(engine, device, rounds),
    }
    print(json.dumps(cases[arguments.case]()))


if __name__ == "__main__":
    # The folder of this file must not shadow packages.
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    main()
