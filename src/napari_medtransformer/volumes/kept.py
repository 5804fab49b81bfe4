"""What was read last of a source, kept within bounds: the neighbours of a slice often lie in what was read for it."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from napari_medtransformer.volumes.lazy import Selection, Source

KEPT_BYTES = 1 << 26
"""Of each source."""

Box = tuple[tuple[int, int], ...]
"""Start and stop along every axis."""


class Kept:
    """A source that reads whole grains of another one and keeps the last of them.

    grain: the extent along every axis of what costs about as much to read as a part of it: the chunks of a Zarr; a few
    columns of a bare file, since for one sagittal slice the whole file passes by, and scrolling asks for the next one.
    """

    def __init__(self, source: Source, grain: tuple[int, ...]) -> None:
        self.source, self.grain = source, grain
        self.shape, self.dtype, self.blocks = source.shape, source.dtype, source.blocks
        self._boxes: OrderedDict[Box, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, (self.source, self.grain)

    def read(self, selection: Selection) -> np.ndarray:
        """As the source's; what would not fit is read as it is asked for, and not kept."""
        box = tuple((one.start, one.stop) for one in selection)
        found = self._find(box)
        if found is None:
            grains = tuple(
                (start // n * n, min(-(-stop // n) * n, length))
                for (start, stop), n, length in zip(box, self.grain, self.shape)
            )
            if math.prod(stop - start for start, stop in grains) * self.dtype.itemsize > KEPT_BYTES:
                return self.source.read(selection)
            found = grains, self.source.read(tuple(slice(start, stop, 1) for start, stop in grains))
            self._keep(*found)
        held, values = found
        return values[
            tuple(slice(one.start - start, one.stop - start, one.step) for one, (start, _) in zip(selection, held))
        ].copy()

    def _find(self, box: Box) -> tuple[Box, np.ndarray] | None:
        with self._lock:
            for held in reversed(self._boxes):
                if all(a <= start and stop <= b for (a, b), (start, stop) in zip(held, box)):
                    self._boxes.move_to_end(held)
                    return held, self._boxes[held]
        return None

    def _keep(self, box: Box, values: np.ndarray) -> None:
        with self._lock:
            self._boxes[box] = values
            while sum(one.nbytes for one in self._boxes.values()) > KEPT_BYTES:
                self._boxes.popitem(last=False)
