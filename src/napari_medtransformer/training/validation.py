"""A look at a training while it runs: fixed targets with a box and with a click, their Dice, and their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from napari_medtransformer.models.base import Prompts
from napari_medtransformer.models.click import ClickModel
from napari_medtransformer.models.click_network import ClickNetwork
from napari_medtransformer.models.registry import find_card
from napari_medtransformer.training.cases import LabelledCase

_COLUMNS = 4
_SMALLEST = 30
_CT_WINDOW = (-160.0, 240.0)


@dataclass(frozen=True, eq=False)
class FixedTarget:
    """image: (H, W) float32 in [0, 1]. mask: (H, W) bool."""

    name: str
    image: np.ndarray
    mask: np.ndarray


def fixed_targets(cases: Sequence[LabelledCase], seed: int, count: int) -> list[FixedTarget]:
    """Targets on axial slices that are held out of training; where nothing is, on those trained on."""
    rng = np.random.default_rng((seed, 7))
    held_out = [case for case in cases if case.held_out < case.depth]
    found: list[FixedTarget] = []
    for _ in range(20 * count):
        if len(found) == count:
            break
        pool = held_out or cases
        case = pool[int(rng.integers(len(pool)))]
        z = int(rng.integers(case.held_out if held_out else 0, case.depth))
        values = np.unique(case.labels[z][case.labels[z] > 0])
        if not len(values):
            continue
        value = int(rng.choice(values))
        parts, _ = ndimage.label(case.labels[z] == value)
        mask = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
        if mask.sum() < _SMALLEST:
            continue
        low, high = _CT_WINDOW if case.modality == "CT" else np.percentile(case.image, [0.5, 99.5])
        image = np.clip((case.image[z] - low) / max(high - low, 1e-3), 0, 1).astype(np.float32)
        found.append(FixedTarget(f"{case.name}, {value} at {z}", image, mask))
    return found


def validate(
    network: ClickNetwork, targets: Sequence[FixedTarget], picture: Path, device: str, *, first_look: bool = False
) -> dict[str, float]:
    """Mean Dice with each target's own box and with a click in its middle; the masks are drawn into `picture`.

    first_look: of its answers alone, while the second look has learned nothing yet.
    """
    if not targets:
        return {}
    was_training = network.training
    model = ClickModel(find_card("medt-click-tiny"), network, torch.device(device), torch.float32)
    shown: list[tuple[FixedTarget, list[np.ndarray], list[float]]] = []
    for target in targets:
        embedding = model.encode(target.image)
        rows, columns = (np.flatnonzero(target.mask.any(axis=axis)) for axis in (1, 0))
        depth = ndimage.distance_transform_edt(np.pad(target.mask, 1))[1:-1, 1:-1]
        middle = np.array(np.unravel_index(int(depth.argmax()), depth.shape), np.float32)[None]
        box = (float(rows[0]), float(columns[0]), float(rows[-1] + 1), float(columns[-1] + 1))
        prompts = (
            Prompts(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), box=box),
            Prompts(middle, np.ones(1, np.int64)),
        )
        masks = []
        for one in prompts:
            answer = (model.first_look if first_look else model.decode)(embedding, one)
            masks.append(answer.logits[int(answer.scores.argmax())] > 0)
        shown.append((target, masks, [_dice(mask, target.mask) for mask in masks]))
    network.train(was_training)
    _draw(shown, picture)
    box_dice, click_dice = np.mean([dice for *_, dice in shown], axis=0)
    return {"validation_box": float(box_dice), "validation_click": float(click_dice)}


def _dice(one: np.ndarray, two: np.ndarray) -> float:
    return float(2 * (one & two).sum() / max(1, one.sum() + two.sum()))


def _draw(shown: Sequence[tuple[FixedTarget, list[np.ndarray], list[float]]], picture: Path) -> None:
    """Truth green, answer to the box orange, to the click blue."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(shown) // _COLUMNS)
    figure = Figure(figsize=(2.6 * _COLUMNS, 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for i, (target, masks, dice) in enumerate(shown):
        axes = figure.add_subplot(rows, _COLUMNS, i + 1)
        axes.imshow(target.image, cmap="gray", vmin=0, vmax=1)
        for mask, colour in zip((target.mask, *masks), ("lime", "orange", "deepskyblue"), strict=True):
            if mask.any():
                axes.contour(mask, levels=[0.5], colors=[colour], linewidths=1)
        axes.set_title(f"{target.name}\nbox {dice[0]:.2f}, click {dice[1]:.2f}", fontsize=7)
        axes.set_axis_off()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=80)
