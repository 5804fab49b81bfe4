"""What the depth × head matrix shows for a choice of number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_medtransformer.plugin.attention.head_matrix_view import MatrixContent
from napari_medtransformer.plugin.attention.pictures import coloured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medtransformer.inspection.ablation import HeadEffect
    from napari_medtransformer.inspection.matrix import HeadMatrix
    from napari_medtransformer.plugin.attention.state import AttentionState

QUANTITIES = {
    "share": "share on the organ",
    "entropy": "entropy",
    "distance": "mean distance",
    "peak": "largest share of a token",
}
NUMBERS_MAP = "viridis"


def matrix_content(state: AttentionState, quantity: str) -> MatrixContent:
    """Cells and numbers of the newest matrix. quantity: a key of QUANTITIES; a share without an organ has no number."""
    if not state.matrix:
        return MatrixContent()
    from napari_medtransformer.inspection.matrix import head_matrix

    mask = state.target_mask()
    if quantity == "share" and mask is None:
        quantity = "entropy"
    return numbered(head_matrix(state.matrix, quantity, mask), state.cells)


def numbered(matrix: HeadMatrix, cells: Sequence[Sequence[np.ndarray]] = ()) -> MatrixContent:
    """A matrix of numbers as colours and texts."""
    low, high = matrix.limits
    texts = [[_text(value) for value in row] for row in matrix.values]
    if cells:
        texts = [row[: len(pictures)] for row, pictures in zip(texts, cells, strict=True)]
    return MatrixContent(
        sites=matrix.sites,
        cells=cells,
        colours=coloured(matrix.values, NUMBERS_MAP, (low, high)),
        texts=texts,
        legend=coloured(np.linspace(0, 1, 128), NUMBERS_MAP, (0, 1)),
        limits=(_text(low), f"{_text(high)} {matrix.unit}"),
        unit=matrix.unit,
    )


def effects_content(heads: Sequence[tuple[str, int]], effects: Sequence[HeadEffect]) -> MatrixContent:
    """Every site's heads, coloured by how much of the mask changes without them, as far as that is known.

    heads: (site, how many heads it has).
    """
    most = max((count for _, count in heads), default=0)
    rows = {site: row for row, (site, _) in enumerate(heads)}
    lost = np.full((len(heads), most), np.nan, np.float32)
    for effect in effects:
        lost[rows[effect.site], effect.head] = 100 * (1 - effect.dice)
    known = lost[np.isfinite(lost)]
    high = max(float(known.max()) if known.size else 0.0, 1.0)
    return MatrixContent(
        sites=tuple(rows),
        colours=coloured(lost, "magma", (0.0, high)),
        texts=[[_text(lost[row, head]) for head in range(count)] for row, (_, count) in enumerate(heads)],
        legend=coloured(np.linspace(0, 1, 128), "magma", (0, 1)) if known.size else np.zeros((0, 3), np.uint8),
        limits=("0", f"{high:.1f} % of the mask changed"),
        unit="% of the mask changed (1 − Dice)",
    )


def _text(value: float) -> str:
    if not np.isfinite(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"
