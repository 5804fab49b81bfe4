"""The layers of an automatic run: labels with names and colours, and heat where the model is unsure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from napari.layers import Image, Labels

from napari_medtransformer.plugin.label_colours import LabelColours, label_colours
from napari_medtransformer.plugin.layer_volume import labels_of_layer, same_place
from napari_medtransformer.plugin.layers import VOLUME_KEY
from napari_medtransformer.plugin.widgets.layer_choice import HEATMAP_KEY
from napari_medtransformer.volumes import Volume
from napari_medtransformer.volumes.label_table import Label

OPACITY = 0.55
UNCERTAINTY_OPACITY = 0.75


def structures_layer(labels: np.ndarray, image: Image, volume: Volume, name: str, names: Iterable[Label]) -> Labels:
    """A layer of labels (z, y, x) of an image's volume, with the structures' names and colours."""
    known = list(names)
    return Labels(
        labels_of_layer(labels, image),
        name=name,
        opacity=OPACITY,
        colormap=colours_of(known),
        features={"index": [0, *(x.number for x in known)], "name": ["background", *(x.name for x in known)]},
        metadata={VOLUME_KEY: volume},
        **same_place(image),
    )


def colours_of(names: Iterable[Label], hidden: Iterable[int] = ()) -> LabelColours:
    """The structures' colours; the hidden ones and all other labels are transparent."""
    without = set(hidden)
    return label_colours({label.number: (*label.color, 0.0 if label.number in without else 1.0) for label in names})


def heat_layer(values: np.ndarray, image: Image, volume: Volume, name: str, highest: float) -> Image:
    """A layer of values (z, y, x) of an image's volume, bright where they near `highest`."""
    return Image(
        labels_of_layer(values, image),
        name=name,
        colormap="inferno",
        blending="additive",
        contrast_limits=(0.0, highest),
        opacity=UNCERTAINTY_OPACITY,
        metadata={HEATMAP_KEY: True, VOLUME_KEY: volume},
        **same_place(image),
    )
