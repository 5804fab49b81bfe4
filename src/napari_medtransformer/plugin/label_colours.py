"""Colours of labels by number, as napari's own, without its pause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap


class LabelColours(DirectLabelColormap):
    """Colours by number. napari's own class looks each of 65,536 labels up in Python whenever a colour changes."""

    def _map_without_cache(self, values: np.ndarray) -> np.ndarray:
        mapped = np.empty((*values.shape, 4), np.float32)
        mapped[:] = self.default_color
        for label, colour in self.color_dict.items():
            if label is not None:
                mapped[values == label] = colour
        return mapped


def label_colours(colours: Mapping[int, Any]) -> LabelColours:
    """Colours of these labels, as names, hex or RGBA; background and all other labels are transparent."""
    return LabelColours(color_dict={None: "transparent", 0: "transparent", **colours})
