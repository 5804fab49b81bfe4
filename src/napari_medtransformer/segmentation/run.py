"""One attempt at a volume with one size of windows on one device."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.errors import OutOfMemory
from napari_medtransformer.models.base import AutomaticModel
from napari_medtransformer.models.memory import device_memory
from napari_medtransformer.progress import Partial, Progress
from napari_medtransformer.segmentation.forward import Forward, bytes_per_window, precision, windows_at_once
from napari_medtransformer.segmentation.landing import DirectLanding, Outcome, ResampledLanding
from napari_medtransformer.segmentation.model_grid import ModelGrid, model_grid
from napari_medtransformer.segmentation.options import Box, SegmentOptions
from napari_medtransformer.segmentation.overlap_add import OverlapAdd
from napari_medtransformer.segmentation.region import values_within
from napari_medtransformer.segmentation.windows import weight_map, window_starts
from napari_medtransformer.volumes.volume import Volume

# How often somebody who waits for a window is given the chance to leave.
_BEAT_SECONDS = 0.25

Places = list[tuple[tuple[int, int, int], int | None]]


@dataclass(frozen=True, eq=False)
class FinishedSlab:
    """A part of the labels that will not change. start, stop: (z, y, x), half-open, on the volume's grid."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    labels: np.ndarray


class Run:
    """One attempt with one size of windows on one device."""

    def __init__(
        self, model: AutomaticModel, volume: Volume, chosen: SegmentOptions, window: tuple[int, ...], outcome: Outcome
    ) -> None:
        self._model, self._volume, self._chosen = model, volume, chosen
        self._plane = _plane(model, chosen)
        self._grid = _grid(model, volume, chosen, window, self._plane)
        grid = self._grid
        # Slowest along the longest axis: what is kept between rows of windows is then least.
        a, b, c = sorted(range(3), key=lambda axis: -grid.lengths[axis])
        self._order = (a, b, c)
        self._starts = [
            window_starts(n, w, 0.0 if axis == self._plane else chosen.overlap)
            for axis, (n, w) in enumerate(zip(grid.lengths, grid.window))
        ]
        self._outcome = outcome
        self.windows = math.prod(len(axis) for axis in self._starts)
        self.skipped = 0
        self._check_memory()
        # What lies around a region has no say: a whole head would darken the crop that a model was trained on.
        self._scale = model.normalisation(values_within(volume.data, chosen.region), volume.modality)

    def steps(self, messages: list[str]) -> Iterator[Progress | Partial[FinishedSlab]]:
        """All windows; the outcome is filled."""
        model, chosen, grid, order = self._model, self._chosen, self._grid, self._order
        landing_type = DirectLanding if grid.is_same else ResampledLanding
        landing = landing_type(grid, order, self._outcome)
        disagreement = self._outcome.disagreement is not None
        sums = OverlapAdd(
            len(self._outcome.values) + disagreement + 1,
            [self._starts[axis] for axis in order],
            [grid.window[axis] for axis in order],
            model.device,
        )
        batch = 1 if model.on_encode else chosen.batch or windows_at_once(model, grid.window)
        forward = Forward(
            model,
            weight_map(grid.window, chosen.weights),
            batch=batch,
            dtype=precision(chosen.dtype, model.device),
            plane=self._plane,
            mirror=chosen.mirror,
            disagreement=disagreement,
            compiled=chosen.compile,
        )
        done = 0
        with forward:
            batches = self._batches(forward)
            current = next(batches, None)
            while current is not None:
                places, windows = current
                future = None if windows is None else forward.start(windows)
                # the next windows are read while the network works on these
                current = next(batches, None) if future is not None and not model.on_encode else None
                if future is not None:
                    yield from self._wait(future, done)
                while forward.said:
                    yield said(messages, forward.said.pop(0), done, self.windows)
                for box in self._land(landing, sums, places, None if future is None else future.result()):
                    yield Partial(self._slab(*box))
                future = None  # it holds a window's logits, which the next pass has better use for
                done += len(places)
                yield Progress(done, self.windows, f"window {done} of {self.windows}")
                if current is None:
                    current = next(batches, None)
        if self.skipped:
            message = f"{self.skipped} of {self.windows} windows hold nothing but air and were left out."
            yield said(messages, message, done, self.windows, warned=False)

    def _land(
        self, landing: DirectLanding | ResampledLanding, sums: OverlapAdd, places: Places, found: Tensor | None
    ) -> Iterator[Box]:
        """Add windows to the sums. Yields the bounds of what is complete by then, axes in order of work."""
        for place, row in places:
            with torch.inference_mode():  # never across a yield: the mode belongs to the thread
                block = self._air(sums) if row is None or found is None else found[row]
                finished = landing.add(sums.add(place, block.permute(0, *(axis + 1 for axis in self._order))))
                box = next(finished, None)
            while box is not None:
                yield box
                with torch.inference_mode():
                    box = next(finished, None)

    def _check_memory(self) -> None:
        """Raise OutOfMemory if a window larger than the card's cannot fit, by estimate.

        Systems that promise memory freely would end the process instead of refusing.
        """
        window = self._grid.window
        if math.prod(window) <= math.prod(self._model.card.input.size):
            return
        needed, free = bytes_per_window(self._model, window), device_memory(self._model.device).free
        if needed > free:
            raise OutOfMemory(
                f"a window of {by(window)} needs about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free."
            )

    def _batches(self, forward: Forward) -> Iterator[tuple[Places, Tensor | None]]:
        """Windows in order, some at a time: their places with the row of the batch each is in, and the batch.

        A place of air has no row; a batch of nothing but air is None.
        """
        places: Places = []
        windows: list[np.ndarray] = []
        air = self._model.card.air_below if self._chosen.skip_air else None
        for place in itertools.product(*(range(len(self._starts[axis])) for axis in self._order)):
            start = [0, 0, 0]
            for axis, n in zip(self._order, place):
                start[axis] = self._starts[axis][n]
            i, j, k = place
            if air is not None and self._volume.data[self._grid.native_part(start)].max() < air:
                self.skipped += 1
                places.append(((i, j, k), None))
                if not windows:
                    yield places, None
                    places = []
                continue
            places.append(((i, j, k), len(windows)))
            self._announce(start)
            windows.append(self._grid.read(self._volume.data, start, self._scale))
            if len(windows) >= forward.batch:
                yield places, torch.from_numpy(np.stack(windows))
                places, windows = [], []
        if places:
            yield places, torch.from_numpy(np.stack(windows)) if windows else None

    def _announce(self, start: list[int]) -> None:
        """Tell those who listen where the next window lies."""
        if not self._model.on_encode:
            return
        whole = InputPlacement(self._volume.shape, self._grid.shape, self._grid.shape)
        placement = whole.window(self._grid.origin(start), self._grid.window)
        for listener in self._model.on_encode:
            listener(placement)

    def _wait(self, future: Future[Tensor], done: int) -> Iterator[Progress]:
        """Until the network is through, yielding often enough to be left at any time."""
        message = f"window {done + 1} of {self.windows}"
        if self._chosen.compile and done == 0:
            message = "compiling for the first window, which may take minutes"
        while True:
            try:
                future.exception(timeout=_BEAT_SECONDS)
                return
            except NotYet:
                yield Progress(done, self.windows, message)

    def _air(self, sums: OverlapAdd) -> Tensor:
        """What a window of air adds: nothing. (values + weights, *window)."""
        return torch.zeros((sums.channels, *self._grid.window), device=self._model.device)

    def _slab(self, start: tuple[int, int, int], stop: tuple[int, int, int]) -> FinishedSlab:
        """What is done now, from bounds whose axes are in order of work."""
        low, high = [0, 0, 0], [0, 0, 0]
        for axis, a, b in zip(self._order, start, stop):
            low[axis], high[axis] = a, b
        (z0, y0, x0), (z1, y1, x1) = low, high
        part = self._outcome.labels[z0:z1, y0:y1, x0:x1].copy()
        return FinishedSlab((z0, y0, x0), (z1, y1, x1), part)


def _plane(model: AutomaticModel, chosen: SegmentOptions) -> int | None:
    """The axis across a 2D model's slices, None for a 3D model."""
    if model.card.dimensions == 3 or chosen.plane == "all":
        return None
    return int(chosen.plane)


def _grid(
    model: AutomaticModel, volume: Volume, chosen: SegmentOptions, window: tuple[int, ...], plane: int | None
) -> ModelGrid:
    """The model's grid over the volume, slices as windows of one voxel's thickness."""
    size, spacing = list(window), list(model.card.input.spacing_mm or (None,) * len(window))
    multiple = list(model.window_multiple or (1,) * len(window))
    if plane is not None:
        size.insert(plane, 1)
        spacing.insert(plane, None)
        multiple.insert(plane, 1)
    return model_grid(volume.shape, volume.spacing, spacing, size, chosen.region, multiple)


def said(messages: list[str], message: str, done: int, total: int | None, *, warned: bool = True) -> Progress:
    """Keep a message, warn of it, and return the Progress that carries it."""
    messages.append(message)
    if warned:
        warnings.warn(message, stacklevel=3)
    return Progress(done, total, message)


def by(shape: tuple[int, ...]) -> str:
    """A shape in words."""
    return " × ".join(map(str, shape))
