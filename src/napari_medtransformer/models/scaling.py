"""How automatic models bring native intensities into the range they were trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from napari_medtransformer.volumes.intensity import sample_values

Scale = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ZScore:
    """Mean 0 and deviation 1 over the whole volume, its extreme values clipped before: for MR and other free scales.

    low_percent, high_percent: percentiles of the volume's finite values beyond which values are clipped.
    """

    low_percent: float = 0.5
    high_percent: float = 99.5

    def learned(self, data: np.ndarray) -> Scale:
        """The scaling of one volume, (z, y, x): maps any part of it to (1, z, y, x) float32."""
        values = sample_values(data)
        if values.size == 0:
            low = high = mean = 0.0
            deviation = 1.0
        else:
            low, high = (float(p) for p in np.percentile(values, [self.low_percent, self.high_percent]))
            clipped = np.clip(values, low, high)
            mean, deviation = float(clipped.mean()), float(clipped.std())
        # A constant volume has no contrast to scale: it becomes 0.
        divisor = deviation if deviation > 0 else 1.0

        def scale(part: np.ndarray) -> np.ndarray:
            shifted = (np.clip(np.asarray(part, dtype=np.float64), low, high) - mean) / divisor
            return np.nan_to_num(shifted, nan=0.0).astype(np.float32)[None]

        return scale


@dataclass(frozen=True)
class FixedRange:
    """From `low` (0) to `high` (1), clipped: for CT, whose Hounsfield units mean the same everywhere."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a range needs low < high, given {self.low} and {self.high}")

    def learned(self, data: np.ndarray) -> Scale:
        """The scaling of any volume, (z, y, x): maps any part of it to (1, z, y, x) float32."""
        low, width = self.low, self.high - self.low

        def scale(part: np.ndarray) -> np.ndarray:
            shifted = (np.asarray(part, dtype=np.float32) - np.float32(low)) / np.float32(width)
            return np.nan_to_num(np.clip(shifted, 0, 1), nan=0.0).astype(np.float32)[None]

        return scale


Scaling = ZScore | FixedRange
