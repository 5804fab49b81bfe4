"""Entropy and mean distance of an answer's heads, found when somebody wants to know them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True, eq=False)
class EntropyAndDistance:
    """One number per head, each (heads,) float32: entropy in nats and mean distance in mm, nan where there is none."""

    entropy_nats: np.ndarray
    distance_mm: np.ndarray

    @classmethod
    def of(cls, entropy: Tensor, distance: Tensor) -> EntropyAndDistance:
        return cls(entropy.numpy(), distance.numpy())

    @classmethod
    def unknown(cls, heads: int) -> EntropyAndDistance:
        """Where the values are shares of no row."""
        nowhere = np.full(heads, np.nan, np.float32)
        return cls(nowhere, nowhere)


class HeadNumbers:
    """Finds them when they are first asked for: a map that follows the cursor is drawn without.

    What `find` needs is let go once it is done.
    """

    def __init__(self, find: Callable[[], EntropyAndDistance]) -> None:
        self._state: Callable[[], EntropyAndDistance] | EntropyAndDistance = find

    def found(self) -> EntropyAndDistance:
        """The numbers. Two threads that ask at once may both look for them, and find the same."""
        state = self._state
        if not isinstance(state, EntropyAndDistance):
            state = self._state = state()
        return state
