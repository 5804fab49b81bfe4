"""Dice of a promptable model on labelled slices: with a box, after each click, and beside methods without learning.

    python benchmarks/quality.py --data DATA [--model medt-click-tiny] [--weights FILE] [--every N] [--report FOLDER]

--report writes quality.md, its pictures and quality.json into FOLDER (docs for this project's own).

Every prompt is a rule, so that a run can be repeated: the box is the target's own bounding box; the first click is
its innermost pixel; each further click is the innermost pixel of the largest wrong region, inside or outside as that
region asks; a stroke goes through the middle, a lasso around the target a twentieth of its extent away. A model that
refines is given the points in order and no more; any other its own logits of the points before, too.
Sets: CT (another patient's abdomen, never trained on), hippocampus (validation volumes), MR and brain (held-out axial
slices), tumours of other patients and scanners (where DATA has them: the folder data of pyradiomics 3.0.1's source
distribution, as pyradiomics/), and the sample CT itself (training anatomy: a smoke test).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from classical import Box, Clicks, methods
from quality_report import FAILED, rank, write_report
from rules import Target, bounding_box, dice, innermost, loose_lasso, middle_stroke
from scipy import ndimage

import napari_medtransformer as nmt
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.prompting.masks import PackedMask
from napari_medtransformer.prompting.prompts import LassoPrompt, Prompt, ScribblePrompt
from napari_medtransformer.prompting.slice_model import Request, SliceModel
from napari_medtransformer.training.cases import SHARED_SOURCES, CaseSource, LabelledCase, read_case
from napari_medtransformer.volumes.intensity import apply_window

SMALLEST_AREA = 30
TUMOURS = {"brain1": "brain", "brain2": "brain", "breast1": "breast", "lung1": "lung", "lung2": "lung"}
MOST_CLICKS = 10
GOOD = 0.85


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
    for name in TUMOURS if (data / "pyradiomics").is_dir() else ():
        scan = CaseSource(f"pyradiomics/{name}_image.nrrd", f"pyradiomics/{name}_label.nrrd", "", 1.0)
        yield from _slices("tumours, other scanners", data, scan, 1, 0)
    yield from _slices("sample CT (trained on)", data, SHARED_SOURCES[0], 4 * every, 0)


def _slices(name: str, data: Path, source: CaseSource, every: int, first: int | None) -> Iterator[Target]:
    case: LabelledCase = read_case(data / source.image, data / source.labels, source)
    names = structure_names(data, source)
    # What the volume as a whole is shown with, not what each slice alone would get.
    window = nmt.read_volume(data / source.image).window
    for z in range(case.held_out if first is None else first + every // 2, case.depth, every):
        for label in np.unique(case.labels[z][case.labels[z] > 0]):
            parts, count = ndimage.label(case.labels[z] == label)
            if count == 0:
                continue
            mask = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
            if mask.sum() >= SMALLEST_AREA:
                what = names.get(int(label), f"label {label}")
                yield Target(name, what, f"slice {z}", case.image[z], mask, (window.low, window.high))


def structure_names(data: Path, source: CaseSource) -> dict[int, str]:
    """What the values of a label file mean, where the data says so."""
    if "hippocampus" in source.labels:
        return {1: "anterior hippocampus", 2: "posterior hippocampus"}
    for name, organ in TUMOURS.items():
        if source.labels.endswith(f"{name}_label.nrrd"):
            return {1: f"{organ} tumour"}
    known = data / "totalsegmentator" / "labels.json"
    if "totalsegmentator" not in source.labels or not known.is_file():
        return {}
    listed = json.loads(known.read_text())
    return {int(value): name for value, name in listed["total_mr" if "_mr" in source.labels else "total"].items()}


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


@dataclass(frozen=True)
class Answer:
    """A mask (H, W), what its method expects of it, and logits for the next prompt to refine where it has any."""

    mask: np.ndarray
    score: float
    logits: np.ndarray | None


Ask = Callable[[Clicks, Box | None, np.ndarray | None], Answer]


def measure(ask: Ask, target: Target) -> dict[str, float]:
    """Dice of one target with a box, with box and click, and after each of ten clicks, corrected where it is wrong."""
    mask, box, first = target.mask, bounding_box(target.mask), innermost(target.mask)
    boxed = ask([], box, None)
    figures = {
        "box": dice(boxed.mask, mask),
        "box iou": overlap(boxed.mask, mask),
        "box score": boxed.score,
        # a click that the box's answer agrees with joins the box instead of refining that
        "box+click": dice(ask([(first, 1)], box, None if boxed.mask[first] else boxed.logits).mask, mask),
    }
    clicks: Clicks = [(first, 1)]
    logits, good = None, MOST_CLICKS + 1
    for click in range(1, MOST_CLICKS + 1):
        answer = ask(clicks, None, logits)
        reached = dice(answer.mask, mask)
        figures |= {f"clicks {n}": reached for n in range(click, MOST_CLICKS + 1)}
        if click == 1:
            figures |= {"click iou": overlap(answer.mask, mask), "click score": answer.score}
        if reached >= GOOD:
            good = min(good, click)
        following = correction(mask, answer.mask)
        if following is None:
            break
        logits, clicks = answer.logits, [*clicks, following]
    figures["clicks to good"] = good
    return figures


def overlap(one: np.ndarray, two: np.ndarray) -> float:
    """IoU of two masks."""
    return float((one & two).sum() / max(1, (one | two).sum()))


def model_asker(predictor: nmt.ImagePredictor) -> Ask:
    """How the model is asked."""

    def ask(clicks: Clicks, box: Box | None, logits: np.ndarray | None) -> Answer:
        points, labels = [at for at, _ in clicks], [sign for _, sign in clicks]
        given = None if predictor.model.refines else logits
        result = predictor.predict(points=points, labels=labels, box=box, mask_logits=given)
        return Answer(result.mask, result.score, result.logits)

    return ask


def drawn_prompts(model: PromptableModel, target: Target) -> dict[str, float]:
    """Dice of one target after a stroke and after a lasso, which are a session's prompts."""
    slices = SliceModel(model, nmt.Volume.from_array(target.image[None]), target.window, 10**9)
    given: dict[str, Prompt] = {
        "stroke": ScribblePrompt(PackedMask.pack(middle_stroke(target.mask)), 0),
        "lasso": LassoPrompt([(0, y, x) for y, x in loose_lasso(target.mask)]),
    }
    answers = {name: slices.predict(Request(prompt.key, (prompt,))).prediction for name, prompt in given.items()}
    return {name: dice(answer.mask, target.mask) for name, answer in answers.items()}


def method_asker(method: Callable[[np.ndarray, Clicks, Box | None], np.ndarray], image: np.ndarray) -> Ask:
    """How a method without learning is asked, on one windowed image."""
    return lambda clicks, box, _: Answer(method(image, clicks, box), 0.0, None)


def main() -> None:
    """Measure, print one line per set and method, and write the report if one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sets of training/cases.py")
    parser.add_argument("--model", default="medt-click-tiny")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--every", type=int, default=2, help="use each N-th slice")
    parser.add_argument(
        "--baselines", type=int, default=3, help="each N-th target also goes to the other methods; 0: none"
    )
    parser.add_argument("--report", type=Path, help="write quality.md, pictures and quality.json into this folder")
    arguments = parser.parse_args()
    predictor = nmt.ImagePredictor(nmt.load_model(arguments.model, weights=arguments.weights))
    rows: list[dict[str, object]] = []
    seconds: dict[str, list[float]] = {"set_image": [], "predict": []}
    chosen = list(targets(arguments.data, arguments.every))
    encoded: np.ndarray | None = None
    for number, target in enumerate(chosen):
        if encoded is not target.image:
            started = time.perf_counter()
            predictor.set_image(target.image, window=target.window)
            seconds["set_image"].append(time.perf_counter() - started)
            encoded = target.image
        started = time.perf_counter()
        predictor.predict(box=bounding_box(target.mask))
        seconds["predict"].append(time.perf_counter() - started)
        compared = bool(arguments.baselines) and number % arguments.baselines == 0
        facts = {
            "data": target.data,
            "structure": target.structure,
            "place": target.place,
            "target": number,
            "compared": compared,
        }
        figures = {**measure(model_asker(predictor), target), **drawn_prompts(predictor.model, target)}
        rows.append({**facts, "method": arguments.model, **figures})
        if compared:
            image = apply_window(target.image, target.window)
            for name, method in methods().items():
                rows.append({**facts, "method": name, **measure(method_asker(method, image), target)})
        print(f"{number + 1} of {len(chosen)}", end="\r", flush=True)
    print_table(rows)
    for what, times in seconds.items():
        print(f"{what}: median {np.median(times) * 1e3:.0f} ms")
    if arguments.report:
        times = {what: float(np.median(values)) for what, values in seconds.items()}
        write_report(arguments.report, arguments.model, rows, chosen, predictor, times)


def print_table(rows: list[dict[str, object]]) -> None:
    """One line per set and method: means over the targets."""
    kinds = ["box", "box+click", "clicks 1", "clicks 3", "clicks 5", "clicks to good", "stroke", "lasso"]
    print("| data | method | targets | " + " | ".join(kinds) + " | box failures | score rank |")
    for data, method in dict.fromkeys((row["data"], row["method"]) for row in rows):
        own = [row for row in rows if row["data"] == data and row["method"] == method]
        means = [f"{np.mean([float(row.get(kind, np.nan)) for row in own]):.3f}" for kind in kinds]  # type: ignore[arg-type]
        failures = np.mean([float(row["box"]) < FAILED for row in own])  # type: ignore[arg-type]
        print(f"| {data} | {method} | {len(own)} | {' | '.join(means)} | {failures:.1%} | {rank(own, 'box'):.2f} |")


if __name__ == "__main__":
    main()
