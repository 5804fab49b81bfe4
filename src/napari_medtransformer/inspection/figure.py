"""A figure of every head's heatmap on the anatomy, with scale bar, colour bar, query mark and caption."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_medtransformer.errors import CannotWrite, in_words
from napari_medtransformer.files import file_to_write, replacing
from napari_medtransformer.given import path as path_of
from napari_medtransformer.given import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patheffects import AbstractPathEffect

FIGURE_SUFFIXES = (".png", ".svg", ".pdf")

# Perceptually uniform and dark at zero, so that it fades into a grey anatomy (Smith and van der Walt 2015).
_COLOUR_MAP = "inferno"
_MARK = "#4dd2ff"  # no grey and not in the colour map, so it is seen on both
_PANEL_INCHES = 2.4
_MAX_COLUMNS = 5


def draw_heads(
    anatomy: np.ndarray,
    heatmaps: np.ndarray,
    *,
    spacing_mm: tuple[float, float],
    query: tuple[float, float] | None,
    titles: Sequence[str],
    caption: str,
    letters: tuple[tuple[str, str], tuple[str, str]] | None = None,
    upside_down: bool = False,
) -> Figure:
    """One panel of the anatomy alone and one per head, on one slice.

    anatomy: (H, W) in [0, 1]. heatmaps: (heads, H, W), non-negative, any unit; each head is coloured from 0 to its own
    maximum and is more transparent where it is low. spacing_mm: of rows and columns. query: (row, column), marked with
    a cross, or None; an integer is a pixel's centre. titles: one per head. letters: patient directions of the (first,
    last) row and the (first, last) column. upside_down: the first row is drawn at the bottom, as coronal and sagittal
    slices (z, …) want it, whose first row is the patient's feet. Raises ValueError if the shapes do not agree.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if heatmaps.ndim != 3 or heatmaps.shape[1:] != anatomy.shape or len(titles) != len(heatmaps):
        raise ValueError(f"{len(titles)} titles and heatmaps {heatmaps.shape} do not fit an anatomy {anatomy.shape}")
    if upside_down:
        anatomy, heatmaps = anatomy[::-1], heatmaps[:, ::-1]
        query = None if query is None else (anatomy.shape[0] - 1 - query[0], query[1])
        letters = None if letters is None else (letters[0][::-1], letters[1])
    height_mm, width_mm = (n * mm for n, mm in zip(anatomy.shape, spacing_mm))
    panels = len(heatmaps) + 1
    columns = min(_MAX_COLUMNS, panels, math.ceil(math.sqrt(panels * height_mm / width_mm * 1.6)))
    rows = math.ceil(panels / columns)
    panel_height = min(max(_PANEL_INCHES * height_mm / width_mm, 1.0), 2 * _PANEL_INCHES)
    lines = textwrap.wrap(caption, width=int(columns * _PANEL_INCHES * 20))
    caption_inches = 0.17 * len(lines) + 0.15
    size = (columns * _PANEL_INCHES + 0.6, rows * (panel_height + 0.25) + caption_inches)
    below = caption_inches / size[1]
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(rect=(0, below, 1, 1 - below)), facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False)

    # Pixel centres at whole millimetre multiples: the picture is in millimetres from its upper left corner.
    extent = (0.0, width_mm, height_mm, 0.0)
    mark = None if query is None else tuple((q + 0.5) * mm for q, mm in zip(query, spacing_mm))
    for panel, axis in enumerate(axes.flat):
        axis.set_axis_off()
        if panel >= panels:
            continue
        axis.imshow(anatomy, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        if panel > 0:
            share = _share_of_maximum(heatmaps[panel - 1])
            axis.imshow(
                share, cmap=_COLOUR_MAP, vmin=0, vmax=1, alpha=_opacity(share), extent=extent, interpolation="nearest"
            )
        if mark is not None:
            axis.plot(mark[1], mark[0], "+", color="black", markersize=9, markeredgewidth=2.6)
            axis.plot(mark[1], mark[0], "+", color=_MARK, markersize=8, markeredgewidth=1.4)
        anatomy_title = "anatomy" if mark is None else "anatomy and query"
        axis.set_title(titles[panel - 1] if panel else anatomy_title, fontsize=7, pad=3)
    _draw_scale_bar(axes.flat[0], width_mm, height_mm)
    if letters is not None:
        _draw_letters(axes.flat[0], letters)
    colours = ScalarMappable(Normalize(0, 1), _COLOUR_MAP)
    bar = figure.colorbar(colours, ax=axes, fraction=0.03, pad=0.01, aspect=30)
    bar.set_label("attention, share of the head's maximum", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    figure.text(0.01, 0.06 / size[1], "\n".join(lines), fontsize=7, va="bottom", ha="left")
    return figure


def figure_path(path: str | Path) -> Path:
    """`path` if a figure can be written there. Raises CannotWrite."""
    target = path_of(path, "a figure", CannotWrite)
    if target.suffix.lower() not in FIGURE_SUFFIXES:
        raise CannotWrite(
            f"{target.name or target} is no figure; use a name that ends in {', '.join(FIGURE_SUFFIXES)}."
        )
    return file_to_write(target)


def write_figure(figure: Figure, path: str | Path, *, dots_per_inch: int = 200) -> Path:
    """Write a figure as PNG, SVG or PDF by its suffix, whole or not at all. Raises CannotWrite."""
    target = figure_path(path)
    if not callable(getattr(figure, "savefig", None)):
        raise CannotWrite(f"a figure of matplotlib was expected, not {in_words(figure)}.")
    dots = whole(dots_per_inch, "dots per inch", least=1)
    with replacing(target) as stream:
        figure.savefig(stream, format=target.suffix.lower()[1:], dpi=dots)
    return target


def scale_bar_mm(width_mm: float) -> float:
    """The length of a scale bar for a picture that wide: 1, 2 or 5 times a power of ten, a quarter of it at most."""
    power = 10.0 ** math.floor(math.log10(width_mm / 4))
    return next(step * power for step in (5, 2, 1) if step * power <= width_mm / 4)


def _share_of_maximum(heatmap: np.ndarray) -> np.ndarray:
    highest = float(heatmap.max())
    return heatmap / highest if highest > 0 else np.zeros_like(heatmap)


def _opacity(share: np.ndarray) -> np.ndarray:
    """Anatomy shows through where a head looks little; the square root keeps faint attention visible."""
    return 0.85 * np.sqrt(share)


def _draw_scale_bar(axis: Axes, width_mm: float, height_mm: float) -> None:
    length = scale_bar_mm(width_mm)
    left, low = 0.05 * width_mm, 0.95 * height_mm
    axis.plot([left, left + length], [low, low], color="white", linewidth=2.5, solid_capstyle="butt")
    where = (left, low - 0.02 * height_mm)
    axis.text(*where, f"{length:g} mm", color="white", fontsize=6, va="bottom", ha="left", path_effects=_outlined())


def _draw_letters(axis: Axes, letters: tuple[tuple[str, str], tuple[str, str]]) -> None:
    (top, bottom), (left, right) = letters
    places = (
        (top, 0.5, 0.99, "center", "top"),
        (bottom, 0.5, 0.01, "center", "bottom"),
        (left, 0.01, 0.5, "left", "center"),
        (right, 0.99, 0.5, "right", "center"),
    )
    for letter, x, y, horizontal, vertical in places:
        axis.text(
            x, y, letter, color="white", fontsize=7, ha=horizontal, va=vertical, transform=axis.transAxes,
            path_effects=_outlined(),
        )  # fmt: skip


def _outlined() -> list[AbstractPathEffect]:
    """A dark edge about white letters, which bright bone would swallow."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=1.6, foreground="black")]
