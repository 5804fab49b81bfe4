"""Propagation on a labelled CT: 3D Dice from one and from three prompted slices, where it stops, and how fast it is.

    python benchmarks/propagation.py --image CT --labels LABELS [--model medt-click-tiny] [--weights FILE] [--axis 0]

Every prompt is a rule, so that a run can be repeated: the object's own bounding box and its innermost pixel, on the
slice where it is largest; for three slices also on those at a sixth and five sixths of its extent. 'ends' counts the
slices by which the first and the last slice of the result lie beyond (+) or short of (-) the object's. Slices are
encoded beforehand for 'slices/s (encoded)', and not for the other.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

import napari_medtransformer as nmt
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.progress import run_to_end
from napari_medtransformer.prompting.embedding_store import EmbeddingStore

# Numbers of the labels in sample_data/example_seg_fast_force_split.nii.gz.
ORGANS = {"liver": 5, "spleen": 1, "right kidney": 2, "left kidney": 3, "bladder": 21}


@dataclass(frozen=True)
class Figures:
    """How one propagation did. prompted: mean Dice of the prompted slices; dice: of the whole object."""

    prompted: float
    dice: float
    ends: tuple[int, int]
    slices: int
    seconds: float


def dice(one: np.ndarray, two: np.ndarray) -> float:
    """Dice of two masks, 1 where both are empty."""
    total = int(one.sum()) + int(two.sum())
    return float(2 * (one & two).sum() / total) if total else 1.0


def prompted_slices(mask: np.ndarray, count: int) -> list[int]:
    """The slices to prompt: where the object is largest, and evenly spread ones. mask: (z, y, x) bool."""
    areas = mask.sum(axis=(1, 2))
    there = np.flatnonzero(areas)
    if count == 1:
        return [int(np.argmax(areas))]
    shares = (np.arange(count) + 0.5) / count
    return sorted({int(there[int(share * len(there))]) for share in shares})


def measure(session: nmt.PromptSession, truth: np.ndarray, count: int, axis: int) -> Figures:
    """Prompt, propagate and compare. truth: (z, y, x) bool."""
    along = np.moveaxis(truth, axis, 0)
    indices = prompted_slices(along, count)
    for index in indices:
        mask = along[index]
        rows, columns = (np.flatnonzero(mask.any(axis=a)) for a in (1, 0))
        depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), mask.shape)
        place = [float(y), float(x)]
        start, stop = [float(rows[0]), float(columns[0])], [float(rows[-1] + 1), float(columns[-1] + 1)]
        for corner in (place, start, stop):
            corner.insert(axis, float(index))
        session.add_box(tuple(start), tuple(stop), axis=axis)
        session.add_point(tuple(place), axis=axis)
    before = np.moveaxis(session.labels == 1, axis, 0)
    prompted = float(np.mean([dice(before[index], along[index]) for index in indices]))
    begun = time.perf_counter()
    found = run_to_end(session.propagate(1, axis=axis))
    seconds = time.perf_counter() - begun
    after = np.moveaxis(session.labels == 1, axis, 0)
    reached, there = (np.flatnonzero(one.any(axis=(1, 2))) for one in (after, along))
    ends = (int(there[0] - reached[0]), int(reached[-1] - there[-1]))
    return Figures(prompted, dice(after, along), ends, len(found.masks), seconds)


def report(
    model: PromptableModel,
    volume: nmt.Volume,
    labels: np.ndarray,
    axis: int,
    organs: dict[str, int],
    store: Path | None,
) -> None:
    """Print the table."""
    kept = None if store is None else EmbeddingStore(store)
    print(f"{'organ':<14}{'prompted':>9}{'slice Dice':>12}{'3D Dice':>9}{'ends':>10}{'slices':>8}{'slices/s':>10}")
    for name, number in organs.items():
        for count in (1, 3):
            session = nmt.PromptSession(model, volume, store=kept)
            f = measure(session, labels == number, count, axis)
            ends = f"{f.ends[0]:+d} {f.ends[1]:+d}"
            rate = f.slices / f.seconds
            print(
                f"{name:<14}{count:>9}{f.prompted:>12.3f}{f.dice:>9.3f}{ends:>10}{f.slices:>8}{rate:>10.1f}", flush=True
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    samples = Path(__file__).parents[1] / "sample_data"
    parser.add_argument("--image", type=Path, default=samples / "example_ct.nii.gz")
    parser.add_argument("--labels", type=Path, default=samples / "example_seg_fast_force_split.nii.gz")
    parser.add_argument("--numbers", nargs="*", metavar="NAME=NUMBER", help="other objects than those of the sample CT")
    parser.add_argument("--model", default="medt-click-tiny")
    parser.add_argument("--weights")
    parser.add_argument("--axis", type=int, default=0)
    parser.add_argument("--store", type=Path, help="keep encoded slices in this folder: rates are then of decoding")
    arguments = parser.parse_args()
    volume = nmt.read_volume(arguments.image)
    truth = nmt.read_volume(arguments.labels)
    named = (one.partition("=") for one in arguments.numbers or ())
    organs = {name: int(number) for name, _, number in named} or ORGANS
    model = nmt.load_model(arguments.model, weights=arguments.weights)
    report(model, volume, np.asarray(truth.data), arguments.axis, organs, arguments.store)


if __name__ == "__main__":
    main()
