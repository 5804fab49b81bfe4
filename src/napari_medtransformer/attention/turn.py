"""The way between an image's axes and a network that sees them in another order or running backwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Turn:
    """How a network sees the axes of an image, 2D (y, x) or 3D (z, y, x).

    axes: of each of the network's axes, which of the image's it is. backward: of each of the image's axes, whether the
    network sees it run the other way.
    """

    axes: tuple[int, ...]
    backward: tuple[bool, ...]

    def __post_init__(self) -> None:
        if sorted(self.axes) != list(range(len(self.axes))) or len(self.backward) != len(self.axes):
            raise ValueError(f"a turn names every axis once, and says of each whether it runs backward: {self}")

    def to_network(self, array: Tensor) -> Tensor:
        """(..., *image axes) as the network sees it, (..., *network axes)."""
        first = array.ndim - len(self.axes)
        return array.flip(self._flipped(first)).permute(*range(first), *(first + axis for axis in self.axes))

    def to_image(self, array: Tensor) -> Tensor:
        """(..., *network axes) as it lies in the image, (..., *image axes): the inverse of `to_network`."""
        first = array.ndim - len(self.axes)
        places = (first + self.axes.index(axis) for axis in range(len(self.axes)))
        return array.permute(*range(first), *places).flip(self._flipped(first))

    def sizes_to_network(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """A number per axis of the image as one per axis of the network."""
        return tuple(sizes[axis] for axis in self.axes)

    def sizes_to_image(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """A number per axis of the network as one per axis of the image."""
        return tuple(sizes[self.axes.index(axis)] for axis in range(len(self.axes)))

    def without(self, axis: int) -> Turn:
        """The turn of a slice across one of the image's axes."""
        kept = [a for a in self.axes if a != axis]
        backward = tuple(b for a, b in enumerate(self.backward) if a != axis)
        return Turn(tuple(a - (a > axis) for a in kept), backward)

    def _flipped(self, first: int) -> list[int]:
        return [first + axis for axis, backward in enumerate(self.backward) if backward]
