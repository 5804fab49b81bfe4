"""Intensity windows: what part of an image's values is shown on screen and given to a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from napari_medtransformer.errors import InvalidOption, UnsupportedVolume, in_words
from napari_medtransformer.given import one_of, reals, text
from napari_medtransformer.volumes.lazy import lazy_of
from napari_medtransformer.volumes.numbers import numbers

Modality = Literal["CT", "MR", "unknown"]

# At most this many values are looked at for statistics, so that a mapped volume of gigabytes opens at once.
_SAMPLE_SIZE = 500_000
_SAMPLE_PLANES = 48
# Hounsfield bands, Hounsfield 1973 and any CT textbook: air is -1000 by definition, scanners pad with -1024 or less.
_AIR_HU = (-1100, -850)
_PADDING_HU = -1500
_FAT_HU = (-150, -30)
_SOFT_TISSUE_HU = (-20, 200)
# Dense metal on an extended scale stays below this (12 bits and a slope of 16).
_HIGHEST_HU = 65_536


@dataclass(frozen=True)
class Window:
    """Values from `low` (shown black, 0) to `high` (shown white, 1), in the image's own units (HU for CT).

    Raises InvalidOption unless they are finite numbers, low below high.
    """

    low: float
    high: float
    name: str = ""

    def __post_init__(self) -> None:
        low, high = reals((self.low, self.high), 2, "a window's low and high")
        text(self.name, "a window's name")
        if not low < high:
            raise InvalidOption(f"a window needs low < high, not ({low:g}, {high:g}).")

    @classmethod
    def from_level_width(cls, level: float, width: float, name: str = "") -> Window:
        """Of a level (centre) and a width, as radiologists and DICOM state it. Raises InvalidOption."""
        level, width = reals((level, width), 2, "a window's level and width")
        return cls(level - width / 2, level + width / 2, name)

    @property
    def level(self) -> float:
        """The value in the middle."""
        return (self.low + self.high) / 2

    @property
    def width(self) -> float:
        """From black to white."""
        return self.high - self.low


# Level and width in HU as tabulated at radiopaedia.org/articles/windowing-ct (soft tissue: abdomen, lung, bone,
# brain, liver); soft tissue is also the window that MedSAM was trained with (Ma et al. 2024).
CT_PRESETS: tuple[Window, ...] = (
    Window.from_level_width(40, 400, "soft tissue"),
    Window.from_level_width(-600, 1500, "lung"),
    Window.from_level_width(400, 1800, "bone"),
    Window.from_level_width(40, 80, "brain"),
    Window.from_level_width(60, 160, "liver"),
)


def preset(name: str) -> Window:
    """The CT preset of that name. Raises InvalidOption that lists the names."""
    for window in CT_PRESETS:
        if window.name == name:
            return window
    there = ", ".join(window.name for window in CT_PRESETS)
    raise InvalidOption(f"no CT window is called {in_words(name)}; there are {there}.")


def guess_modality(image: np.ndarray) -> Modality:
    """'CT' if the values are distributed as Hounsfield units are, otherwise 'unknown'. image: any shape, native units.

    Counts, on a sample: soft tissue about water, together with either air (or the scanner's padding) or fat below it.
    An MR has neither, its values being positive or scaled to a few units.
    """
    values = sample_values(image)
    if values.size == 0 or values.max() > _HIGHEST_HU:
        return "unknown"
    inside = values[values > _PADDING_HU]
    if inside.size == 0:
        return "unknown"
    padding = 1 - inside.size / values.size
    air = _share(inside, *_AIR_HU)
    soft_tissue = _share(inside, *_SOFT_TISSUE_HU)
    fat = _share(inside, *_FAT_HU)
    whole_body = soft_tissue > 0.02 and (air > 0.01 or (padding > 0.01 and fat > 0.005))
    crop_without_air = soft_tissue > 0.3 and fat > 0.01
    return "CT" if whole_body or crop_without_air else "unknown"


def robust_window(image: np.ndarray, *, low_percent: float = 0.5, high_percent: float = 99.5) -> Window:
    """The window between two percentiles of the values above the lowest one (which is background in most MRs).

    image: any shape. A constant image gets a window one unit wide. Percentiles as in MedSAM (Ma et al. 2024).
    """
    values = sample_values(image)
    if values.size == 0:
        return Window(0.0, 1.0, "constant")
    lowest = float(values.min())
    foreground = values[values > lowest]
    if foreground.size == 0:
        # Beyond 2**53 one unit is no step any more.
        return Window(lowest, lowest + max(1.0, abs(lowest) * 1e-6), "constant")
    low, high = (float(p) for p in np.percentile(foreground, [low_percent, high_percent]))
    if high <= low:
        low, high = lowest, float(values.max())
    return Window(low, high, f"{low_percent:g}–{high_percent:g} %")


def default_window(image: np.ndarray, modality: Modality | None = None) -> Window:
    """The window an image is shown with unless somebody asks for another. image: any shape, native units.

    CT: the soft tissue preset. Anything else: robust percentiles. modality None: guessed from the values.
    Raises UnsupportedVolume for what is no array of numbers, InvalidOption for another modality.
    """
    if lazy_of(image) is None:
        image = numbers(image, "the image")
    if modality is None:
        modality = guess_modality(image)
    one_of(modality, get_args(Modality), "a modality")
    return CT_PRESETS[0] if modality == "CT" else robust_window(image)


def apply_window(image: np.ndarray, window: Window | tuple[float, float]) -> np.ndarray:
    """`image` as float32 in [0, 1]: 0 at the window's low end and below, 1 at its high end and above. NaN becomes 0.

    image: any shape. Raises UnsupportedVolume for what is no array of numbers, InvalidOption for what is no window.
    """
    given = (window.low, window.high) if isinstance(window, Window) else window
    low, high = reals(given, 2, "a window's low and high")
    if not low < high:
        raise InvalidOption(f"a window needs low < high, not ({low:g}, {high:g}).")
    image = numbers(image, "the image")
    if image.ndim == 0:
        raise UnsupportedVolume(f"the image is an array, not a single number {in_words(image.item())}.")
    if image.dtype.kind != "f" or image.dtype.itemsize < 4:
        image = image.astype(np.float32)
    # Clipped first: the difference of two values at the ends of their type would overflow.
    shown = ((np.clip(image, low, high) - low) / (high - low)).astype(np.float32, copy=False)
    return np.clip(np.nan_to_num(shown, copy=False, nan=0.0), 0.0, 1.0)


def sample_values(image: np.ndarray) -> np.ndarray:
    """Finite values of `image` on a regular grid, about _SAMPLE_SIZE at most, as a flat float64 array.

    A few planes across the axis that is slowest in memory, thinned in themselves: of a mapped file of gigabytes only
    those planes are read. Of a LazyArray a few blocks are.
    """
    if image.size == 0:
        return np.empty(0)
    lazy = lazy_of(image)
    if lazy is not None:
        image = lazy.sample(_SAMPLE_SIZE)
    elif image.size > _SAMPLE_SIZE:
        slowest = int(np.argmax(np.abs(image.strides)))
        planes = min(image.shape[slowest], _SAMPLE_PLANES)
        excess = image.size / image.shape[slowest] * planes / _SAMPLE_SIZE
        step = max(1, math.ceil(excess ** (1 / max(1, image.ndim - 1))))
        index: list[slice | np.ndarray] = [slice(min(step // 2, n - 1), None, step) for n in image.shape]
        index[slowest] = np.unique(np.linspace(0, image.shape[slowest] - 1, planes).astype(int))
        image = image[tuple(index)]
    values = np.asarray(image, dtype=np.float64).ravel()
    return values[np.isfinite(values)]


def _share(values: np.ndarray, low: float, high: float) -> float:
    """The share of values in [low, high]."""
    return float(np.count_nonzero((values >= low) & (values <= high)) / values.size)
