"""Time and memory of attention: ours against transformers', MONAI's and Meta's, each case in its own process.

    python benchmarks/attention.py [--device cpu|cuda] [--threads N] [--repeat N] [--only PART] [--no-write]

Prints a table and writes docs/benchmarks.md. Wall times need an idle machine; CPU times stand on a busy one too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MB = 1 << 20
BUSY_LOAD = 0.5  # running processes on average before the start, above which wall times say nothing

Case = Callable[[str, int], dict[str, Any]]
CASES: dict[str, tuple[str, Case]] = {}


def case(name: str, title: str) -> Callable[[Case], Case]:
    """Register a benchmark case."""

    def register(function: Case) -> Case:
        CASES[name] = (title, function)
        return function

    return register


def timed(run: Callable[[], Any], device: str, repeat: int) -> dict[str, float]:
    """The best of some runs after one to warm up: wall and CPU seconds."""
    import torch

    def once() -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - wall, time.process_time() - cpu

    once()
    times = [once() for _ in range(repeat)]
    return {"seconds": min(t[0] for t in times), "cpu_seconds": min(t[1] for t in times)}


def peak(device: str) -> float:
    """Peak memory of this process so far in MB: resident on a CPU, allocated on a GPU."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / MB
    factor = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * factor / MB


def image_2d() -> Any:
    """(512, 512) float32 in [0, 1]."""
    import numpy as np

    return np.random.default_rng(0).random((512, 512), dtype=np.float32)


# --- SAM ViT-B at 1024² ----------------------------------------------------------------------------------------------


def our_sam(device: str, bf16: bool) -> Any:
    """SAM ViT-B with seeded weights."""
    import torch

    from napari_medtransformer import load_model

    model = load_model("sam-vit-b", weights="random", device=device)
    if bf16:
        model.dtype = torch.bfloat16
    return model


def encode_ours(device: str, repeat: int, bf16: bool) -> dict[str, Any]:
    model, image = our_sam(device, bf16), image_2d()
    return {**timed(lambda: model.encode(image), device, repeat), "peak_mb": peak(device)}


@case("sam ours fp32", "this package, float32")
def _(device: str, repeat: int) -> dict[str, Any]:
    return encode_ours(device, repeat, bf16=False)


@case("sam ours bf16", "this package, bfloat16")
def _(device: str, repeat: int) -> dict[str, Any]:
    return encode_ours(device, repeat, bf16=True)


@case("sam ours fp32 low-rank", "this package, float32, low-rank kernel")
def _(device: str, repeat: int) -> dict[str, Any]:
    from napari_medtransformer.attention.policy import AttentionPolicy, use_policy

    with use_policy(AttentionPolicy(None, "low-rank")):
        return encode_ours(device, repeat, bf16=False)


@case("sam ours probed", "this package, float32, all sites probed")
def _(device: str, repeat: int) -> dict[str, Any]:
    from napari_medtransformer import AttentionProbe

    model, image = our_sam(device, bf16=False), image_2d()

    def run() -> None:
        with AttentionProbe(model):
            model.encode(image)

    return {**timed(run, device, repeat), "peak_mb": peak(device)}


def transformers_sam(device: str, implementation: str, repeat: int) -> dict[str, Any]:
    import torch
    from transformers import SamConfig, SamModel

    config = SamConfig()
    config._attn_implementation = implementation
    config.vision_config.initializer_range = 0.02
    model = SamModel._from_config(config, attn_implementation=implementation).to(device).eval()
    pixels = torch.rand(1, 3, 1024, 1024, device=device)

    def run() -> None:
        with torch.inference_mode():
            model.vision_encoder(pixels)

    return {**timed(run, device, repeat), "peak_mb": peak(device)}


@case("sam transformers sdpa", "transformers, sdpa, float32")
def _(device: str, repeat: int) -> dict[str, Any]:
    return transformers_sam(device, "sdpa", repeat)


@case("sam transformers eager", "transformers, eager, float32")
def _(device: str, repeat: int) -> dict[str, Any]:
    return transformers_sam(device, "eager", repeat)


@case("sam meta", "segment-anything, float32")
def _(device: str, repeat: int) -> dict[str, Any]:
    import torch

    try:
        from segment_anything import sam_model_registry
    except ImportError:
        return {"skipped": "segment-anything is not installed"}
    model = sam_model_registry["vit_b"]().to(device).eval()
    pixels = torch.rand(1, 3, 1024, 1024, device=device)

    def run() -> None:
        with torch.inference_mode():
            model.image_encoder(pixels)

    return {**timed(run, device, repeat), "peak_mb": peak(device)}


# --- answers of the probe --------------------------------------------------------------------------------------------


def probed_sam(device: str) -> Any:
    from napari_medtransformer import AttentionProbe

    model = our_sam(device, bf16=False)
    with AttentionProbe(model) as probe:
        model.encode(image_2d())
    return probe


@case("answer voxel", "all heads of one voxel, one global site")
def _(device: str, repeat: int) -> dict[str, Any]:
    probe = probed_sam(device)
    return timed(lambda: probe.heatmap("encoder.5", (200, 300)), device, 20 * repeat)


@case("answer voxel everywhere", "all heads of one voxel, all 12 sites")
def _(device: str, repeat: int) -> dict[str, Any]:
    probe = probed_sam(device)
    return timed(lambda: [probe.heatmap(site, (200, 300)) for site in probe.sites], device, 5 * repeat)


@case("answer voxel eager", "the same from transformers' output_attentions (a whole eager pass)")
def _(device: str, repeat: int) -> dict[str, Any]:
    import torch
    from transformers import SamConfig, SamModel

    config = SamConfig()
    config.vision_config.initializer_range = 0.02
    model = SamModel._from_config(config, attn_implementation="eager").to(device).eval()
    pixels = torch.rand(1, 3, 1024, 1024, device=device)

    def run() -> None:
        with torch.inference_mode():
            weights = model.vision_encoder(pixels, output_attentions=True).attentions
            [w.reshape(-1, 12, *w.shape[-2:])[:, :, 100].cpu() for w in weights]

    return {**timed(run, device, repeat), "peak_mb": peak(device)}


@case("answer summary", "entropy and distance of all heads of all sites")
def _(device: str, repeat: int) -> dict[str, Any]:
    probe = probed_sam(device)
    return timed(lambda: probe.summary((1.0, 1.0)), device, repeat)


@case("answer rollout", "rollout from one voxel through all sites")
def _(device: str, repeat: int) -> dict[str, Any]:
    probe = probed_sam(device)
    return timed(lambda: probe.rollout((200, 300)), device, repeat)


# --- MONAI's 3D networks ---------------------------------------------------------------------------------------------


def monai_network(kind: str, size: int, device: str) -> Any:
    import torch
    from monai.networks.nets import UNETR, SwinUNETR

    torch.manual_seed(0)
    if kind == "unetr":
        return UNETR(1, 14, (size,) * 3, proj_type="conv").to(device).eval()
    return SwinUNETR(in_channels=1, out_channels=14, feature_size=48).to(device).eval()


def monai_case(kind: str, size: int, ours: bool, device: str, repeat: int) -> dict[str, Any]:
    import torch

    network = monai_network(kind, size, device)
    if ours:
        from napari_medtransformer.models.monai_attention import use_fused_attention

        use_fused_attention(network)
    image = torch.rand(1, 1, size, size, size, device=device)

    def run() -> None:
        with torch.inference_mode():
            network(image)

    return {**timed(run, device, repeat), "peak_mb": peak(device)}


def add_monai_cases() -> None:
    """One case per network, size and side."""
    for kind in ("unetr", "swin_unetr"):
        for size in (96, 128):
            for ours in (True, False):
                name = f"monai {kind} {size} {'ours' if ours else 'theirs'}"
                whose = "this package" if ours else "MONAI"
                label = "UNETR" if kind == "unetr" else "SwinUNETR"

                def run(device: str, repeat: int, kind: str = kind, size: int = size, ours: bool = ours) -> Any:
                    return monai_case(kind, size, ours, device, repeat)

                CASES[name] = (f"{label} {size}³, {whose}, float32", run)


add_monai_cases()
PARTS = {
    "sam": "SAM ViT-B, 1024², encoding one image",
    "answer": "SAM ViT-B, 1024², asking the probe",
    "monai": "3D networks, one patch",
}


# --- running ---------------------------------------------------------------------------------------------------------


def run_case(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One case in a process of its own."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(arguments.threads),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
        "TRANSFORMERS_VERBOSITY": "error",
    }
    command = [
        sys.executable,
        __file__,
        "--case",
        name,
        "--device",
        arguments.device,
        "--repeat",
        str(arguments.repeat),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"skipped": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "failed"}
    return json.loads(done.stdout.splitlines()[-1])


def table(part: str, results: dict[str, dict[str, Any]], busy: bool) -> list[str]:
    """The lines of one part's table in Markdown. busy: leave wall times out, which other work on the machine spoils."""
    lines = [f"## {PARTS[part]}", "", "| | wall | CPU time | peak memory |", "|---|---|---|---|"]
    for name, result in results.items():
        if name.split()[0] != part:
            continue
        title = CASES[name][0]
        if "skipped" in result:
            lines.append(f"| {title} | not measured: {result['skipped']} | | |")
            continue
        memory = f"{result['peak_mb']:,.0f} MB" if "peak_mb" in result else ""
        wall = "–" if busy else seconds(result["seconds"])
        lines.append(f"| {title} | {wall} | {seconds(result['cpu_seconds'])} | {memory} |")
    return [*lines, ""]


def seconds(value: float) -> str:
    """Seconds or milliseconds, to three digits."""
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def machine(device: str) -> str:
    """What the numbers were measured on."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    names = [line.split(":", 1)[1].strip() for line in cpu_lines() if line.startswith("model name")]
    has = [k for k in ("amx_bf16", "avx512_bf16") if torch.cpu.get_capabilities().get(k)]
    return f"{names[0] if names else platform.processor()} ({', '.join(has) or 'no bfloat16 units'})"


def cpu_lines() -> list[str]:
    """Lines of /proc/cpuinfo, none outside Linux."""
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """Run all cases, print the table, write docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=list(PARTS))
    parser.add_argument("--no-write", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        result = CASES[arguments.case][1](arguments.device, arguments.repeat)
        print(json.dumps(result))
        return
    busy = os.getloadavg()[0] > BUSY_LOAD
    results = {}
    for name, (title, _) in CASES.items():
        if arguments.only in (None, name.split()[0]):
            results[name] = run_case(name, arguments)
            print(f"{title}: {results[name]}", flush=True)
    lines = report(results, arguments, busy)
    print("\n".join(lines))
    if not arguments.no_write:
        (ROOT / "docs" / "benchmarks.md").write_text("\n".join(lines).rstrip() + "\n")


def report(results: dict[str, dict[str, Any]], arguments: argparse.Namespace, busy: bool) -> list[str]:
    """The page in Markdown, line by line."""
    import torch

    lines = [
        "# Benchmarks of attention",
        "",
        f"{date.today():%d %B %Y}, {machine(arguments.device)}, {arguments.threads} threads, "
        f"torch {torch.__version__}.",
        f"The best of {arguments.repeat} runs after one to warm up, each case in its own process; peak memory is the",
        "process's, network and libraries included. CPU time is summed over threads.",
    ]
    if busy:
        lines.append("Other work ran on the machine, so wall times are left out.")
    lines += ["Made by `python benchmarks/attention.py`.", ""]
    for part in PARTS:
        if any(name.split()[0] == part for name in results):
            lines += table(part, results, busy)
    return lines


if __name__ == "__main__":
    main()
