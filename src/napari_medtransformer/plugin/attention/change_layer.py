"""What a changed model does to the masks of a slice, as a labels layer: stayed, lost, gained."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QTimer

from napari_medtransformer.plugin.attention.heat_layer import HEAT_NAME
from napari_medtransformer.plugin.attention.pictures import ABOVE, BELOW
from napari_medtransformer.plugin.label_colours import label_colours
from napari_medtransformer.plugin.layer_volume import place_of_slice
from napari_medtransformer.plugin.widgets.layer_choice import HEATMAP_KEY
from napari_medtransformer.plugin.workspace import Workspace

CHANGE_NAME = "without these heads"
STAYED = (0.9, 0.9, 0.9, 0.5)


class ChangeLayer:
    """Keeps one labels layer in a viewer, one slice thick; it comes back if the user deletes it."""

    def __init__(self, viewer: Any) -> None:
        self._viewer = weakref.ref(viewer)
        self.layer: Labels | None = None

    def show(self, workspace: Workspace, labels: np.ndarray, axis: int, index: int) -> None:
        """Show (rows, columns) labels on a slice: 1 stayed, 2 was lost (orange), 3 was gained (blue)."""
        self.remove()
        image = workspace.layer
        place = place_of_slice(image, axis, index)
        data = labels if image.ndim == 2 else np.expand_dims(labels, axis)
        self.layer = Labels(data, name=CHANGE_NAME, opacity=0.7, metadata={HEATMAP_KEY: True}, **place)
        self.layer.colormap = label_colours({1: STAYED, 2: (*ABOVE, 1.0), 3: (*BELOW, 1.0)})
        self.layer.features = {"index": [0, 1, 2, 3], "name": ["", "stayed", "lost", "gained"]}
        self.layer.editable = False
        workspace.add_layer(self.layer, below_prompts=True)
        viewer = self._viewer()
        heat = [viewer.layers.index(layer) for layer in viewer.layers if layer.name == HEAT_NAME]
        if heat:
            viewer.layers.move(viewer.layers.index(self.layer), heat[-1] + 1)

    def remove(self, *, later: bool = False) -> None:
        """Take the layer out of the viewer. later: once the event loop turns, see HeatLayers.remove."""
        layer, self.layer = self.layer, None
        if later:
            QTimer.singleShot(0, partial(self._take_out, layer))
        else:
            self._take_out(layer)

    def _take_out(self, layer: Labels | None) -> None:
        viewer = self._viewer()
        if viewer is not None and layer is not None and layer in viewer.layers:
            viewer.layers.remove(layer)
