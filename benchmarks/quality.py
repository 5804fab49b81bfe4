"""Dice of a promptable model on labelled slices: with a box, after one, three and five clicks, and beside baselines.

    python benchmarks/quality.py --data DATA [--model medt-click-tiny] [--weights FILE] [--every N] [--json FILE]

Every prompt is a rule, so that a run can be repeated: the box is the target's own bounding box; the first click is
its innermost pixel; each further click is the innermost pixel of the largest wrong region, inside or outside as that
region asks. Sets: CT (another patient's abdomen, never trained on), hippocampus (validation volumes), MR and brain
(held-out axial slices), and the sample CT itself (training anatomy: a smoke test).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

import napari_medtransformer as nmt
from napari_medtransformer.training.cases import SHARED_SOURCES, CaseSource, LabelledCase, read_case

SMALLEST_AREA = 30
CLICKS = (1, 3, 5)


@dataclass(frozen=True)
class Target:
    """One object on one slice. image (H, W) native units; mask (H, W) bool."""

    data: str
    name: str
    image: np.ndarray
    mask: np.ndarray
    window: tuple[float, float] | None


def targets(data: Path, every: int) -> Iterator[Target]:
    """The targets of every set, each `every`-th slice of what may be used."""
    ct = CaseSource("totalsegmentator/dicom", "totalsegmentator/example_seg_dicom.nii.gz", "CT", 1.0)
    yield from _slices("CT, unseen patient", data, ct, every, 0)
    for source in SHARED_SOURCES:
        if source.held_out_fraction:
            name = "MR abdomen" if "mr" in source.image else "MR brain"
            yield from _slices(f"{name}, held-out slices", data, source, 1, None)
    images = sorted((data / "msd_hippocampus" / "images").glob("*.nii.gz"))
    for path in images[4 :: 5 * every]:
        case = CaseSource(f"msd_hippocampus/images/{path.name}", f"msd_hippocampus/labels/{path.name}", "MR", 1.0)
        yield from _slices("hippocampus, unseen patients", data, case, 4, 0)
    yield from _slices("sample CT (trained on)", data, SHARED_SOURCES[0], 4 * every, 0)


def _slices(name: str, data: Path, source: CaseSource, every: int, first: int | None) -> Iterator[Target]:
    case: LabelledCase = read_case(data / source.image, data / source.labels, source)
    # What the volume as a whole is shown with, not what each slice alone would get.
    window = nmt.read_volume(data / source.image).window
    for z in range(case.held_out if first is None else first + every // 2, case.depth, every):
        for label in np.unique(case.labels[z][case.labels[z] > 0]):
            parts, count = ndimage.label(case.labels[z] == label)
            if count == 0:
                continue
            mask = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
            if mask.sum() >= SMALLEST_AREA:
                yield Target(name, f"{label} at {z}", case.image[z], mask, (window.low, window.high))


def innermost(mask: np.ndarray) -> tuple[int, int]:
    """The pixel farthest from the border of a mask (H, W)."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), mask.shape)
    return int(y), int(x)


def correction(mask: np.ndarray, predicted: np.ndarray) -> tuple[tuple[int, int], int] | None:
    """The next click and its sign, or None where nothing is wrong."""
    largest, sign = None, 1
    for value, wrong in ((1, mask & ~predicted), (0, predicted & ~mask)):
        parts, count = ndimage.label(wrong)
        if count:
            part = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
            if largest is None or part.sum() > largest.sum():
                largest, sign = part, value
    return None if largest is None else (innermost(largest), sign)


def dice(one: np.ndarray, two: np.ndarray) -> float:
    """Dice of two masks, 1 where both are empty."""
    total = one.sum() + two.sum()
    return float(2 * (one & two).sum() / total) if total else 1.0


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Half-open (y0, x0, y1, x1)."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def ellipse(box: tuple[int, int, int, int], shape: tuple[int, ...]) -> np.ndarray:
    """The ellipse that touches the four sides of a box."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    y0, x0, y1, x1 = box
    v = (y + 0.5 - (y0 + y1) / 2) / ((y1 - y0) / 2)
    u = (x + 0.5 - (x0 + x1) / 2) / ((x1 - x0) / 2)
    return np.asarray(u**2 + v**2 <= 1)


def measure(predictor: nmt.ImagePredictor, target: Target) -> dict[str, float]:
    """Dice of one target under every prompt; the predictor has its image already."""
    mask, box = target.mask, bounding_box(target.mask)
    boxed = predictor.predict(box=box)
    figures = {
        "ellipse": dice(ellipse(box, mask.shape), mask),
        "box": dice(boxed.mask, mask),
        "box+click": dice(predictor.predict(points=[innermost(mask)], labels=[1], box=box).mask, mask),
        "box iou": float((boxed.mask & mask).sum() / (boxed.mask | mask).sum()),
        "box score": boxed.score,
    }
    points, labels, logits, overlap = [innermost(mask)], [1], None, 0.0
    for click in range(1, max(CLICKS) + 1):
        result = predictor.predict(points=points, labels=labels, mask_logits=logits)
        overlap = dice(result.mask, mask)
        if click in CLICKS:
            figures[f"{click} click" + "s" * (click > 1)] = overlap
        following = correction(mask, result.mask)
        if following is None:
            figures |= {f"{n} clicks": overlap for n in CLICKS if n > click}
            break
        logits = result.logits
        points.append(following[0])
        labels.append(following[1])
    return figures


def main() -> None:
    """Measure and print one line per set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sets of training/cases.py")
    parser.add_argument("--model", default="medt-click-tiny")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--every", type=int, default=2, help="use each N-th slice")
    parser.add_argument("--json", type=Path, help="write every figure here")
    arguments = parser.parse_args()
    predictor = nmt.ImagePredictor(nmt.load_model(arguments.model, weights=arguments.weights))
    rows: list[dict[str, object]] = []
    encoded: np.ndarray | None = None
    for target in targets(arguments.data, arguments.every):
        if encoded is not target.image:
            predictor.set_image(target.image, window=target.window)
            encoded = target.image
        rows.append({"data": target.data, "name": target.name, **measure(predictor, target)})
    kinds = ["ellipse", "box", "box+click", "1 click", "3 clicks", "5 clicks"]
    print("| data | targets | " + " | ".join(kinds) + " | box failures | score rank |")
    print("|---|---|" + "---|" * (len(kinds) + 2))
    for data in dict.fromkeys(row["data"] for row in rows):
        chosen = [row for row in rows if row["data"] == data]
        means = [f"{np.mean([row[k] for row in chosen]):.3f}" for k in kinds]  # type: ignore[arg-type]
        failures = np.mean([row["box"] < 0.5 for row in chosen])  # type: ignore[operator]
        ranks = np.array([[row["box iou"], row["box score"]] for row in chosen]).argsort(axis=0).argsort(axis=0)
        rank = np.corrcoef(ranks.T)[0, 1] if len(chosen) > 2 else float("nan")
        print(f"| {data} | {len(chosen)} | {' | '.join(means)} | {failures:.1%} | {rank:.2f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
