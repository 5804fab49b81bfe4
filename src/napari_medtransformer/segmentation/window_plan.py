"""Where the windows of an automatic model lie in a volume and what the network sees of each, one at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.models.base import AutomaticModel
from napari_medtransformer.segmentation.engine import check_model
from napari_medtransformer.segmentation.model_grid import ModelGrid, model_grid
from napari_medtransformer.segmentation.options import SegmentOptions
from napari_medtransformer.segmentation.region import values_within
from napari_medtransformer.segmentation.windows import window_starts
from napari_medtransformer.volumes.volume import Volume


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """The same windows as `segment_steps` runs, for those who look at some of them.

    starts: the place of each among the voxels that windows cover, (z, y, x) on the model's grid. plane: the axis across
    the slices of a 2D model, None for a 3D model.
    """

    model: AutomaticModel
    volume: Volume
    grid: ModelGrid
    starts: tuple[tuple[int, int, int], ...]
    plane: int | None
    scale: Callable[[np.ndarray], np.ndarray]

    def placement(self, start: Sequence[int]) -> InputPlacement:
        """Where a window lies in the volume or, of a 2D model, in its slice."""
        sides = (self.volume.shape, self.grid.shape, self.grid.origin(start), self.grid.window)
        native, resized, origin, window = (self._seen(side) for side in sides)
        return InputPlacement(native, resized, resized).window(origin, window)

    def read(self, start: Sequence[int]) -> Tensor:
        """A window as the network takes it: (1, channels, *window) float32; of a 2D model without the plane's axis."""
        window = self.grid.read(self.volume.data, start, self.scale)
        return torch.from_numpy(window if self.plane is None else window.squeeze(self.plane + 1))[None]

    def _seen(self, sides: Sequence[int]) -> tuple[int, ...]:
        return tuple(n for axis, n in enumerate(sides) if axis != self.plane)


def plan_windows(model: AutomaticModel, volume: Volume, **options: Any) -> WindowPlan:
    """The windows of a volume. options: as for `segment_steps`; overlap, region, window, whole and plane count here.

    Raises UnsupportedModel, InvalidOption.
    """
    chosen = SegmentOptions(**options)
    check_model(model, chosen)
    plane = None if model.card.dimensions == 3 else 0 if chosen.plane == "all" else int(chosen.plane)
    card_size = model.card.input.size
    size = [0] * len(card_size) if chosen.whole else list(chosen.window or card_size)
    spacing: list[float | None] = list(model.card.input.spacing_mm or (None,) * len(size))
    multiple = list(model.window_multiple or (1,) * len(size))
    if plane is not None:
        size.insert(plane, 1)
        spacing.insert(plane, None)
        multiple.insert(plane, 1)
    grid = model_grid(volume.shape, volume.spacing, spacing, size, chosen.region, multiple)
    per_axis = [
        window_starts(n, w, 0.0 if axis == plane else chosen.overlap)
        for axis, (n, w) in enumerate(zip(grid.lengths, grid.window, strict=True))
    ]
    starts = tuple((z, y, x) for z, y, x in itertools.product(*per_axis))
    scale = model.normalisation(values_within(volume.data, chosen.region), volume.modality)
    return WindowPlan(model, volume, grid, starts, plane, scale)
