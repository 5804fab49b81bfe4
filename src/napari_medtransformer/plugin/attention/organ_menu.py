"""Which organs the Attention dock offers, which asks, which is looked at, and where they lie."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from napari_medtransformer.plugin.attention.organs import Organ, labels_of, organs_on_slice

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController


class OrgansInView:
    """The labelled structures on a slice, kept until labels change. target: the one that is looked at. asking: asks."""

    def __init__(self, controller: SessionController) -> None:
        self._controller = weakref.ref(controller)
        self.target: Organ | None = None
        self.asking: Organ | None = None
        self.clicks = 0  # labels may have been painted between them
        self._known: tuple[Any, list[Organ]] = (None, [])

    def on_slice(self, where: tuple[int, int] | None) -> list[Organ]:
        """Every labelled structure on a slice (axis, index); None for the one on screen."""
        controller = self._controller()
        where = where or controller.view.shown_slice()
        workspace = controller.workspace
        if where is None or workspace is None:
            return []
        layers = labels_of(controller.viewer, workspace.layer)
        revision = None if controller.session is None else controller.session.revision
        key = (where, revision, self.clicks, tuple((id(layer), layer.name) for layer in layers))
        if self._known[0] != key:
            self._known = key, organs_on_slice(controller.viewer, workspace.layer, workspace.masks, *where)
            present = {organ.key: organ for organ in self._known[1]}  # they may have new names
            self.target = self.target and present.get(self.target.key, self.target)
            self.asking = self.asking and present.get(self.asking.key, self.asking)
        return self._known[1]

    def follow(self, where: tuple[int, int] | None) -> None:
        """Keep the choice of organs to what is on this slice; without one, the current object is looked at."""
        organs = {organ.key: organ for organ in self.on_slice(where)}
        if self.target is None or self.target.key not in organs:
            workspace = self._controller().workspace
            own = [o for o in organs.values() if o.layer() is workspace.masks and o.value == workspace.current_object]
            self.target = next(iter(own or organs.values()), None)

    def forget(self) -> None:
        """Another volume or model: nothing is chosen."""
        self.asking = self.target = None

    @staticmethod
    def mask(organ: Organ | None, where: tuple[int, int] | None, *, solid: bool = False) -> np.ndarray | None:
        """bool: an organ on a slice (rows, columns) or, `solid`, in the volume (z, y, x); None where it is nowhere."""
        if organ is None or where is None:
            return None
        mask = solid_mask(organ) if solid else organ.mask(*where)
        return mask if mask.any() else None


def solid_mask(organ: Organ) -> np.ndarray:
    """(z, y, x) bool: an organ in the whole volume; empty once its layer is gone."""
    layer = organ.layer()
    if layer is None:
        return np.zeros((1, 1, 1), bool)
    return np.asarray(labels_in_volume(layer, organ.frame) == organ.value)


def labels_in_volume(layer: Labels, frame: int = 0) -> np.ndarray:
    """(z, y, x) labels of a layer. frame: which volume of a layer (frame, z, y, x)."""
    data = layer.data[0] if layer.multiscale else layer.data
    data = data[frame] if data.ndim == 4 else data
    return np.asarray(data if data.ndim == 3 else data[None])
