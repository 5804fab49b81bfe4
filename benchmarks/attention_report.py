"""What benchmarks/attention.py prints and writes: tables in Markdown, and how they were made."""

from __future__ import annotations

import platform
from datetime import date
from pathlib import Path
from typing import Any


def table(title: str, results: dict[str, dict[str, Any]], busy: bool) -> list[str]:
    """The lines of one part's table in Markdown, a row per result, by their titles.

    busy: leave wall times out, which other work on the machine spoils.
    """
    rows = []
    for name, result in results.items():
        if "skipped" in result:
            rows.append(f"| {name} | not measured: {result['skipped']} | | |")
            continue
        rows += [row(*one, busy) for one in ((name, result), *result.get("also", {}).items())]
    return [f"## {title}", "", "| | wall | CPU time | peak memory |", "|---|---|---|---|", *rows, ""]


def row(title: str, result: dict[str, Any], busy: bool) -> str:
    """One line of a table."""
    memory = f"{result['peak_mb']:,.0f} MB" if "peak_mb" in result else ""
    wall = "–" if busy else seconds(result["seconds"])
    return f"| {title} | {wall} | {seconds(result['cpu_seconds'])} | {memory} |"


def seconds(value: float) -> str:
    """Seconds or milliseconds, to three digits."""
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def machine(device: str) -> str:
    """What the numbers were measured on."""
    import torch

    from napari_medtransformer.attention.policy import cpu_has

    if device == "cuda":
        return torch.cuda.get_device_name()
    names = [line.split(":", 1)[1].strip() for line in cpu_lines() if line.startswith("model name")]
    has = [k for k in ("amx_bf16", "avx512_bf16") if cpu_has(k)]
    return f"{names[0] if names else platform.processor()} ({', '.join(has) or 'no bfloat16 units'})"


def cpu_lines() -> list[str]:
    """Lines of /proc/cpuinfo, none outside Linux."""
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def how(machine: str, threads: int, repeat: int, long: float, busy: bool) -> str:
    """How and where it was measured, in a paragraph. long: seconds of a first run from which it may count."""
    import torch

    runs = "One run" if repeat == 1 else f"The best of {repeat} runs"
    text = (
        f"{date.today():%d %B %Y}, {machine}, {threads} threads, "
        f"torch {torch.__version__}, `python benchmarks/attention.py`. {runs} after one to warm up – of 3D networks "
        f"the first where it takes over {long:.0f} s –, each case in its own process; peak memory is the process's, "
        "network and libraries included. CPU time is summed over threads."
    )
    return text + (" Other work ran on the machine, so wall times are left out." if busy else "")


def renewed(page: str, sections: dict[str, list[str]], note: str) -> str:
    """The page with these sections in place of the old ones; those of other benchmarks stay as they are."""
    parts = page.split("\n## ")
    for title, lines in sections.items():
        text = "\n".join([lines[0].removeprefix("## "), "", note, *lines[1:]]).rstrip() + "\n"
        place = next((i for i, old in enumerate(parts) if i and old.startswith(title + "\n")), None)
        if place is None:
            parts.append(text)
        else:
            parts[place] = text
    return "\n## ".join(p.rstrip("\n") + "\n" for p in parts)
