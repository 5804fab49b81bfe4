"""How the tokens of one side of a site tile the network's input, before any image is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

from napari_medtransformer.attention.turn import Turn


@dataclass(frozen=True)
class TokenLayout:
    """How the tokens of one side of a site (queries or keys) tile the network's input, before any image is known.

    patch: input pixels per token and axis, (y, x) or (z, y, x); None for tokens without a place, such as prompts.
    grid: tokens per axis; None means as many as cover the input, ceil(input / patch).
    prefix: tokens without a place that come before the grid's, such as CLS.
    window: tokens per axis of a window; the grid is padded at the end of each axis to whole windows, and windows are
    laid out row-major along the batch axis. shift: tokens by which the padded grid is rolled towards its start before
    it is partitioned (Swin). shrink_windows: a window larger than the grid shrinks to it and is not shifted (Swin);
    otherwise the grid is padded (SAM).
    turn: how the network sees the image's axes, where it does not see them as they are. All of the above is per axis of
    the image; padding, shift and windows then run as the network sees them.
    """

    patch: tuple[int, ...] | None
    grid: tuple[int, ...] | None = None
    prefix: int = 0
    window: tuple[int, ...] | None = None
    shift: tuple[int, ...] | None = None
    shrink_windows: bool = False
    turn: Turn | None = None

    def __post_init__(self) -> None:
        given = [part for part in (self.grid, self.window, self.shift) if part is not None]
        if self.patch is None:
            if given or self.turn:
                raise ValueError(f"tokens without a place have neither grid, window, shift nor turn: {self}")
            return
        given += [] if self.turn is None else [self.turn.axes]
        if any(len(part) != len(self.patch) for part in given):
            raise ValueError(f"patch, grid, window, shift and turn have different numbers of axes: {self}")
        if any(n < 1 for part in (self.patch, self.grid or (1,), self.window or (1,)) for n in part) or self.prefix < 0:
            raise ValueError(f"sizes must be positive: {self}")
        if self.shift is not None and self.window is None:
            raise ValueError(f"a shift needs a window: {self}")
        if self.window is not None and self.prefix:
            raise ValueError(f"windows with prefix tokens are not supported: {self}")

    def seen_turned(self, turn: Turn) -> TokenLayout:
        """This layout, told per axis of a network that sees the image turned, per axis of the image."""
        if self.patch is None:
            return self

        def back(sizes: tuple[int, ...] | None) -> tuple[int, ...] | None:
            return None if sizes is None else turn.sizes_to_image(sizes)

        return replace(
            self, patch=back(self.patch), grid=back(self.grid), window=back(self.window), shift=back(self.shift),
            turn=turn,
        )  # fmt: skip


FREE_TOKENS = TokenLayout(patch=None)
"""Tokens without a place: prompt tokens, mask tokens, object queries. Their number is read off the tensors."""
