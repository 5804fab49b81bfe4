"""A combo box of the viewer's layers of one kind, which follows the layer list."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Layer

from napari_medtransformer.plugin.layers import VOLUME_KEY
from napari_medtransformer.plugin.widgets.choices import Choice, letting_go

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController

HEATMAP_KEY = "medt_heatmap"
"""Marks a layer that this plugin drew, so that it is not offered as an image to work on."""


def _fitness(layer: Layer) -> tuple[bool, ...]:
    """How well a layer suits as the one to begin with: grey, seen, and read by this plugin."""
    return not getattr(layer, "rgb", False), layer.visible, VOLUME_KEY in layer.metadata


class LayerChoice(Choice):
    """Shows the image layers; choosing one makes it the controller's and the one seen; a first is chosen by itself."""

    def __init__(self, kind: type[Layer] = Image) -> None:
        super().__init__(letters=8)
        self._kind = kind
        self.setPlaceholderText("no image open")
        self._layers: list[weakref.ref[Layer]] = []
        self.activated.connect(self._on_chosen)

    def follow(self, viewer: Any, controller: SessionController) -> None:
        """Keep in step with the viewer's layers and the controller's choice."""
        self._viewer, self._controller = weakref.ref(viewer), controller
        events = viewer.layers.events
        events.inserted.connect(self._on_layers)
        events.removed.connect(self._on_layers)
        events.reordered.connect(self._on_layers)
        controller.layer_changed.connect(self._show_choice)
        self.destroyed.connect(letting_go(viewer.layers, ("inserted", "removed", "reordered"), self._on_layers))
        self._on_layers()

    def _on_layers(self, event: Any = None) -> None:
        viewer = self._viewer()
        if viewer is None:
            return
        candidates = [x for x in viewer.layers if isinstance(x, self._kind) and HEATMAP_KEY not in x.metadata]
        self._layers = [weakref.ref(layer) for layer in candidates]
        self.clear()
        for layer in candidates:
            self.addItem(layer.name)
            layer.events.name.connect(self._on_renamed)
        if self._controller.layer not in candidates:
            found = max(reversed(candidates), key=_fitness, default=None)
            # One that was refused is not told again each time that a layer comes or goes.
            if found is None or found is not self._controller.refused:
                self._controller.set_layer(found)
        self._show_choice()

    def _on_renamed(self, event: Any = None) -> None:
        for place, reference in enumerate(self._layers):
            layer = reference()
            if layer is not None:
                self.setItemText(place, layer.name)

    def _on_chosen(self, place: int) -> None:
        layer = self._layers[place]()
        if layer is not None:
            self._controller.set_layer(layer)
            self._controller.in_front.bring()

    def _show_choice(self) -> None:
        layers = [reference() for reference in self._layers]
        chosen = self._controller.layer
        self.setCurrentIndex(layers.index(chosen) if chosen in layers else -1)
