"""Where a model's input lies in an image: the whole image resized and padded, or a window of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class InputPlacement:
    """The way from native pixels to a model's input pixels, in any number of axes.

    native_shape: the image as read, pixels per axis. resized_shape: the same image at the model's scale.
    input_shape: what the network sees; axes longer than resized_shape are padded at their end.
    origin: of a window that slides over the resized image, the place of its first pixel there, per axis; negative
    where the window begins in padding. None: the input is the whole image.
    An integer coordinate is a pixel's centre in all three.
    """

    native_shape: tuple[int, ...]
    resized_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    origin: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.native_shape), len(self.resized_shape), len(self.input_shape), len(self.start)}
        if len(lengths) != 1:
            raise ValueError(f"shapes of different length: {self}")
        if min(self.native_shape + self.resized_shape + self.input_shape) < 1:
            raise ValueError(f"shapes must be positive: {self}")
        if self.origin is not None:
            sides = zip(self.origin, self.input_shape, self.resized_shape, strict=True)
            if any(o + s <= 0 or o >= r for o, s, r in sides):
                raise ValueError(f"the window lies beside the image: {self}")
            return
        if any(r > s for r, s in zip(self.resized_shape, self.input_shape)):
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

    @property
    def start(self) -> tuple[int, ...]:
        """The place of the input's first pixel in the resized image."""
        return (0,) * len(self.native_shape) if self.origin is None else self.origin

    def window(self, origin: Sequence[int], shape: Sequence[int]) -> InputPlacement:
        """A window of this image at the same scale: `origin` its first pixel in the resized image, `shape` its size.

        Raises ValueError for a window that holds nothing of the image.
        """
        return replace(self, input_shape=tuple(shape), origin=tuple(origin))

    def to_input(self, native: Sequence[float]) -> tuple[float, ...]:
        """Native pixel coordinates to input pixel coordinates."""
        sides = zip(native, self.native_shape, self.resized_shape, self.start, strict=True)
        return tuple((x + 0.5) * r / n - 0.5 - o for x, n, r, o in sides)

    def to_native(self, inputs: Sequence[float]) -> tuple[float, ...]:
        """Input pixel coordinates to native pixel coordinates; padding lands outside the native shape."""
        sides = zip(inputs, self.native_shape, self.resized_shape, self.start, strict=True)
        return tuple((x + o + 0.5) * n / r - 0.5 for x, n, r, o in sides)
