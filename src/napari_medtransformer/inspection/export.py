"""What is taken away from an answer: a figure with its caption, maps on the volume's voxels, a table of shares."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_medtransformer.errors import CannotWrite, InvalidOption, in_words
from napari_medtransformer.files import file_to_write, replacing
from napari_medtransformer.given import flag, one_of
from napari_medtransformer.given import path as path_of
from napari_medtransformer.inspection.figure import draw_heads
from napari_medtransformer.inspection.queries import (
    MAXIMUM,
    MEAN,
    ROLLOUT,
    Answer,
    Inspection,
    check_answer,
    check_inspection,
    one_map,
)
from napari_medtransformer.inspection.shares import shares_by_label, shares_table
from napari_medtransformer.volumes.numbers import numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLANES = ("axial", "coronal", "sagittal")


def answer_figure(
    inspection: Inspection, answer: Answer, names: Sequence[str] | None = None, *, smooth: bool = False
) -> Figure:
    """Maps of an answer on the anatomy with colour bar, scale bar, query mark and a caption that says what it is.

    names: of the maps, None for all heads. smooth: interpolated between tokens, else every token as its tile.
    """
    check_inspection(inspection)
    shown = _shown(check_answer(answer), names)
    smooth = flag(smooth, "whether maps are smooth")
    maps = np.stack([answer.on_pixels(name, smooth=smooth) for name in shown])
    plane, volume = inspection.plane, inspection.volume
    rows, columns = plane.axes
    return draw_heads(
        inspection.image,
        maps,
        spacing_mm=inspection.spacing_mm,
        query=answer.mark_yx,
        titles=[map_title(answer, name) for name in shown],
        caption=caption(inspection, answer, shown),
        letters=(volume.direction_letters[rows], volume.direction_letters[columns]),
        upside_down=plane.upside_down,
    )


def _shown(answer: Answer, names: Sequence[str] | None) -> list[str]:
    """The names of the maps that are wanted, all heads for None. Raises InvalidOption."""
    if names is None:
        return list(answer.heads)
    known = (*answer.heads, MEAN, MAXIMUM)
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidOption(f"names of maps are a list of {', '.join(known)}, not {in_words(names)}.")
    chosen = [one_of(name, known, "a map") for name in names]
    return chosen or list(answer.heads)


def map_title(answer: Answer, name: str) -> str:
    """A map in one line: which head, and its numbers where there are any."""
    if not name.isdigit():
        return name
    told = [f"head {name}" if answer.site != ROLLOUT else "rollout"]
    if np.isfinite(answer.entropy_nats[int(name)]):
        told.append(f"{answer.entropy_nats[int(name)]:.1f} nats")
    if np.isfinite(answer.distance_mm[int(name)]):
        told.append(f"{answer.distance_mm[int(name)]:.0f} mm")
    return ", ".join(told)


def caption(inspection: Inspection, answer: Answer, names: Sequence[str]) -> str:
    """What a figure of an answer's maps shows: model, site, what asked, slice, tokens, window, how it is coloured, and
    which numbers the maps' titles tell, if any.
    """
    volume, plane = inspection.volume, inspection.plane
    size = " × ".join(f"{s * mm:.1f}" for s, mm in zip(answer.heatmap.scale, inspection.spacing_mm, strict=True))
    where = f"the {PLANES[plane.axis]} slice {plane.index} of {volume.name}"
    low, high = inspection.window
    what = {
        ROLLOUT: f"attention rollout through all encoder blocks from {answer.asked}",
        "image-to-prompt": f"how much attention {answer.asked} get from each voxel",
    }.get(answer.kind, f"what each head attends to, asked by {answer.asked}")
    if not answer.is_row and answer.kind != "image-to-prompt":
        what = "what each place receives from all queries"
    site = "" if answer.site == ROLLOUT else f", site {answer.site} ({answer.kind}, {answer.heatmap.heads} heads)"
    mark = "" if answer.mark_yx is None else " (cross)"
    heads = [int(name) for name in names if name.isdigit()]
    known = {"entropy": answer.entropy_nats, "mean distance": answer.distance_mm}
    told = [what for what, values in known.items() if np.isfinite(values[heads]).any()]
    titles = f" Titles: {' and '.join(told)} of the attention." if told else ""
    return (
        f"{inspection.model.card.name}{site}: {what}{mark}, on {where}. Each map is coloured from 0 to its own "
        f"maximum; tokens measure {size} mm; window {low:g} to {high:g}.{titles}"
    )


def answer_volume(inspection: Inspection, answer: Answer, names: Sequence[str] | None = None) -> np.ndarray:
    """(maps, z, y, x) float32: an answer's maps on every voxel, zero off the slice, or off the windows of a model that
    sees three axes; fit for write_heatmap.
    """
    check_inspection(inspection)
    shown = _shown(check_answer(answer), names)
    if answer.solid is not None:
        return np.concatenate([one_map(answer.solid, name).on_pixels(smooth=False) for name in shown])
    full = np.zeros((len(shown), *inspection.volume.shape), np.float32)
    slices = np.moveaxis(full, inspection.plane.axis + 1, 0)[inspection.plane.index]  # a view
    for place, name in enumerate(shown):
        slices[place] = answer.on_pixels(name, smooth=False)
    return full


def answer_shares(
    inspection: Inspection, answer: Answer, labels: np.ndarray, names: Mapping[int, str]
) -> list[list[str]]:
    """The table of how each head's attention, and their mean, is shared out among labels; see `shares_table`.

    labels: (z, y, x) integers, or (rows, columns) where the model sees the slice alone. names: label → name.
    """
    check_inspection(inspection)
    check_answer(answer)
    if not isinstance(names, Mapping):
        raise InvalidOption(f"names of labels are a mapping from numbers, not {in_words(names)}.")
    table: list[list[str]] = []
    seen = numbers(labels, "labels", InvalidOption) if answer.solid is not None else inspection.on_slice(labels)
    for name in answer.names[: answer.heatmap.heads + (answer.heatmap.heads > 1)]:
        rows = shares_table(shares_by_label(one_map(answer.whole, name), seen), names, site=answer.site, heads=[name])
        table += rows if not table else rows[1:]
    return table


def write_table(table: Sequence[Sequence[str]], path: str | Path) -> Path:
    """Write rows of text as CSV, whole or not at all. Raises CannotWrite."""
    target = path_of(path, "a table", CannotWrite)
    if target.suffix.lower() != ".csv":
        raise CannotWrite(f"{target.name} is no table; use a name that ends in .csv.")
    file_to_write(target)
    text = io.StringIO()
    try:
        csv.writer(text, lineterminator="\n").writerows(table)
    except (TypeError, csv.Error) as error:
        raise CannotWrite(f"a table is rows of texts, not {in_words(table)}.") from error
    with replacing(target) as stream:
        stream.write(text.getvalue().encode())
    return target
