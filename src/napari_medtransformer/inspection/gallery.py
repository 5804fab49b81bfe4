"""Figures of more than one site: the matrix of heads, positional encodings, masks before and after a change."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medtransformer.attention.positions import PositionalEncoding, RelativeBias
from napari_medtransformer.inspection.ablation import ObjectEffect
from napari_medtransformer.inspection.maps import on_picture
from napari_medtransformer.inspection.matrix import HeadMatrix
from napari_medtransformer.inspection.position_views import PositionView
from napari_medtransformer.inspection.positions import bias_pictures, describe_encoding
from napari_medtransformer.inspection.queries import Answer, Inspection

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL_INCHES = 1.05
_PICTURE = 96  # pixels of the longer side of a cell
_FRAME_POINTS = 3.0
LOST, GAINED, STAYED = (1.0, 0.55, 0.1), (0.2, 0.6, 1.0), (0.85, 0.85, 0.85)


def draw_matrix(inspection: Inspection, answers: Sequence[Answer], matrix: HeadMatrix, caption: str) -> Figure:
    """Depth × heads: every head's map on the anatomy, framed in its number's colour. Raises ValueError if empty."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    if not answers:
        raise ValueError("a matrix of no site")
    rows, columns = matrix.values.shape
    height_mm, width_mm = (n * mm for n, mm in zip(inspection.image.shape, inspection.spacing_mm, strict=True))
    cell_height = _CELL_INCHES * height_mm / width_mm + 0.18
    figure, axes, below = _figure(rows, columns, (_CELL_INCHES, cell_height), caption, wider=1.1)
    numbers = Normalize(*matrix.limits)
    size = _fitting(height_mm, width_mm)
    for row, answer in enumerate(answers):
        maps = on_picture(answer.heatmap, size)
        for column in range(columns):
            panel = axes[row, column]
            panel.set_xticks([])
            panel.set_yticks([])
            if column >= answer.heatmap.heads:
                panel.set_axis_off()
                continue
            _draw_map(panel, inspection, maps[column], (height_mm, width_mm))
            value = float(matrix.values[row, column])
            known = np.isfinite(value)
            for spine in panel.spines.values():
                spine.set_linewidth(_FRAME_POINTS)
                spine.set_color(colormaps["viridis"](numbers(value)) if known else "0.7")
            panel.set_title(f"{value:.1f}" if known else "", fontsize=6, pad=2)
        name = answer.site.replace(".prompt-to-image", "\n→ image").replace(".image-to-prompt", "\n→ prompt")
        axes[row, 0].set_ylabel(name, fontsize=6, rotation=0, ha="right", va="center")
    bar = figure.colorbar(ScalarMappable(numbers, "viridis"), ax=axes, fraction=0.025, pad=0.01, aspect=40)
    bar.set_label(matrix.unit, fontsize=7)
    bar.ax.tick_params(labelsize=6)
    _write_caption(figure, caption, below)
    return figure


def draw_positions(views: Sequence[tuple[str, PositionView]], encoding: PositionalEncoding, model: str) -> Figure:
    """Pictures of one positional encoding side by side, each with its colour bar and what it means."""
    caption = f"{model}: {encoding.name}, {describe_encoding(encoding)}. " + " ".join(
        f"{chr(ord('a') + i)}: {view.explained}" for i, (_, view) in enumerate(views)
    )
    figure, axes, below = _figure(1, len(views), (2.9, 2.9), caption, wider=0.3)
    for i, (panel, (title, view)) in enumerate(zip(axes.flat, views, strict=True)):
        low, high = view.limits
        # A grid of places keeps its proportions, a long table of numbers fills its panel.
        aspect = "equal" if 0.5 <= view.values.shape[0] / view.values.shape[1] <= 2 else "auto"
        shown = panel.imshow(
            view.values, cmap="RdBu_r" if view.signed else "viridis", vmin=low, vmax=high, aspect=aspect
        )
        panel.set_title(f"{chr(ord('a') + i)}  {title}", fontsize=8)
        panel.set_xticks([])
        panel.set_yticks([])
        figure.colorbar(shown, ax=panel, fraction=0.045, pad=0.02).ax.tick_params(labelsize=6)
    _write_caption(figure, caption, below)
    return figure


def draw_relative_bias(encoding: RelativeBias, caption: str) -> Figure:
    """A panel per head of a relative-bias table over offsets; of a 3D window, its slices along z side by side."""
    pictures = bias_pictures(encoding)
    wide = pictures.shape[2] / pictures.shape[1]
    columns = 1 if wide > 3 else min(4, len(pictures))
    rows = -(-len(pictures) // columns)
    width = 8.0 / columns if wide > 3 else 2.0
    figure, axes, below = _figure(rows, columns, (width, width / wide + 0.25), caption, wider=0.9)
    largest = float(np.nanmax(np.abs(pictures)))
    for head, panel in enumerate(axes.flat):
        panel.set_axis_off()
        if head < len(pictures):
            shown = panel.imshow(pictures[head], cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
            panel.set_title(f"head {head}", fontsize=7, pad=2)
    bar = figure.colorbar(shown, ax=axes, fraction=0.03, pad=0.01, aspect=30)
    bar.set_label("added to the score", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    _write_caption(figure, caption, below)
    return figure


def draw_change(inspection: Inspection, effects: Mapping[str, ObjectEffect], caption: str) -> Figure:
    """The mask of the whole model, then a panel per change: what stayed (grey), was lost (orange), gained (blue).

    effects: title → effect on one object, at least one.
    """
    height_mm, width_mm = (n * mm for n, mm in zip(inspection.image.shape, inspection.spacing_mm, strict=True))
    lines = 1 + max(title.count("\n") for title in effects)
    size = (2.6, 2.6 * height_mm / width_mm + 0.2 + 0.2 * lines)
    figure, axes, below = _figure(1, len(effects) + 1, size, caption)
    first = next(iter(effects.values()))
    panels: list[tuple[str, list[tuple[np.ndarray, Any]]]] = [("whole model", [(first.whole, (0.25, 0.71, 1.0))])]
    for title, effect in effects.items():
        kept, lost, gained = (
            effect.whole & effect.changed,
            effect.whole & ~effect.changed,
            effect.changed & ~effect.whole,
        )
        panels.append((f"{title}: Dice {effect.dice:.3f}", [(kept, STAYED), (lost, LOST), (gained, GAINED)]))
    for panel, (title, parts) in zip(axes.flat, panels, strict=True):
        picture = np.repeat(inspection.image[..., None].astype(np.float32), 3, axis=2)
        for part, colour in parts:
            picture[part] = 0.4 * picture[part] + 0.6 * np.asarray(colour, np.float32)
        picture = picture[::-1] if inspection.plane.upside_down else picture
        panel.imshow(picture, extent=(0, width_mm, height_mm, 0), interpolation="nearest")
        panel.set_axis_off()
        panel.set_title(title, fontsize=7)
    _write_caption(figure, caption, below)
    return figure


def _draw_map(panel: Any, inspection: Inspection, values: np.ndarray, extent_mm: tuple[float, float]) -> None:
    height_mm, width_mm = extent_mm
    share = values / values.max() if values.max() > 0 else values
    opacity = 0.85 * np.sqrt(share)
    flip = inspection.plane.upside_down
    extent = (0, width_mm, 0, height_mm) if flip else (0, width_mm, height_mm, 0)
    origin = "lower" if flip else "upper"
    panel.imshow(inspection.image, cmap="gray", vmin=0, vmax=1, extent=extent, origin=origin)
    panel.imshow(share, cmap="inferno", vmin=0, vmax=1, alpha=opacity, extent=extent, origin=origin)


def _fitting(height_mm: float, width_mm: float) -> tuple[int, int]:
    longest = max(height_mm, width_mm)
    return max(1, round(_PICTURE * height_mm / longest)), max(1, round(_PICTURE * width_mm / longest))


def _figure(
    rows: int, columns: int, cell_inches: tuple[float, float], caption: str, wider: float = 0.0
) -> tuple[Figure, Any, float]:
    """A figure of panels with room for a caption below: the figure, its axes (rows, columns), the caption's part."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    width = max(columns * cell_inches[0] + wider, 4.0)
    lines = textwrap.wrap(caption, width=int(width * 19))
    caption_inches = 0.16 * len(lines) + 0.15
    height = rows * cell_inches[1] + caption_inches
    below = caption_inches / height
    layout = ConstrainedLayoutEngine(rect=(0, below, 1, 1 - below))
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    return figure, figure.subplots(rows, columns, squeeze=False), below


def _write_caption(figure: Figure, caption: str, below: float) -> None:
    lines = textwrap.wrap(caption, width=int(figure.get_size_inches()[0] * 19))
    figure.text(0.01, below * 0.2, "\n".join(lines), fontsize=7, va="bottom", ha="left")
