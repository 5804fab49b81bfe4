"""The window through which the model sees the image: the one on screen, unless the user fixed another."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from napari.layers import Image
from qtpy.QtCore import QObject, QTimer, Signal

from napari_medtransformer.plugin.notify import reported
from napari_medtransformer.plugin.volume.cursor_readout import volume_on
from napari_medtransformer.volumes import Volume

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController

SETTLE_DELAY_MS = 300
"""A window counts as chosen once the slider has rested this long: each costs encoding the slice anew."""

Limits = tuple[float, float]


class ModelWindow(QObject):
    """Keeps a session's window at the contrast limits of its layer. Belongs to a controller, which it holds weakly.

    A changed window counts from the next prompt on: masks that were found through another one stay as they are, or a
    look at the lungs would undo the liver.
    """

    changed = Signal()  # as_displayed, or what the model sees

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = weakref.ref(controller)
        self.as_displayed = True
        self._fixed: weakref.WeakKeyDictionary[Image, Limits] = weakref.WeakKeyDictionary()
        self._untouched: weakref.WeakKeyDictionary[Image, Limits] = weakref.WeakKeyDictionary()
        self._followed: weakref.WeakSet[Image] = weakref.WeakSet()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(SETTLE_DELAY_MS)
        self._timer.timeout.connect(self.settle)

    def close(self) -> None:
        """Follow no layer any more."""
        self._timer.stop()
        for layer in self._followed:
            layer.events.contrast_limits.disconnect(self._on_limits)
        self._followed.clear()

    def of(self, layer: Image, volume: Volume) -> Limits:
        """(low, high) for the model.

        Limits that napari chose by itself, from the lowest to the highest value, are nobody's window: for a layer that
        is none of our readers' and as it was opened, it is the volume's own.
        """
        if not self.as_displayed and layer in self._fixed:
            return self._fixed[layer]
        limits = _limits(layer)
        return (volume.window.low, volume.window.high) if self._untouched.get(layer) == limits else limits

    def follow(self, layer: Image) -> None:
        """Take notice of a layer's contrast limits from now on."""
        if layer in self._followed:
            return
        if volume_on(layer) is None:
            self._untouched[layer] = _limits(layer)
        self._followed.add(layer)
        layer.events.contrast_limits.connect(self._on_limits)

    def set_as_displayed(self, on: bool) -> None:
        """Follow the screen, or keep for the model what it sees now, whatever is looked at."""
        if on == self.as_displayed:
            return
        workspace = self._controller().workspace
        if not on and workspace is not None:
            self._fixed[workspace.layer] = self.of(workspace.layer, workspace.volume)
        self.as_displayed = on
        if on:
            self._fixed.clear()
        self.settle()
        self.changed.emit()

    def show(self, window: Limits) -> None:
        """Bring a window to the screen, or where another is fixed to the model: that of a session from a file."""
        workspace = self._controller().workspace
        if workspace is None:
            return
        if self.as_displayed:
            workspace.layer.contrast_limits = window
        else:
            self._fixed[workspace.layer] = window
        self.changed.emit()

    def settle(self) -> None:
        """Let the current session's model see the window that it is to see."""
        self._timer.stop()
        controller = self._controller()
        workspace = None if controller is None else controller.workspace
        if workspace is None or workspace.session is None:
            return
        low, high = self.of(workspace.layer, workspace.volume)
        session = workspace.session
        tolerance = 1e-6 * (high - low)
        if all(abs(a - b) <= tolerance for a, b in zip(session.window, (low, high))):
            return
        with reported():
            session.set_window((low, high))
        controller.view.encode_soon()
        self.changed.emit()

    def _on_limits(self, event: object = None) -> None:
        if self.as_displayed:
            self._timer.start()


def _limits(layer: Image) -> Limits:
    low, high = (float(limit) for limit in layer.contrast_limits)
    return low, high
