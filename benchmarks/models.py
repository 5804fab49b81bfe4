"""Every published model at full size with random weights: does it run, how long, in how much memory.

python benchmarks/models.py [--models NAME ...] [--once] [--docs docs/models.md] [--json FILE]

Each model runs in a process of its own, one after another, on a slice and a volume of the shipped CT: clicks through
ImagePredictor and PromptSession, 3D clicks through prompting.object_3d, automatic ones through segment. Times are
seconds of processor time, which a busy machine does not stretch as it does the clock, whose seconds are kept beside
them with the load they were taken under; memory is the process's peak, interpreter and libraries (about 0.5 GB)
included. Results are kept in the JSON file and rewritten model by model, so
that a run can be interrupted; --docs replaces the table between the markers of that file. --once encodes a single
slice, through a session alone, or segments a part of the volume: for the largest models, whose smaller kin ran whole.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "models.json"
START, STOP = "<!-- models table: written by benchmarks/models.py -->", "<!-- end of models table -->"


def main() -> None:
    """Run the models asked for, or print one model's measurements with --one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", help="names; all but the bundled ones if left out")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where results are kept")
    parser.add_argument("--docs", type=Path, help="a page whose table is replaced")
    parser.add_argument("--once", action="store_true", help="one slice, through a session alone")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(given.one, given.once)))
        return
    kept: dict[str, Any] = json.loads(given.json.read_text()) if given.json.exists() else {}
    for name in published() if given.models is None else given.models:
        command = [sys.executable, __file__, "--one", name, *(("--once",) if given.once else ())]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            print(f"{name}: failed: {result.stderr.strip().splitlines()[-1:]}", flush=True)
            continue
        kept[name] = json.loads(result.stdout.strip().splitlines()[-1])
        given.json.write_text(json.dumps(kept, indent=1) + "\n")
        print(f"{name}: {kept[name]}", flush=True)
    table = as_table(kept)
    print(table)
    if given.docs is not None:
        write_table(given.docs, table)


def published() -> list[str]:
    """The models whose weights are elsewhere, smallest first."""
    from napari_medtransformer.models import list_models

    cards = [card for card in list_models() if not isinstance(card.weights, str)]
    return [card.name for card in sorted(cards, key=lambda card: card.memory_bytes or 0)]


class Spent(NamedTuple):
    """Seconds: of the processor, all threads together, and by the clock."""

    processor: float
    wall: float

    def without(self, other: Spent) -> Spent:
        """This less a part of it."""
        return Spent(round(self.processor - other.processor, 2), round(self.wall - other.wall, 2))


def timed(run: Callable[[], Any]) -> tuple[Any, Spent]:
    """What `run` returns, and the time it took."""
    processor, wall = time.process_time(), time.perf_counter()
    value = run()
    return value, Spent(round(time.process_time() - processor, 2), round(time.perf_counter() - wall, 2))


def spent(first: Spent, then: Spent, what: str) -> dict[str, Any]:
    """The two times of a model as they are kept. what: what each of them was spent on."""
    return {
        "first_s": first.processor,
        "first_wall_s": first.wall,
        "next_s": then.processor,
        "next_wall_s": then.wall,
        "what": what,
    }


def measured(name: str, once: bool) -> dict[str, Any]:
    """One model's measurements, in this process."""
    import torch

    import napari_medtransformer as nmt
    from napari_medtransformer.models import find_card

    card = find_card(name)
    volume = nmt.read_volume(ROOT / "sample_data" / "example_ct.nii.gz")
    model, load = timed(lambda: nmt.load_model(name, "random", "cpu"))
    found: dict[str, Any] = {
        "title": card.title,
        "input": " × ".join(str(n) for n in card.input.size),
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "load_s": load.processor,
        "load_average": round(os.getloadavg()[0], 1),
        "threads": torch.get_num_threads(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": processor(),
        "sites": len(model.attention_sites()),
    }
    if card.task == "automatic":
        found |= automatic(model, volume, once)
    elif card.dimensions == 3:
        found |= clicks_in_3d(model, volume)
    else:
        found |= clicks_on_one_slice(model, volume) if once else clicks_on_slices(model, volume)
    found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found


def clicks_on_slices(model: Any, volume: Any) -> dict[str, Any]:
    """A click and a box through ImagePredictor, then through a session on the volume."""
    import napari_medtransformer as nmt

    z, y, x = (n // 2 for n in volume.shape)
    predictor = nmt.ImagePredictor(model)
    _, encode = timed(lambda: predictor.set_image(volume.data[z], (volume.window.low, volume.window.high)))
    first, decode = timed(lambda: predictor.predict(points=[(y, x)], labels=[1]))
    box = predictor.predict(box=(y - 10, x - 15, y + 10, x + 15))
    session = nmt.PromptSession(model, volume)
    session.add_point((z + 1, y, x), positive=True, object_id=1, axis=0)
    session.add_box((z + 1, y - 10, x - 15), (z + 1, y + 10, x + 15), object_id=2, axis=0)
    shapes = {first.mask.shape, box.mask.shape, session.labels.shape[1:]}
    if shapes != {volume.data[z].shape}:
        raise RuntimeError(f"masks of {shapes} for slices of {volume.data[z].shape}")
    return spent(encode, decode, "a slice; then a click")


def clicks_on_one_slice(model: Any, volume: Any) -> dict[str, Any]:
    """Two clicks and a box through a session, on one slice that is encoded once."""
    import napari_medtransformer as nmt
    from napari_medtransformer.prompting import PointPrompt

    z, y, x = (n // 2 for n in volume.shape)
    session = nmt.PromptSession(model, volume)
    first = session.add_prompt(PointPrompt((z, y, x)))
    outcome, whole = timed(lambda: session.predict(first))
    session.accept(outcome)
    second = session.add_prompt(PointPrompt((z, y + 5, x), positive=False))
    outcome, decode = timed(lambda: session.predict(second))
    session.accept(outcome)
    session.add_box((z, y - 10, x - 15), (z, y + 10, x + 15), object_id=2, axis=0)
    return spent(whole.without(decode), decode, "a slice; then a click")


def clicks_in_3d(model: Any, volume: Any) -> dict[str, Any]:
    """A click in 3D, and another that refines the answer."""
    from napari_medtransformer.prompting.object_3d import segment_object

    centre = tuple(n // 2 for n in volume.shape)
    first, whole = timed(lambda: segment_object(model, volume, [centre]))
    embedding = model.encode(volume.data, volume.spacing, centre, volume.modality)
    from napari_medtransformer.models.volume_model import VolumePrompts

    clicks = VolumePrompts([centre], [1], previous=first.answer)
    _, decode = timed(lambda: model.decode(embedding, clicks))
    if first.mask.shape != volume.shape:
        raise RuntimeError(f"a mask of {first.mask.shape} for a volume of {volume.shape}")
    return spent(whole.without(decode), decode, "a crop of 128³; then a click")


def automatic(model: Any, volume: Any, once: bool) -> dict[str, Any]:
    """One window, and a part of the volume through segment; with `once`, of 144 mm in all three axes."""
    import torch

    import napari_medtransformer as nmt

    contract = model.card.input
    window = torch.zeros(1, contract.channels, *contract.size)
    _, one = timed(lambda: model.logits(window))
    part = volume.data[:2] if len(contract.size) == 2 else volume.data[30:78, 30:78, 30:78] if once else volume.data
    small = nmt.Volume.from_array(part, volume.spacing, volume.modality)
    labels, whole = timed(lambda: nmt.segment(model, small))
    if labels.shape != part.shape:
        raise RuntimeError(f"labels of {labels.shape} for a volume of {part.shape}")
    return spent(one, whole, f"a window; then {' × '.join(str(n) for n in part.shape)} voxels")


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def as_table(kept: dict[str, Any]) -> str:
    """The results as Markdown, with where and when they were taken."""
    where = sorted({f"{one['processor']}, {one['threads']} thread(s), {one['date']}" for one in kept.values()})
    rows = [
        "| model | parameters | input | format | sites | made, s | first answer, s | next, s | peak, GB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in sorted(kept.items(), key=lambda item: item[1]["parameters"]):
        rows.append(
            f"| {name} | {one['parameters'] / 1e6:.1f} M | {one['input']} | {one['dtype']} | {one['sites']} | "
            f"{one['load_s']:.1f} | {seconds(one, 'first', 1)} ({one['what'].split(';')[0]}) | "
            f"{seconds(one, 'next', 2)} | {one['peak_bytes'] / 1e9:.2f} |"
        )
    loads = sorted({round(one["load_average"]) for one in kept.values() if "load_average" in one})
    beside = ""
    if loads:
        most = " to ".join(str(load) for load in {loads[0]: None, loads[-1]: None})
        beside = f" In brackets by the clock, where taken down: the machine's load was {most} when it began."
    return "\n".join([*rows, "", f"Processor time, random weights; {'; '.join(where)}.{beside}"])


def seconds(one: dict[str, Any], which: str, digits: int) -> str:
    """Seconds of the processor and, where known, by the clock."""
    wall = one.get(f"{which}_wall_s")
    return f"{one[f'{which}_s']:.{digits}f}" + ("" if wall is None else f" [{wall:.{digits}f}]")


def write_table(page: Path, table: str) -> None:
    """Replace what lies between the page's markers."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, found, after = rest.partition(STOP)
    if not found:
        raise SystemExit(f"error: {page} lacks the markers {START!r} and {STOP!r}; add them around the table.")
    page.write_text(f"{before}{START}\n{table}\n{STOP}{after}", encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
