"""Propagation on a labelled volume: 3D Dice from one and from three prompted slices, where it stops, how fast it is.

    python benchmarks/propagation.py [--image CT --labels LABELS] [--objects NAME=NUMBER …] [--prompted 1 3]
                                     [--model medt-click-tiny] [--weights FILE] [--axis 0]
    python benchmarks/propagation.py --table [--weights FILE]

`--table` prints the table of docs/benchmarks.md: objects of the samples that the package brings.

Every prompt is a rule, so that a run can be repeated: the object's own bounding box and its innermost pixel, on the
slice where it is largest; for three slices on those at a sixth, a half and five sixths of its extent. 'ends' are the
slices by which the first and the last slice of the result lie beyond (+) or short of (-) the object's; one at the
volume's end is marked |. 'CPU ms' is processor time per slice followed, 'slices/s' by the clock; both include
the prompted slices' own prediction; those are encoded already.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rules import bounding_box, dice, innermost

import napari_medtransformer as nmt
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.progress import Progress

# Numbers of the labels in sample_data/example_seg_fast_force_split.nii.gz.
ORGANS = {"liver": 5, "spleen": 1, "right kidney": 2, "left kidney": 3, "bladder": 21}
# Looked at only after the last rules for ends were chosen.
KEPT_APART = ("vertebrae_L1", "sacrum", "hip_left", "femur_left", "gluteus_maximus_left", "prostate", "pancreas")
SAMPLES = Path(__file__).parents[1] / "sample_data"
CT = ("CT", "example_ct.nii.gz", "example_seg_fast_force_split.nii.gz")
MR = ("MR", "example_mr_sm.nii.gz", "example_seg_mr.nii.gz")
# What is in the table of docs/benchmarks.md: (what, image, labels), and the objects by the names of labels.json.
TABLE = (
    (CT, "total", ("liver", "spleen", "kidney_right", "kidney_left", "urinary_bladder", "stomach", "autochthon_left",
                   "iliopsoas_right", "aorta", "inferior_vena_cava", "gallbladder", "vertebrae_L3")),
    (MR, "total_mr", ("liver", "spleen", "kidney_right", "kidney_left", "gallbladder", "stomach")),
    (("MR, hippocampus 003", "hippocampus_003.nii.gz", "hippocampus_003_labels.nii.gz"), "", ("anterior", "posterior")),
    (("MR, hippocampus 004", "hippocampus_004.nii.gz", "hippocampus_004_labels.nii.gz"), "", ("anterior", "posterior")),
    (CT, "total", KEPT_APART),
)  # fmt: skip


@dataclass(frozen=True)
class Figures:
    """How one propagation did. prompted: mean Dice of the prompted slices; dice: of the whole object.

    ends: as told above. followed: slices looked at. cpu_s, wall_s: for all of them.
    """

    prompted: float
    dice: float
    ends: tuple[str, str]
    followed: int
    cpu_s: float
    wall_s: float


def prompted_slices(mask: np.ndarray, count: int) -> list[int]:
    """The slices to prompt: where the object is largest, or evenly spread ones. mask: (z, y, x) bool."""
    areas = mask.sum(axis=(1, 2))
    there = np.flatnonzero(areas)
    if count == 1:
        return [int(np.argmax(areas))]
    shares = (np.arange(count) + 0.5) / count
    return sorted({int(there[int(share * len(there))]) for share in shares})


def prompt(session: nmt.PromptSession, mask: np.ndarray, index: int, axis: int) -> None:
    """Draw the object's box on a slice and click its innermost pixel. mask: (H, W) bool, of the slice."""
    y0, x0, y1, x1 = bounding_box(mask)
    place = [float(n) for n in innermost(mask)]
    start, stop = [float(y0), float(x0)], [float(y1), float(x1)]
    for corner in (place, start, stop):
        corner.insert(axis, float(index))
    session.add_box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]), axis=axis)
    session.add_point((place[0], place[1], place[2]), axis=axis)


def measure(session: nmt.PromptSession, truth: np.ndarray, count: int, axis: int) -> Figures:
    """Prompt, propagate and compare. truth: (z, y, x) bool."""
    along = np.moveaxis(truth, axis, 0)
    indices = prompted_slices(along, count)
    for index in indices:
        prompt(session, along[index], index, axis)
    before = np.moveaxis(session.labels == 1, axis, 0)
    prompted = float(np.mean([dice(before[index], along[index]) for index in indices]))
    steps = session.propagate(1, axis=axis)
    followed, wall, cpu = 0, time.perf_counter(), time.process_time()
    for step in steps:
        followed += isinstance(step, Progress) and "prompted" not in step.message
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = np.moveaxis(session.labels == 1, axis, 0)
    reached, there = (np.flatnonzero(one.any(axis=(1, 2))) for one in (after, along))
    last = len(along) - 1
    ends = (
        f"{there[0] - reached[0]:+d}{'|' if there[0] == 0 else ''}",
        f"{reached[-1] - there[-1]:+d}{'|' if there[-1] == last else ''}",
    )
    return Figures(prompted, dice(after, along), ends, followed, cpu, wall)


def report(
    model: PromptableModel,
    volume: nmt.Volume,
    labels: np.ndarray,
    axis: int,
    objects: dict[str, int],
    counts: list[int],
) -> None:
    """Print the table."""
    print("| object | prompted | Dice there | 3D Dice | ends | followed | CPU ms | slices/s |")
    print("|---|---|---|---|---|---|---|---|")
    for name, number in objects.items():
        for count in counts:
            f = measure(nmt.PromptSession(model, volume), labels == number, count, axis)
            times = f"{1000 * f.cpu_s / f.followed:.0f} | {f.followed / f.wall_s:.1f}"
            found = f"{f.prompted:.3f} | {f.dice:.3f} | {' '.join(f.ends)}"
            print(f"| {name} | {count} | {found} | {f.followed} | {times} |", flush=True)


def table(model: PromptableModel) -> None:
    """Print the table of docs/benchmarks.md."""
    print("| object | there, 1 slice | 3D | ends | there, 3 slices | 3D | ends |")
    print("|---|---|---|---|---|---|---|")
    numbers = json.loads((SAMPLES / "labels.json").read_text())
    for (what, image, labels), task, names in TABLE:
        volume, truth = nmt.read_volume(SAMPLES / image), np.asarray(nmt.read_volume(SAMPLES / labels).data)
        known = {name: int(n) for n, name in numbers[task].items()} if task else {"anterior": 1, "posterior": 2}
        for name in names:
            found = [measure(nmt.PromptSession(model, volume), truth == known[name], count, 0) for count in (1, 3)]
            ends = [" ".join(f.ends).replace("-", "−").replace("|", "\\|") for f in found]
            cells = " | ".join(f"{f.prompted:.3f} | {f.dice:.3f} | {e}" for f, e in zip(found, ends, strict=True))
            print(f"| {what}, {name.replace('_', ' ')} | {cells} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, default=SAMPLES / CT[1])
    parser.add_argument("--labels", type=Path, default=SAMPLES / CT[2])
    parser.add_argument("--objects", nargs="*", metavar="NAME=NUMBER", help="other objects than those of the sample CT")
    parser.add_argument("--prompted", nargs="*", type=int, default=[1, 3], help="from how many slices")
    parser.add_argument("--model", default="medt-click-tiny")
    parser.add_argument("--weights")
    parser.add_argument("--axis", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="the table of docs/benchmarks.md")
    arguments = parser.parse_args()
    if arguments.table:
        table(nmt.load_model(arguments.model, weights=arguments.weights))
        return
    volume = nmt.read_volume(arguments.image)
    truth = nmt.read_volume(arguments.labels)
    named = (one.partition("=") for one in arguments.objects or ())
    objects = {name: int(number) for name, _, number in named} or ORGANS
    model = nmt.load_model(arguments.model, weights=arguments.weights)
    report(model, volume, np.asarray(truth.data), arguments.axis, objects, arguments.prompted)


if __name__ == "__main__":
    main()
