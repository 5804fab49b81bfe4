"""Time and memory of attention: ours against transformers', MONAI's and Meta's, each case in its own process.

    python benchmarks/attention.py [--device cpu|cuda] [--threads N] [--repeat N] [--only PART …] [--case NAME …]
        [--list] [--json] [--no-write]

Prints tables, or JSON with --json, and renews its own sections of docs/benchmarks.md. Wall times need an idle machine;
CPU times stand on a busy one too. All of it takes about five minutes on two cores.
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

from attention_report import how, machine, renewed, table

ROOT = Path(__file__).resolve().parents[1]
MB = 1 << 20
BUSY_LOAD = 0.5  # running processes on average before the start, above which wall times say nothing
LONG = 5.0  # seconds of a first run after which warming up hardly matters: it may count, and be the only one

Case = Callable[[str, int], dict[str, Any]]
CASES: dict[str, tuple[str, Case]] = {}


def case(name: str, title: str) -> Callable[[Case], Case]:
    """Register a benchmark case."""

    def register(function: Case) -> Case:
        CASES[name] = (title, function)
        return function

    return register


def timed(run: Callable[[], Any], device: str, repeat: int, *, always_warm: bool = False) -> dict[str, float]:
    """The best of some runs after one to warm up: wall and CPU seconds. A long first run counts, unless always_warm."""
    import torch

    def once() -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - wall, time.process_time() - cpu

    first = once()
    times = [first] if first[0] > LONG and not always_warm else [once() for _ in range(repeat)]
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
    model.dtype = torch.bfloat16 if bf16 else torch.float32  # with AMX bfloat16 is what it loads with
    return model


def encode_ours(device: str, repeat: int, bf16: bool) -> dict[str, Any]:
    model, image = our_sam(device, bf16), image_2d()
    return {**timed(lambda: model.encode(image), device, repeat, always_warm=True), "peak_mb": peak(device)}


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

    return {**timed(run, device, repeat, always_warm=True), "peak_mb": peak(device)}


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

    return {**timed(run, device, repeat, always_warm=True), "peak_mb": peak(device)}


@case("sam transformers sdpa", "transformers, sdpa, float32")
def _(device: str, repeat: int) -> dict[str, Any]:
    return transformers_sam(device, "sdpa", repeat)


@case("sam transformers eager", "transformers, eager, float32")
def _(device: str, repeat: int) -> dict[str, Any]:
    return transformers_sam(device, "eager", repeat)


@case("sam meta", "segment-anything, float32")
def _(device: str, repeat: int) -> dict[str, Any]:
    import torch

    encoder = meta_encoder()
    if encoder is None:
        return {"skipped": "segment-anything is not installed"}
    encoder = encoder.to(device).eval()
    pixels = torch.rand(1, 3, 1024, 1024, device=device)

    def run() -> None:
        with torch.inference_mode():
            encoder(pixels)

    return {**timed(run, device, repeat, always_warm=True), "peak_mb": peak(device)}


def meta_encoder() -> Any:
    """segment-anything's ViT-B image encoder, None where that package is not installed.

    The package as a whole imports torchvision, which its networks do not need: they are imported past it.
    """
    import importlib
    import importlib.util
    import types
    from functools import partial

    import torch

    found = importlib.util.find_spec("segment_anything")
    if found is None or found.submodule_search_locations is None:
        return None
    package = types.ModuleType("segment_anything")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["segment_anything"] = package
    networks = importlib.import_module("segment_anything.modeling.image_encoder")
    return networks.ImageEncoderViT(
        img_size=1024,
        patch_size=16,
        embed_dim=768,
        depth=12,
        num_heads=12,
        out_chans=256,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(2, 5, 8, 11),
    )


# --- answers of the probe --------------------------------------------------------------------------------------------


@case("answer ours", "all heads of one voxel, one global site")
def _(device: str, repeat: int) -> dict[str, Any]:
    from napari_medtransformer import AttentionProbe

    model, where = our_sam(device, bf16=False), (200, 300)
    with AttentionProbe(model) as probe:
        model.encode(image_2d())
    questions = {
        "all heads of one voxel, all 12 sites": (lambda: [probe.heatmap(site, where) for site in probe.sites], 5),
        "entropy and distance of all heads of all sites": (lambda: probe.summary((1.0, 1.0)), 1),
        "rollout from one voxel through all sites": (lambda: probe.rollout(where), 1),
    }
    first = timed(lambda: probe.heatmap("encoder.5", where), device, 20 * repeat)
    also = {title: timed(ask, device, times * repeat) for title, (ask, times) in questions.items()}
    return {**first, "also": also}


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


# --- MONAI's 3D networks ---------------------------------------------------------------------------------------------


def monai_network(kind: str, size: int, device: str) -> Any:
    import torch
    from monai.networks.nets import UNETR, SwinUNETR

    torch.manual_seed(0)
    if kind == "unetr":
        return UNETR(1, 14, (size,) * 3, proj_type="conv").to(device).eval()
    return SwinUNETR(in_channels=1, out_channels=14, feature_size=48).to(device).eval()


def monai_case(kind: str, size: int, ours: bool, device: str, repeat: int) -> dict[str, Any]:
    """The whole network, and its transformer alone, where attention is."""
    import torch

    network = monai_network(kind, size, device)
    if ours:
        from napari_medtransformer.models.monai_attention import use_fused_attention

        use_fused_attention(network)
    image = torch.rand(1, 1, size, size, size, device=device)
    encoder = network.vit if kind == "unetr" else network.swinViT

    def run(module: Any) -> None:
        with torch.inference_mode():
            module(image)

    alone = {**timed(lambda: run(encoder), device, repeat), "peak_mb": peak(device)}
    whole = {**timed(lambda: run(network), device, repeat), "peak_mb": peak(device)}
    return {**whole, "also": {"– its transformer alone": alone}}


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
ONLY_IF_ASKED = ("sam ours fp32 low-rank",)
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
    command = [sys.executable, __file__, "--inside", name, "--device", arguments.device]
    command += ["--repeat", str(arguments.repeat)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"skipped": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "failed"}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run the cases, print their tables, renew their sections of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeat", type=int, default=1, help="runs after one to warm up")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="parts to run instead of all")
    parser.add_argument("--case", nargs="+", choices=list(CASES), metavar="NAME", help="cases to run; see --list")
    parser.add_argument("--list", action="store_true", help="print the names of all cases")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables; write nothing")
    parser.add_argument("--no-write", action="store_true", help="leave docs/benchmarks.md as it is")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(CASES[arguments.inside][1](arguments.device, arguments.repeat)))
        return
    if arguments.list:
        print("\n".join(f"{name}: {title}" for name, (title, _) in CASES.items()))
        return
    busy = os.getloadavg()[0] > BUSY_LOAD
    usual = [name for name in CASES if name not in ONLY_IF_ASKED]
    chosen = arguments.case or [n for n in usual if arguments.only is None or n.split()[0] in arguments.only]
    results = {}
    for name in chosen:
        results[name] = run_case(name, arguments)
        print(f"{CASES[name][0]}: {results[name]}", file=sys.stderr, flush=True)
    if arguments.json:
        about = {"date": f"{date.today()}", "machine": machine(arguments.device), "threads": arguments.threads}
        print(json.dumps({**about, "busy": busy, "cases": results}, indent=1))
        return
    titled = {PARTS[part]: {CASES[n][0]: r for n, r in results.items() if n.split()[0] == part} for part in PARTS}
    sections = {title: table(title, rows, busy) for title, rows in titled.items() if rows}
    note = how(machine(arguments.device), arguments.threads, arguments.repeat, LONG, busy)
    print("\n".join(line for lines in sections.values() for line in [*lines[:1], "", note, *lines[1:]]))
    if arguments.case:
        print("Single cases are not written to docs/benchmarks.md: a table is measured in one go.")
    elif not arguments.no_write:
        path = ROOT / "docs" / "benchmarks.md"
        path.write_text(renewed(path.read_text() if path.exists() else "# Benchmarks\n", sections, note))


if __name__ == "__main__":
    main()
