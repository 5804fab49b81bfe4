"""Where an image lies inside a model's square input: resized, then padded at the far end of each axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class InputPlacement:
    """The way from native pixels to a model's input pixels, in any number of axes.

    native_shape: the image as read, pixels per axis. resized_shape: the same image at the model's scale.
    input_shape: what the network sees; axes longer than resized_shape are padded at their end.
    An integer coordinate is a pixel's centre in all three.
    """

    native_shape: tuple[int, ...]
    resized_shape: tuple[int, ...]
    input_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.native_shape), len(self.resized_shape), len(self.input_shape)}
        if len(lengths) != 1:
            raise ValueError(f"shapes of different length: {self}")
        if any(r > s or r < 1 or n < 1 for n, r, s in zip(self.native_shape, self.resized_shape, self.input_shape)):
            raise ValueError(f"the resized image does not fit the input: {self}")

    @classmethod
    def longest_side(
        cls, native_shape: Sequence[int], size: int, pixel_size: Sequence[float] | None = None
    ) -> InputPlacement:
        """The longest side scaled to `size` pixels, the rest padded to a square or cube (Kirillov et al. 2023, SAM).

        pixel_size: of a native pixel per axis, in any unit; input pixels are then square. None: as if it were equal.
        """
        extents = [n * p for n, p in zip(native_shape, pixel_size or (1.0,) * len(native_shape), strict=True)]
        resized = tuple(max(1, round(extent * size / max(extents))) for extent in extents)
        return cls(tuple(native_shape), resized, (size,) * len(native_shape))

    def to_input(self, native: Sequence[float]) -> tuple[float, ...]:
        """Native pixel coordinates to input pixel coordinates."""
        return tuple((x + 0.5) * r / n - 0.5 for x, n, r in zip(native, self.native_shape, self.resized_shape))

    def to_native(self, inputs: Sequence[float]) -> tuple[float, ...]:
        """Input pixel coordinates to native pixel coordinates; padding lands outside the native shape."""
        return tuple((x + 0.5) * n / r - 0.5 for x, n, r in zip(inputs, self.native_shape, self.resized_shape))
