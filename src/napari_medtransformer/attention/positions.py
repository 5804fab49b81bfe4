"""Positional encodings of a network as data: what tells its tokens where they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medtransformer.attention.automatic import plain_grid
from napari_medtransformer.errors import QueryOutOfGrid, UnsupportedModel


@dataclass(frozen=True, eq=False)
class PositionTable:
    """A vector for every place of a grid: learned, sinusoidal, or random Fourier features.

    name: the parameter's dotted path in its network, or what made it. grid: places per axis. vectors: (places, width)
    float32, row-major, on the CPU.
    """

    name: str
    kind: Literal["learned", "sinusoidal", "fourier"]
    grid: tuple[int, ...]
    vectors: Tensor

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.shape[0] != math.prod(self.grid):
            raise ValueError(f"{self.name}: {tuple(self.vectors.shape)} vectors do not fill a grid of {self.grid}")

    def similarity(self, place: Sequence[int]) -> Tensor:
        """Cosine similarity of one place's vector with all: (*grid) in [-1, 1]. Dosovitskiy et al. 2021, figure 7."""
        index = self._index(place)
        unit = F.normalize(self.vectors, dim=1)
        return (unit @ unit[index]).reshape(self.grid)

    def gram(self, places: Tensor | None = None) -> Tensor:
        """Rows of P·Pᵀ: (n, places). places: (n,) row-major indices, None for all, which is places × places numbers."""
        rows = self.vectors if places is None else self.vectors[places]
        return rows @ self.vectors.T

    def resized(self, grid: Sequence[int]) -> PositionTable:
        """The table interpolated to another grid, linearly per axis between centres, as networks do for other sizes.

        Random Fourier features are functions of the place: make them anew with `fourier_features` instead.
        """
        if len(grid) != len(self.grid) or len(grid) not in (1, 2, 3):
            raise UnsupportedModel(f"{self.name}: no interpolation from a grid of {self.grid} to {tuple(grid)}.")
        mode = ("linear", "bilinear", "trilinear")[len(grid) - 1]
        laid_out = self.vectors.T.reshape(1, -1, *self.grid)
        resized = F.interpolate(laid_out, size=tuple(grid), mode=mode, align_corners=False)
        return PositionTable(self.name, self.kind, tuple(grid), resized.flatten(2)[0].T.contiguous())

    def _index(self, place: Sequence[int]) -> int:
        if len(place) != len(self.grid) or any(not 0 <= p < n for p, n in zip(place, self.grid, strict=True)):
            raise QueryOutOfGrid(f"{self.name} has no place {tuple(place)}; its grid is {self.grid}.")
        index = 0
        for p, n in zip(place, self.grid, strict=True):
            index = index * n + int(p)
        return index


@dataclass(frozen=True, eq=False)
class RelativeVectors:
    """Decomposed relative positions along one axis (SAM, ViTDet, MViT): a vector per offset between query and key.

    vectors: (2·size − 1, head_dim) float32; row `size − 1 + offset` is what a query that lies `offset` tokens after
    its key is multiplied with.
    """

    name: str
    vectors: Tensor

    @property
    def size(self) -> int:
        """Tokens along the axis it was trained on."""
        return (self.vectors.shape[0] + 1) // 2

    def similarity(self, offset: int) -> Tensor:
        """Cosine similarity of one offset's vector with all: (2·size − 1,)."""
        if abs(offset) >= self.size:
            raise QueryOutOfGrid(f"{self.name} has offsets {1 - self.size} to {self.size - 1}, not {offset}.")
        unit = F.normalize(self.vectors, dim=1)
        return unit @ unit[self.size - 1 + offset]

    def resized(self, size: int) -> RelativeVectors:
        """The vectors interpolated to an axis of another size, linearly (Li et al. 2022, MViTv2)."""
        wider = F.interpolate(self.vectors.T[None], size=2 * size - 1, mode="linear", align_corners=False)
        return RelativeVectors(self.name, wider[0].T.contiguous())


@dataclass(frozen=True, eq=False)
class RelativeBias:
    """A learned number per head and offset inside a window (Swin). values: (heads, *(2·window − 1)) float32, what is
    added to the score of a query that lies so far after its key; the centre is offset zero.
    """

    name: str
    values: Tensor

    @property
    def window(self) -> tuple[int, ...]:
        """Tokens per axis of the window."""
        return tuple((n + 1) // 2 for n in self.values.shape[1:])

    def around(self, place: Sequence[int]) -> Tensor:
        """The bias that a query at a place of the window gives to every key: (heads, *window)."""
        if len(place) != len(self.window) or any(not 0 <= p < n for p, n in zip(place, self.window, strict=True)):
            raise QueryOutOfGrid(f"{self.name} has no place {tuple(place)}; its window is {self.window}.")
        values = self.values
        for axis, (p, n) in enumerate(zip(place, self.window, strict=True), start=1):
            # offset of key k is p − k
            values = values.index_select(axis, p - torch.arange(n) + n - 1)
        return values


PositionalEncoding = PositionTable | RelativeVectors | RelativeBias

# names under which networks keep vectors per token
_TABLES = ("pos_embed", "position_embedding", "positional_embedding", "position")
# (2, features) or (features, 2) matrices of random Fourier features
_FOURIER = ("positional_encoding_gaussian_matrix", "shared_image_embedding.positional_embedding", "fourier")


def find_positional_encodings(network: nn.Module, grid: Sequence[int] | None = None) -> list[PositionalEncoding]:
    """Every positional encoding that a network keeps as a parameter or buffer, in the order of its modules.

    grid: tokens per axis, for flat tables of a grid that is no square or cube and for Fourier features, which have no
    grid of their own; without it those of unknown grid are laid out along one axis, and Fourier features left out.
    """
    found: list[PositionalEncoding] = []
    seen: set[int] = set()
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        values, last = tensor.detach().float().cpu(), name.rsplit(".", 1)[-1]
        if "rel_pos" in name and values.ndim == 2 and values.shape[0] % 2:
            found.append(RelativeVectors(name, values))
        elif last == "relative_position_bias_table":
            found.append(_relative_bias(network.get_submodule(name.rpartition(".")[0]), name, values))
        elif any(name.endswith(end) for end in _FOURIER) and values.ndim == 2 and values.shape[0] in (2, 3):
            if grid is not None and len(grid) == values.shape[0]:
                found.append(PositionTable(name, "fourier", tuple(grid), fourier_features(values, grid)))
        elif any(last.startswith(start) or last.endswith(start) for start in _TABLES) and values.ndim > 1:
            table = _learned_table(name, values, grid)
            found += [] if table is None else [table]
    return found


def _learned_table(name: str, values: Tensor, grid: Sequence[int] | None) -> PositionTable | None:
    if values.ndim in (4, 5) and values.shape[0] == 1:  # (1, *grid, width) or (1, width, *grid)
        inner = values[0]
        shape = tuple(inner.shape)
        # a grid's sides are alike; the width is the side that is not
        first = abs(math.log(shape[0] / shape[1])) > abs(math.log(shape[-1] / shape[-2]))
        places = shape[1:] if first else shape[:-1]
        flat = inner.flatten(1).T if first else inner.flatten(0, -2)
        return PositionTable(name, "learned", places, flat.contiguous())
    flat = values[0] if values.ndim == 3 and values.shape[0] == 1 else values
    if flat.ndim != 2:
        return None
    tokens = flat.shape[0]
    if grid is not None:
        prefix = tokens - math.prod(grid)
        if prefix in (0, 1):
            return PositionTable(name, "learned", tuple(grid), flat[prefix:])
    shape, prefix = plain_grid(tokens)
    return PositionTable(name, "learned", shape, flat[prefix:])


def _relative_bias(module: nn.Module, name: str, table: Tensor) -> RelativeBias:
    window = getattr(module, "window_size", None)
    if window is None:
        side = math.isqrt(table.shape[0])
        extents: tuple[int, ...] = (side, side)
    else:
        sizes = (window, window) if isinstance(window, int) else tuple(window)
        extents = tuple(2 * int(size) - 1 for size in sizes)
    if math.prod(extents) != table.shape[0]:
        raise UnsupportedModel(f"{name} holds {table.shape[0]} offsets, which fill no window of {window}.")
    return RelativeBias(name, table.T.reshape(-1, *extents).contiguous())


def fourier_features(matrix: Tensor, grid: Sequence[int]) -> Tensor:
    """Random Fourier features of a grid's token centres: (places, 2·features), sines then cosines.

    matrix: (axes, features), axes as SAM has them, (x, y). Tancik et al. 2020; Kirillov et al. 2023.
    """
    centres = [(torch.arange(n) + 0.5) / n * 2 - 1 for n in grid]
    places = torch.cartesian_prod(*centres).reshape(-1, len(grid)).flip(-1)
    angles = 2 * math.pi * (places @ matrix.float())
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def sinusoidal(grid: Sequence[int], width: int, temperature: float = 10_000.0) -> PositionTable:
    """Fixed sines and cosines per axis, wavelengths from 2π to temperature · 2π (Vaswani et al. 2017, 3.5).

    Each axis has width / axes numbers, sines first. Raises UnsupportedModel if width is no multiple of 2 · axes.
    """
    axes = len(grid)
    if width % (2 * axes):
        raise UnsupportedModel(f"a width of {width} does not part into sines and cosines of {axes} axes.")
    rates = temperature ** -(torch.arange(width // (2 * axes)) / (width // (2 * axes)))
    places = torch.cartesian_prod(*[torch.arange(n, dtype=torch.float32) for n in grid]).reshape(-1, axes)
    parts = []
    for axis in range(axes):
        angles = places[:, axis, None] * rates
        parts += [angles.sin(), angles.cos()]
    return PositionTable("sinusoidal", "sinusoidal", tuple(grid), torch.cat(parts, dim=-1))
