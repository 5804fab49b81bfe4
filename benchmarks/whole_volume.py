"""Memory and time of a whole volume: this package's sliding windows against MONAI's, each case in its own process.

    python benchmarks/whole_volume.py [--device cpu|cuda] [--threads N] [--shape Z,Y,X] [--every N] [--only PART]

A SwinUNETR (feature size 24, 14 classes, windows of 96³, seeded random weights) over an int16 volume. Memory cases run
the network on every N-th window and on the first and last, and give its last answer for the others: buffers and
activations are those of a full run, which would take an hour on two cores. --every 1 runs every window. Times are of
single windows, in CPU seconds, which stand on a busy machine too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WINDOW = (96, 96, 96)
CLASSES = 14
MB = 1 << 20

MEMORY = {
    "memory-ours": "this package, float32",
    "memory-ours-bf16": "this package, bfloat16",
    "memory-monai": "MONAI's sliding_window_inference, float32, logits alone",
    "memory-monai-labels": "the same, and argmax into labels",
}
TIMES = {
    "time-monai": "MONAI's SwinUNETR as it is, float32",
    "time-ours": "this package, float32",
    "time-ours-bf16": "this package, bfloat16",
    "time-monai-bf16": "MONAI's SwinUNETR as it is, bfloat16 autocast",
}


def peak(device: str) -> float:
    """MB this process held at most: resident on a CPU, allocated on a GPU."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MB


def network(device: str) -> Any:
    """The network, seeded."""
    import torch
    from monai.networks.nets import SwinUNETR

    torch.manual_seed(0)
    return SwinUNETR(in_channels=1, out_channels=CLASSES, feature_size=24).eval().to(device)


def automatic(net: Any, device: str) -> Any:
    """The network as an automatic model."""
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


def volume_data(shape: tuple[int, int, int]) -> Any:
    """int16 noise, made a plane at a time."""
    import numpy as np

    rng = np.random.default_rng(0)
    data = np.empty(shape, np.int16)
    for plane in data:
        plane[:] = rng.integers(-1000, 1000, plane.shape, dtype=np.int16)
    return data


def now_and_then(run: Any, every: int, total: int) -> Any:
    """`run` on every N-th window and the last; its last answer for the others."""
    state: dict[str, Any] = {"count": 0, "answer": None}

    def answer(windows: Any) -> Any:
        count = state["count"]
        state["count"] = count + len(windows)
        if state["answer"] is None or count % every == 0 or count == total - 1:
            state["answer"] = run(windows)
        return state["answer"].clone()

    return answer


def window_count(shape: tuple[int, int, int]) -> int:
    from napari_medtransformer.segmentation.windows import window_starts

    count = 1
    for n, w in zip(shape, WINDOW):
        count *= len(window_starts(n, w, 0.25))
    return count


def measure_memory(name: str, shape: tuple[int, int, int], device: str, every: int) -> dict[str, float]:
    import torch

    total = window_count(shape)
    data = volume_data(shape)
    net = network(device)
    begun = time.process_time()
    if name.startswith("memory-ours"):
        from napari_medtransformer.segmentation import segment
        from napari_medtransformer.volumes import Volume

        model = automatic(net, device)
        model.logits = now_and_then(model.logits, every, total)
        base = peak(device)
        segment(model, Volume.from_array(data, modality="CT"), batch=1,
                dtype="bfloat16" if name.endswith("bf16") else "float32")  # fmt: skip
    else:
        from monai.inferers import sliding_window_inference

        inputs = torch.from_numpy(data)[None, None].float().add_(1000).div_(2000).clamp_(0, 1)
        del data
        base = peak(device)
        with torch.inference_mode():
            logits = sliding_window_inference(
                inputs, WINDOW, 1, now_and_then(lambda x: net(x), every, total), overlap=0.25, mode="gaussian",
                sw_device=device, device="cpu",
            )  # fmt: skip
            if name.endswith("labels"):
                logits.argmax(dim=1)
    return {"peak_mb": peak(device), "before_mb": base, "cpu_seconds": time.process_time() - begun, "windows": total}


def measure_time(name: str, device: str, repeat: int) -> dict[str, float]:
    """The best of some passes over one window after one to warm up, weighting included."""
    import torch

    from napari_medtransformer.segmentation.forward import Forward
    from napari_medtransformer.segmentation.windows import weight_map

    net = network(device)
    windows = torch.rand((1, 1, *WINDOW), generator=torch.Generator().manual_seed(0))
    weights = weight_map(WINDOW, "gaussian")
    dtype = torch.bfloat16 if name.endswith("bf16") else torch.float32

    def timed(run: Any) -> list[tuple[float, float]]:
        taken = []
        for _ in range(repeat + 1):
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            taken.append((time.perf_counter() - wall, time.process_time() - cpu))
        return taken[1:]

    if name.startswith("time-ours"):
        with Forward(automatic(net, device), weights, batch=1, dtype=dtype) as forward:
            taken = timed(lambda: forward.start(windows).result())
    else:

        def monai() -> Any:
            with torch.inference_mode(), torch.autocast(device, dtype=dtype, enabled=dtype == torch.bfloat16):
                return net(windows.to(device)).float() * weights.to(device)

        taken = timed(monai)
    return {"seconds": min(t[0] for t in taken), "cpu_seconds": min(t[1] for t in taken), "peak_mb": peak(device)}


def in_own_process(arguments: argparse.Namespace, name: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", name, "--device", arguments.device, "--shape", arguments.shape]
    command += ["--threads", str(arguments.threads), "--every", str(arguments.every), "--repeat", str(arguments.repeat)]
    environment = dict(os.environ, OMP_NUM_THREADS=str(arguments.threads))
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--shape", default="256,512,512", help="z,y,x")
    parser.add_argument("--every", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--only", default="", help="memory or time")
    parser.add_argument("--case", default="")
    arguments = parser.parse_args()
    z, y, x = (int(n) for n in arguments.shape.split(","))
    if arguments.case:
        import torch

        torch.set_num_threads(arguments.threads)
        name = arguments.case
        found = (
            measure_memory(name, (z, y, x), arguments.device, arguments.every)
            if name.startswith("memory")
            else measure_time(name, arguments.device, arguments.repeat)
        )
        print(json.dumps(found))
        return
    if arguments.only in ("", "memory"):
        print(
            f"\n{y} × {x} × {z} int16, {CLASSES} classes\n\n| | peak MB | before the first window MB |\n|---|---|---|"
        )
        for name, title in MEMORY.items():
            found = in_own_process(arguments, name)
            print(f"| {title} | {found['peak_mb']:,.0f} | {found['before_mb']:,.0f} |", flush=True)
    if arguments.only in ("", "time"):
        print("\n| one window | wall s | CPU s |\n|---|---|---|")
        for name, title in TIMES.items():
            found = in_own_process(arguments, name)
            print(f"| {title} | {found['seconds']:.2f} | {found['cpu_seconds']:.2f} |", flush=True)


if __name__ == "__main__":
    # The folder of this file must not shadow packages.
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    main()
