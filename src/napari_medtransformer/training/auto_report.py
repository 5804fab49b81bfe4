"""The model card for people: what was trained on what, how, and how good it is, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.compact import CompactConfig, compact_network
from napari_medtransformer.training.auto import AutoRecipe, Validation
from napari_medtransformer.training.auto_plan import AutoPlan


@dataclass(frozen=True)
class CaseScore:
    """One class in one validation case: Dice, HD95 in mm (inf where it was not found), seconds for the whole case."""

    case: str
    label: str
    dice: float
    hd95_mm: float
    seconds: float


def score_rows(scores: Sequence[CaseScore], labels: Sequence[str]) -> list[str]:
    """Table rows: per label mean Dice, its deviation and range over the cases, median and 95th percentile of HD95."""
    rows = []
    for name in labels:
        own = [score for score in scores if score.label == name]
        if not own:
            rows.append(f"| {name} | in no validation case | | | | | | | |")
            continue
        dice = np.array([score.dice for score in own])
        distance = np.array([score.hd95_mm for score in own])
        missed = int(np.count_nonzero(~np.isfinite(distance)))
        near = distance[np.isfinite(distance)]
        far = "–" if not near.size else f"{near.mean():.2f} | {np.median(near):.2f} | {near.max():.2f}"
        rows.append(
            f"| {name} | {dice.mean():.3f} | {dice.std():.3f} | {np.median(dice):.3f} | {dice.min():.3f} | {far} | "
            f"{missed} |"
        )
    return rows


def worst_cases(scores: Sequence[CaseScore], n: int = 5) -> list[tuple[str, float]]:
    """The cases with the lowest Dice, meaned over the labels, worst first."""
    names = sorted({score.case for score in scores})
    means = [(name, float(np.mean([s.dice for s in scores if s.case == name]))) for name in names]
    return sorted(means, key=lambda pair: pair[1])[:n]


def card_text(
    card: ModelCard,
    plan: AutoPlan,
    recipe: AutoRecipe,
    config: CompactConfig,
    scores: Sequence[CaseScore],
    best: Validation,
    data: str,
    training_cases: int,
) -> str:
    """The card as Markdown."""
    parameters = sum(p.numel() for p in compact_network(config, recipe.seed).parameters())
    names = [label.name for label in card.labels]
    cases = {score.case: score.seconds for score in scores}
    if scores:
        mean = float(np.mean([score.dice for score in scores]))
        seconds = float(np.median(list(cases.values())))
        worst = ", ".join(f"{name} {dice:.3f}" for name, dice in worst_cases(scores))
        summary = [
            f"Mean over labels and cases: {mean:.3f}. Median time per case here: {seconds:.2f} s.",
            "",
            f"Worst cases: {worst}.",
        ]
    else:
        summary = ["No structure is in any validation case: how good the model is was not measured."]
    clip = (
        "the volume's own mean and deviation"
        if plan.clip is None
        else f"{plan.clip[0]:g} to {plan.clip[1]:g} as 0 to 1"
    )
    window = " × ".join(map(str, plan.window))
    spacing = " × ".join(f"{s:g}" for s in plan.spacing_mm)
    lines = [
        f"# {card.name}",
        "",
        f"An automatic segmentation network for {', '.join(names)}: a compact {config.kind} "
        f"({parameters / 1e6:.1f} million parameters, stored as float16). Windows of {window} voxels (z, y, x) at "
        f"{spacing} mm; intensities: {clip}.",
        "",
        "**Research use only.** Look at every result.",
        "",
        "## Data",
        "",
        f"{training_cases} labelled volumes to train on, {len(cases)} to validate (every fifth by name); modality: "
        f"{plan.modality}. Fingerprint of the files: {data}.",
        "",
        "## Scores",
        "",
        f"On the {len(cases)} validation cases at the training's voxel size, windows overlapping by half, not "
        f"mirrored. The weights kept have the best validation Dice (after step {best.step} of {recipe.steps}), so "
        "these figures are slightly too good for other data of the same kind.",
        "",
        "| label | mean Dice | deviation | median | worst | mean HD95 (mm) | median | worst | not found |",
        "|---|---|---|---|---|---|---|---|---|",
        *score_rows(scores, names),
        "",
        *summary,
        "",
        "## Recipe",
        "",
        "Cross-entropy plus Dice, AdamW with warm-up and cosine, averaged weights, bf16 autocast; windows turned, "
        "scaled, bent, with changed contrast, noise, blur, resolution and shading. "
        + ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in asdict(recipe).items())
        + ".",
        "",
    ]
    return "\n".join(lines)


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join("zyx"[axis] for axis in value) or "none"
    return f"{value:g}"
