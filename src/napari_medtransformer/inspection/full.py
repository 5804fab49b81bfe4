"""The whole attention matrix of a head, for those who want it: what it takes is said first, and too much refused."""

from __future__ import annotations

import numpy as np
import torch

from napari_medtransformer.attention.captured import CapturedSite
from napari_medtransformer.errors import QueryOutOfGrid, UnsupportedModel
from napari_medtransformer.volumes.guard import physical_memory, size

_FLOAT_BYTES = 4
# of the machine's memory, what one picture may take
_LARGEST_PART = 0.5


def full_matrix_bytes(captured: CapturedSite, heads: int = 1) -> int:
    """What the queries × keys matrices of so many heads take in float32; windows count what each of them spans."""
    grid = captured.site.query_grid
    return heads * grid.n_tokens * captured.call.k_shape[2] * _FLOAT_BYTES


def full_matrix_says(captured: CapturedSite) -> str:
    """What a whole matrix would take, for people to read before they ask for it."""
    queries, keys, heads = captured.site.query_grid.n_tokens, captured.call.k_shape[2], captured.call.heads
    one, every = size(full_matrix_bytes(captured)), size(full_matrix_bytes(captured, heads))
    there = size(physical_memory())
    return f"{queries} × {keys} tokens: {one} for one head, {every} for all {heads}; the machine has {there}"


def full_matrix(captured: CapturedSite, head: int) -> np.ndarray:
    """(queries, keys) float32: one head's attention, rows sum to 1; in a window site the keys are the query's window's.

    Raises UnsupportedModel if it would take more than half of the machine's memory, QueryOutOfGrid for no such head.
    """
    if not 0 <= head < captured.call.heads:
        raise QueryOutOfGrid(f"{captured.site.name} has heads 0 to {captured.call.heads - 1}, not {head}.")
    needed, there = full_matrix_bytes(captured), physical_memory()
    if needed > _LARGEST_PART * there:
        raise UnsupportedModel(
            f"the whole matrix of {captured.site.name} takes {size(needed)} a head, the machine has {size(there)}; "
            "ask single voxels, or what every token receives: both never make it."
        )
    matrix = torch.empty((captured.site.query_grid.n_tokens, captured.call.k_shape[2]))
    everywhere = captured.site.key_grid.window is None
    for rows, queries, keys in captured.blocks():
        # a network that sees the image turned has its keys in another order
        matrix[queries] = rows[head].cpu()[:, keys.argsort()] if everywhere else rows[head].cpu()
    return matrix.numpy()


def picture_of_matrix(matrix: np.ndarray, most: int) -> np.ndarray:
    """The matrix on at most `most` pixels per side, each the mean of those it stands for."""
    for axis in (0, 1):
        n = matrix.shape[axis]
        if n > most:
            edges = np.linspace(0, n, most + 1).astype(np.int64)[:-1]
            counts = np.diff(np.append(edges, n)).reshape((-1, 1) if axis == 0 else (1, -1))
            matrix = np.add.reduceat(matrix, edges, axis=axis) / counts
    return np.asarray(matrix, np.float32)
