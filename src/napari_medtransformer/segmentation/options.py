"""What may be chosen about an automatic segmentation, checked once."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Literal

from napari_medtransformer.errors import InvalidOption, in_words

Plane = Literal[0, 1, 2, "all"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
WindowWeights = Literal["gaussian", "constant"]
Box = tuple[tuple[int, int, int], tuple[int, int, int]]

_PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class SegmentOptions:
    """How a volume is segmented; every default suits a first try.

    overlap: share of a window that its neighbour covers as well, in [0, 1); more is smoother and slower.
    weights: how windows that overlap are averaged; "gaussian" trusts their centres.
    mirror: axes (0 z, 1 y, 2 x) along which windows are also shown mirrored, all combinations, logits averaged; only
    those that the model was trained with. Left and right look alike to a mirrored model: leave x out where labels name
    a side.
    region: (start, stop) in (z, y, x) voxels, half-open; nothing outside is labelled. None: the whole volume.
    window: voxels per axis instead of the card's, where the network takes other sizes. whole: one window as large as
    the volume. batch: windows per call; None chooses by memory.
    plane: which slices a 2D model sees, by the axis across them: 0 axial, 1 coronal, 2 sagittal, "all" for a vote.
    dtype: of matrix products and convolutions; "auto" is float32 on a CPU and half precision on a GPU.
    skip_air: leave out windows of air where the card says what air is. uncertainty: also return entropy and, with
    mirrored passes, their disagreement. compile: run the network through torch.compile.
    Raises InvalidOption.
    """

    overlap: float = 0.25
    weights: WindowWeights = "gaussian"
    mirror: tuple[int, ...] = ()
    region: Box | None = None
    window: tuple[int, ...] | None = None
    whole: bool = False
    batch: int | None = None
    plane: Plane = 0
    dtype: Precision = "auto"
    skip_air: bool = True
    uncertainty: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        self._take_numbers()
        if not 0 <= self.overlap < 1:
            raise InvalidOption(f"an overlap lies in [0, 1), not {self.overlap}; 0.25 is usual, 0.5 smoother.")
        if self.weights not in ("gaussian", "constant"):
            raise InvalidOption(f"windows are weighted 'gaussian' or 'constant', not {self.weights!r}.")
        if len(set(self.mirror)) != len(self.mirror) or not set(self.mirror) <= {0, 1, 2}:
            raise InvalidOption(f"mirrored axes are some of 0 (z), 1 (y) and 2 (x), each once, not {self.mirror}.")
        if self.window is not None and (len(self.window) not in (2, 3) or min(self.window) < 1):
            raise InvalidOption(f"a window has 2 or 3 positive axes, not {self.window}.")
        if self.window is not None and self.whole:
            raise InvalidOption("a window and the whole volume at once were asked for; choose one.")
        if self.batch is not None and self.batch < 1:
            raise InvalidOption(f"a batch holds at least one window, not {self.batch}.")
        if self.plane not in (0, 1, 2, "all"):
            raise InvalidOption(f"a plane is 0, 1, 2 or 'all', not {self.plane!r}.")
        if self.dtype not in _PRECISIONS:
            raise InvalidOption(f"a dtype is one of {', '.join(_PRECISIONS)}, not {self.dtype!r}.")
        if self.region is not None:
            start, stop = self.region
            if len(start) != 3 or len(stop) != 3 or any(a >= b for a, b in zip(start, stop)):
                raise InvalidOption(f"a region is (z, y, x) start and stop, stop beyond start, not {self.region}.")

    def _take_numbers(self) -> None:
        """Shares, axes and sizes from whatever types they come in. Raises InvalidOption for what is no number."""
        try:
            overlap = float(self.overlap)
            mirror = tuple(operator.index(axis) for axis in self.mirror)
            window = None if self.window is None else tuple(operator.index(n) for n in self.window)
            batch = None if self.batch is None else operator.index(self.batch)
            region = None
            if self.region is not None:
                start, stop = (tuple(operator.index(n) for n in corner) for corner in self.region)
                region = (start, stop)
        except (TypeError, ValueError) as error:
            given = in_words((self.overlap, self.mirror, self.window, self.batch, self.region))
            raise InvalidOption(
                f"an overlap is a number; mirror, window, batch and region are whole numbers, not {given}."
            ) from error
        taken = {"overlap": overlap, "mirror": mirror, "window": window, "batch": batch, "region": region}
        for name, value in taken.items():
            object.__setattr__(self, name, value)
