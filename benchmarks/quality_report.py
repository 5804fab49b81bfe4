"""docs/quality.md and its pictures, made of the figures of quality.py."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from rules import Target, bounding_box, innermost
from scipy.stats import spearmanr

mpl.use("Agg")
import matplotlib.pyplot as plt

import napari_medtransformer as nmt
from napari_medtransformer.volumes.intensity import apply_window

Row = dict[str, Any]
KINDS = {
    "box": "box",
    "box+click": "box + click",
    "clicks 1": "1 click",
    "clicks 3": "3 clicks",
    "clicks 5": "5 clicks",
    "clicks 10": "10 clicks",
    "stroke": "stroke",
    "lasso": "lasso",
}
FAILED = 0.5
_TUMOURS = (
    " The tumours: two in brains and one in a breast (MR), two in lungs (CT), as they are labelled in the test cases "
    "of pyradiomics (Copyright 2017 Harvard Medical School, BSD-3-Clause). Neither they nor their scans were trained "
    "on; they were first scored when the weights were there."
)
_UNNAMED = (
    " The brain's labels have no names here: they are numbers of the GIF parcellation, which the pictures show and the "
    "table by structure leaves out."
)


def write_report(
    folder: Path,
    model: str,
    rows: list[Row],
    targets: list[Target],
    predictor: nmt.ImagePredictor,
    seconds: dict[str, float],
) -> None:
    """Write quality.md, quality.json and a sheet of pictures per data set."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    own = [row for row in rows if row["method"] == model]
    text = [
        "# Quality of click-to-segment",
        "",
        f"`{model}`, measured on {date.today():%Y-%m-%d} by `benchmarks/quality.py` ({platform.machine()}, CPU). Every "
        "prompt is a rule: the box is the target's own bounding box, the first click its innermost pixel, each further "
        "click the innermost pixel of the largest error, inside or outside as that asks; a stroke goes through the "
        "middle, a lasso around the target a twentieth of its extent away. A click refines the mask before it. Dice, "
        "mean ± standard deviation over the targets (an organ's largest part on a slice, at least 30 pixels).",
        "",
        "Never trained on: the CT of an unseen patient, the hippocampus validation split, and held-out axial slices "
        "of the two MRs (other slices of the same patients). The sample CT was trained on and is a smoke test. These "
        "were looked at between trainings; none is an untouched test set."
        + (_UNNAMED if any(row["structure"].startswith("label ") for row in own) else "")
        + (_TUMOURS if any("tumours" in row["data"] for row in own) else ""),
        "",
        *score_table(own),
        "",
        *rank_paragraph([row for row in own if "trained on" not in row["data"]]),
        "",
        f"Median time on that machine, which had other work: set_image {seconds['set_image'] * 1e3:.0f} ms, predict "
        f"{seconds['predict'] * 1e3:.0f} ms.",
        "",
        "## Beside methods that learn nothing",
        "",
        "The same prompts, on a part of the targets: the ellipse that fills the box, region growing from the click, "
        "the random walker (Grady 2006), and GrabCut (Rother et al. 2004) by OpenCV, each with one fixed setting."
        + ("" if any(row["method"] == "GrabCut" for row in rows) else " GrabCut is missing: OpenCV was not installed."),
        "",
        *comparison([row for row in rows if row["compared"]]),
        "",
        "## By structure",
        "",
        *structure_table(own),
        "",
        "## Best, median and worst",
        "",
        "With a box, by Dice. Green: the labels; orange: the model; yellow: the prompt.",
        "",
    ]
    for data in dict.fromkeys(row["data"] for row in own):
        plain = re.sub(r"[^a-z0-9]+", "-", re.split(r"[,(]", data)[0].strip().lower())
        name = f"quality-{plain}.png"
        picture_sheet(images / name, [row for row in own if row["data"] == data], targets, predictor)
        text += [f"![{data}: best, median and worst](images/{name})", ""]
    (folder / "quality.md").write_text("\n".join(text), encoding="utf-8")
    (folder / "quality.json").write_text(json.dumps(own, indent=0), encoding="utf-8")


def score_table(rows: list[Row]) -> list[str]:
    """One line per data set, all prompts."""
    head = [*KINDS.values(), "clicks to 0.85", "Dice < 0.5 with a box", "rank of score, box", "rank of score, click"]
    lines = ["| data | targets | " + " | ".join(head) + " |", "|---" * (len(head) + 2) + "|"]
    for data in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == data]
        cells = [f"{mean(own, kind):.3f} ± {np.std([row[kind] for row in own]):.2f}" for kind in KINDS]
        needed = [row["clicks to good"] for row in own]
        never = np.mean([n > 10 for n in needed])
        cells += [f"median {np.median(needed):.0f}, never in ten {never:.0%}"]
        cells += [f"{np.mean([row['box'] < FAILED for row in own]):.1%}"]
        cells += [f"{rank(own, prompt):.2f}" for prompt in ("box", "click")]
        lines.append(f"| {data} | {len(own)} | {' | '.join(cells)} |")
    return lines


def rank_paragraph(rows: list[Row]) -> list[str]:
    """What the ranks within sets can and cannot tell, of the targets never trained on."""
    told = []
    for prompt, words in (("box", "with a box"), ("click", "after one click")):
        low, high = rank_interval(rows, prompt)
        told.append(f"{rank(rows, prompt):.2f} [{low:.2f}, {high:.2f}] {words}")
    sets = {data: [row for row in rows if row["data"] == data] for data in dict.fromkeys(row["data"] for row in rows)}
    within = "; ".join(
        f"{data}: " + ", ".join("{:.2f} to {:.2f}".format(*rank_interval(own, prompt)) for prompt in ("box", "click"))
        for data, own in sets.items()
    )
    return [
        f"Rank is Spearman's correlation of the expected with the true overlap. Over all {len(rows)} targets never "
        f"trained on it is {' and '.join(told)} (95% bootstrap interval). Part of that is telling a hard set from an "
        f"easy one. Within one set overlaps lie close together and targets are few, so its rank is uncertain (box, "
        f"click): {within}."
    ]


def comparison(rows: list[Row]) -> list[str]:
    """One line per data set and method."""
    kinds = ["box", "clicks 1", "clicks 3", "clicks 5"]
    lines = ["| data | method | targets | " + " | ".join(KINDS[k] for k in kinds) + " |", "|---" * 7 + "|"]
    for data, method in dict.fromkeys((row["data"], row["method"]) for row in rows):
        own = [row for row in rows if (row["data"], row["method"]) == (data, method)]
        boxless = method == "ellipse"
        cells = ["–" if boxless and kind != "box" else f"{mean(own, kind):.3f}" for kind in kinds]
        lines.append(f"| {data} | {method} | {len(own)} | {' | '.join(cells)} |")
    return lines


def structure_table(rows: list[Row]) -> list[str]:
    """Named structures with at least three targets, worst with a box first."""
    lines = ["| data | structure | targets | box | 1 click | 5 clicks |", "|---|---|---|---|---|---|"]
    groups = dict.fromkeys((row["data"], row["structure"]) for row in rows if not row["structure"].startswith("label "))
    found = []
    for data, structure in groups:
        own = [row for row in rows if (row["data"], row["structure"]) == (data, structure)]
        if len(own) >= 3:
            found.append((mean(own, "box"), data, structure, own))
    for _, data, structure, own in sorted(found, key=lambda item: (item[1], item[0])):
        cells = " | ".join(f"{mean(own, kind):.3f}" for kind in ("box", "clicks 1", "clicks 5"))
        lines.append(f"| {data} | {structure.replace('_', ' ')} | {len(own)} | {cells} |")
    return lines


def picture_sheet(path: Path, rows: list[Row], targets: list[Target], predictor: nmt.ImagePredictor) -> None:
    """Two rows, box and one click, of best, median and worst by Dice with that prompt."""
    figure, axes = plt.subplots(2, 3, figsize=(9, 6.2), layout="constrained")
    for kind, line in zip(("box", "clicks 1"), axes, strict=True):
        ordered = sorted(rows, key=lambda row: -row[kind])
        for what, row, axis in zip(
            ("best", "median", "worst"), (ordered[0], ordered[len(ordered) // 2], ordered[-1]), line, strict=True
        ):
            show(axis, targets[row["target"]], kind, predictor)
            title = f"{what}, {KINDS[kind]}: {row['structure'].replace('_', ' ')} {row[kind]:.2f}"
            axis.set_title(title, fontsize=8)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def show(axis: Any, target: Target, kind: str, predictor: nmt.ImagePredictor) -> None:
    """One target with truth, answer and prompt, cut to its surroundings."""
    predictor.set_image(target.image, window=target.window)
    y0, x0, y1, x1 = bounding_box(target.mask)
    click = innermost(target.mask)
    if kind == "box":
        mask = predictor.predict(box=(y0, x0, y1, x1)).mask
        axis.add_patch(plt.Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, color="yellow", lw=1))
    else:
        mask = predictor.predict(points=[click]).mask
        axis.plot(click[1], click[0], "+", color="yellow", ms=10)
    low, high = target.window or (float(target.image.min()), float(target.image.max()))
    axis.imshow(apply_window(target.image, (low, high)), cmap="gray", vmin=0, vmax=1)
    for shown, colour in ((target.mask, "lime"), (mask, "orange")):
        if shown.any():
            axis.contour(shown, levels=[0.5], colors=[colour], linewidths=1.2)
    reach = 0.7 * max(y1 - y0, x1 - x0) + 8
    middle_y, middle_x = (y0 + y1) / 2, (x0 + x1) / 2
    axis.set_xlim(middle_x - reach, middle_x + reach)
    axis.set_ylim(middle_y + reach, middle_y - reach)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_facecolor("black")


def mean(rows: Iterable[Row], kind: str) -> float:
    """The mean of one figure over rows."""
    return float(np.mean([float(row[kind]) for row in rows]))


def rank(rows: list[Row], prompt: str) -> float:
    """Spearman's correlation of the expected with the true overlap; nan where it cannot be told."""
    pairs = np.array([[float(row[f"{prompt} iou"]), float(row[f"{prompt} score"])] for row in rows])
    if len(pairs) < 3 or np.ptp(pairs[:, 1]) == 0:
        return float("nan")
    return float(spearmanr(*pairs.T).statistic)


def rank_interval(rows: list[Row], prompt: str, draws: int = 1000) -> tuple[float, float]:
    """The 95% bootstrap interval of `rank` (Efron 1979), of a fixed seed."""
    rng = np.random.default_rng(0)
    ranks = [rank([rows[i] for i in rng.integers(len(rows), size=len(rows))], prompt) for _ in range(draws)]
    low, high = np.nanpercentile(ranks, [2.5, 97.5])
    return float(low), float(high)
