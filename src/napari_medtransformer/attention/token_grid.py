"""Token index ↔ pixels: through resizing, padding, sliding windows, patches, window partition, shift, prefix tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from napari_medtransformer.attention.layout import TokenLayout
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.errors import QueryOutOfGrid


@dataclass(frozen=True)
class TokenGrid:
    """The tokens of one side of a site for one image, 2D (y, x) or 3D (z, y, x).

    A token index counts the prefix tokens first, then the grid's tokens row-major, as they lie in the image; in which
    order the kernel sees them is for `window_tokens` to say. layout: how tokens tile the network's input. placement:
    where the native image lies in that input; None for tokens without a place, of which there are `free_tokens`. An
    integer native coordinate is a pixel's centre.
    """

    layout: TokenLayout
    placement: InputPlacement | None
    free_tokens: int = 0

    def __post_init__(self) -> None:
        if self.layout.patch is None:
            return
        if self.placement is None:
            raise ValueError(f"tokens with a place need the image's placement: {self.layout}")
        if len(self.layout.patch) != len(self.placement.input_shape):
            raise ValueError(f"layout and placement have different numbers of axes: {self.layout}, {self.placement}")
        if self.layout.turn is not None:
            covered = tuple(n * p for n, p in zip(self.shape, self.layout.patch, strict=True))
            if covered != self.placement.input_shape:
                # a part of a token at the end that the network sees would lie at the image's beginning
                raise ValueError(f"whole tokens do not fill the input of a network that sees it turned: {self}")

    @property
    def has_place(self) -> bool:
        """Whether these tokens lie somewhere in the image; prompt tokens and object queries do not."""
        return self.layout.patch is not None

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Tokens per axis, without padding; (n,) for tokens without a place."""
        if self.layout.patch is None or self.placement is None:
            return (self.free_tokens,)
        if self.layout.grid is not None:
            return self.layout.grid
        return tuple(math.ceil(n / p) for n, p in zip(self.placement.input_shape, self.layout.patch))

    @property
    def prefix(self) -> int:
        """How many tokens without a place come before the grid's."""
        return self.layout.prefix

    @property
    def n_tokens(self) -> int:
        """How many tokens there are, prefix included, padding not."""
        return self.prefix + math.prod(self.shape)

    # --- tokens and native pixels ---------------------------------------------------------------------------------

    @cached_property
    def scale(self) -> tuple[float, ...]:
        """The size of a token per axis, in native pixels."""
        patch, placement = self._geometry()
        return tuple(p * n / r for p, n, r in zip(patch, placement.native_shape, placement.resized_shape, strict=True))

    @cached_property
    def translate(self) -> tuple[float, ...]:
        """The centre of the grid's first token per axis, in native pixel coordinates."""
        _, placement = self._geometry()
        per_pixel = (n / r for n, r in zip(placement.native_shape, placement.resized_shape, strict=True))
        return tuple(
            0.5 * size - 0.5 + o * pixel for size, o, pixel in zip(self.scale, placement.start, per_pixel, strict=True)
        )

    @cached_property
    def pixel_tokens(self) -> tuple[np.ndarray, ...]:
        """Per axis, the grid index of every native pixel: the one table from which all others follow.

        Of a sliding window, pixels before it have -1 and those behind it the number of tokens.
        """
        _, placement = self._geometry()
        return tuple(
            self._axis_index(np.arange(n, dtype=np.float64), axis) for axis, n in enumerate(placement.native_shape)
        )

    @cached_property
    def shown_by(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Per axis, which tokens lie under which pixels: grid indices and pixels, (n,) each, in pairs.

        Every pixel with the token that holds its centre, and every token so fine that it holds no pixel's centre with
        the pixel that holds its own. Tokens of the padding are in no pair.
        """
        _, placement = self._geometry()
        pairs = []
        for table, tokens, pixels, size, start in zip(
            self.pixel_tokens, self.shape, placement.native_shape, self.scale, self.translate, strict=True
        ):
            every = np.arange(pixels)
            known = (table >= 0) & (table < tokens)
            fine = np.setdiff1d(np.arange(tokens), table[known])
            centres = np.floor(start + size * fine + 0.5).astype(np.int64)
            there = (centres >= 0) & (centres < pixels)
            pairs.append((np.concatenate([table[known], fine[there]]), np.concatenate([every[known], centres[there]])))
        return tuple(pairs)

    def under_tokens(self, array: np.ndarray) -> np.ndarray:
        """An array over native pixels as `shown_by` has them: (*native_shape) to (*pairs)."""
        pixels = [pixels for _, pixels in self.shown_by]
        if all(len(p) and (np.diff(p) == 1).all() for p in pixels):
            return array[tuple(slice(p[0], p[-1] + 1) for p in pixels)]
        return array[np.ix_(*pixels)]

    def token_of(self, native: Sequence[float]) -> int:
        """The token that a native coordinate lies in. Raises QueryOutOfGrid outside the image."""
        return int(self.tokens_of(np.asarray([native], dtype=np.float64))[0])

    def tokens_of(self, native: np.ndarray) -> np.ndarray:
        """Token indices of native coordinates (n, axes). Raises QueryOutOfGrid if one lies outside the image."""
        _, placement = self._geometry()
        native = np.asarray(native, dtype=np.float64)
        if native.ndim != 2 or native.shape[1] != len(placement.native_shape):
            raise QueryOutOfGrid(
                f"coordinates of shape {native.shape}; expected (n, {len(placement.native_shape)}), "
                f"one per axis of the {placement.native_shape} image."
            )
        limit = np.asarray(placement.native_shape)
        outside = ((native < -0.5) | (native >= limit - 0.5) | ~np.isfinite(native)).any(axis=1)
        if outside.any():
            raise QueryOutOfGrid(
                f"{tuple(native[outside][0].tolist())} lies outside the image of {placement.native_shape} pixels; "
                f"expected 0 to {tuple((limit - 1).tolist())} per axis."
            )
        index = [self._axis_index(native[:, axis], axis) for axis in range(native.shape[1])]
        beside = np.any([(i < 0) | (i >= n) for i, n in zip(index, self.shape, strict=True)], axis=0)
        if beside.any():
            raise QueryOutOfGrid(
                f"{tuple(native[beside][0].tolist())} lies outside the window that was encoded, "
                f"{placement.input_shape} pixels from {placement.start} of the image at the model's scale."
            )
        return self.prefix + np.ravel_multi_index(index, self.shape)

    def grid_index(self, token: int) -> tuple[int, ...]:
        """The place of a token in the grid. Raises QueryOutOfGrid for prefix tokens and beyond the grid."""
        if not self.prefix <= token < self.n_tokens:
            raise QueryOutOfGrid(
                f"token {token} has no place in the grid; expected {self.prefix} to {self.n_tokens - 1}."
            )
        return tuple(int(i) for i in np.unravel_index(token - self.prefix, self.shape))

    def native_centre(self, token: int) -> tuple[float, ...]:
        """The centre of a token in native pixel coordinates; outside the image for tokens of the padding."""
        index = self.grid_index(token)
        return tuple(t + s * i for i, s, t in zip(index, self.scale, self.translate))

    def holds(self, native: Sequence[float]) -> bool:
        """Whether a native coordinate lies in the image and in the window that was encoded."""
        try:
            self.token_of(native)
        except QueryOutOfGrid:
            return False
        return True

    def pixels_per_token(self, mask: np.ndarray) -> torch.Tensor:
        """How many of the mask's pixels each token holds. mask: bool, native shape. Returns (n_tokens,) float32.

        Pixels outside a sliding window belong to none of its tokens.
        """
        _, placement = self._geometry()
        if mask.shape != placement.native_shape:
            raise QueryOutOfGrid(f"a mask of shape {mask.shape}; expected the image's, {placement.native_shape}.")
        known = [(table >= 0) & (table < n) for table, n in zip(self.pixel_tokens, self.shape, strict=True)]
        span = tuple(slice(*(np.flatnonzero(k)[[0, -1]] + (0, 1))) if k.any() else slice(0) for k in known)
        inside = np.nonzero(mask[span])
        index = [table[s][i] for table, s, i in zip(self.pixel_tokens, span, inside)]
        counts = np.bincount(self.prefix + np.ravel_multi_index(index, self.shape), minlength=self.n_tokens)
        return torch.from_numpy(counts.astype(np.float32))

    def centres_mm(self, spacing: Sequence[float]) -> tuple[torch.Tensor, ...]:
        """Per axis, the centres of the grid's tokens in millimetres. spacing: mm per native pixel and axis."""
        return tuple(
            (t + s * torch.arange(n, dtype=torch.float32)) * mm
            for n, s, t, mm in zip(self.shape, self.scale, self.translate, spacing, strict=True)
        )

    # --- windows --------------------------------------------------------------------------------------------------

    @cached_property
    def window(self) -> tuple[int, ...] | None:
        """Tokens per axis of a window; smaller than declared where the layout shrinks windows to small grids."""
        if self.layout.window is None:
            return None
        if self.layout.shrink_windows:
            return tuple(min(w, n) for w, n in zip(self.layout.window, self.shape))
        return self.layout.window

    @cached_property
    def shift(self) -> tuple[int, ...]:
        """Tokens by which the padded grid is rolled towards its start before it is cut into windows."""
        declared = self.layout.shift or (0,) * len(self.shape)
        if self.window is None or not self.layout.shrink_windows:
            return declared
        return tuple(0 if n <= w else s for n, w, s in zip(self.shape, self.layout.window or (), declared))

    @cached_property
    def window_tokens(self) -> torch.Tensor:
        """(windows, tokens per window) token indices as the kernel sees them, -1 where a window holds padding."""
        index, turn = torch.arange(math.prod(self.shape)).reshape(self.shape), self.layout.turn
        if turn is not None:
            index = turn.to_network(index)
        if self.window is None:
            return torch.cat([torch.arange(self.prefix), self.prefix + index.flatten()])[None]
        window, shift = self.window, self.shift
        if turn is not None:
            window, shift = turn.sizes_to_network(window), turn.sizes_to_network(shift)
        padding = [(0, -n % w) for n, w in zip(index.shape, window, strict=True)]
        index = F.pad(index, [n for ends in reversed(padding) for n in ends], value=-1)
        index = torch.roll(index, [-s for s in shift], dims=tuple(range(index.ndim)))
        split = index.reshape([part for n, w in zip(index.shape, window, strict=True) for part in (n // w, w)])
        axes = index.ndim
        order = [2 * a for a in range(axes)] + [2 * a + 1 for a in range(axes)]
        return split.permute(order).reshape(-1, math.prod(window))

    def window_edges(self, axis: int) -> np.ndarray:
        """Along an axis, the tokens before which a window begins or behind which one ends: (n,) in 0 … tokens."""
        if self.window is None:
            return np.zeros(0, np.int64)
        tokens, turn = self.shape[axis], self.layout.turn
        edges = np.arange(tokens + 1)
        seen = tokens - edges if turn is not None and turn.backward[axis] else edges
        return edges[(seen - self.shift[axis]) % self.window[axis] == 0]

    @cached_property
    def window_of_token(self) -> torch.Tensor:
        """(n_tokens, 2): the window of each token and its index inside it; the inverse of window_tokens."""
        table = self.window_tokens
        places = torch.full((self.n_tokens, 2), -1, dtype=torch.long)
        real = table >= 0
        places[table[real]] = real.nonzero()
        return places

    def check_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """The same tokens as a long tensor (n,). Raises QueryOutOfGrid if one is not in 0 … n_tokens - 1."""
        tokens = torch.as_tensor(tokens, dtype=torch.long).reshape(-1)
        if tokens.numel() == 0 or int(tokens.min()) < 0 or int(tokens.max()) >= self.n_tokens:
            raise QueryOutOfGrid(f"query tokens {tokens.tolist()[:8]}; expected some of 0 to {self.n_tokens - 1}.")
        return tokens

    def scatter(self, values: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
        """Values at tokens → the whole grid, zero elsewhere; prefix tokens and padding (-1) are left out.

        values: (..., n). tokens: (n,) token indices, None for all of them in order. Returns (..., *shape).
        """
        if tokens is None:
            tokens = torch.arange(self.n_tokens)
        placed = tokens >= self.prefix
        full = values.new_zeros((*values.shape[:-1], math.prod(self.shape)))
        full[..., tokens[placed] - self.prefix] = values[..., placed]
        return full.reshape(*values.shape[:-1], *self.shape)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _geometry(self) -> tuple[tuple[int, ...], InputPlacement]:
        if self.layout.patch is None or self.placement is None:
            raise QueryOutOfGrid(
                "these tokens have no place in the image (prompt tokens or object queries); give a token index instead."
            )
        return self.layout.patch, self.placement

    def _axis_index(self, native: np.ndarray, axis: int) -> np.ndarray:
        patch, placement = self._geometry()
        edge = (native + 0.5) * placement.resized_shape[axis] / placement.native_shape[axis] - placement.start[axis]
        # a network that does not cover the last pixels of its input (input no multiple of the patch) counts them to
        # its last token, so that every pixel has one
        index = np.minimum(np.floor(edge / patch[axis]), self.shape[axis] - 1).astype(np.int64)
        if placement.origin is None:
            return index
        return np.where(edge < 0, -1, np.where(edge >= placement.input_shape[axis], self.shape[axis], index))
