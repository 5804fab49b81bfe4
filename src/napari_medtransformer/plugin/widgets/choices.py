"""What several docks are built of: choices that are kept, buttons that say why not, listeners that are let go."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from qtpy.QtWidgets import QComboBox, QSizePolicy, QToolButton

from napari_medtransformer.plugin.widgets.style import enable


def choice(tooltip: str) -> QComboBox:
    """An empty combo box that takes the width there is, and widens no dock."""
    combo = QComboBox()
    combo.setToolTip(tooltip)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    combo.setMinimumContentsLength(6)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    return combo


def offer(combo: QComboBox, items: Sequence[tuple[str, Any]], placeholder: str = "") -> None:
    """Offer items, (text, data) each, and keep the choice if it is still among them. placeholder: shown without any."""
    chosen = combo.currentText()
    combo.clear()
    for text, data in items:
        combo.addItem(text, data)
    combo.setPlaceholderText(placeholder)
    combo.setCurrentIndex(max(combo.findText(chosen), 0) if items else -1)
    combo.setEnabled(bool(items))


def allow(button: QToolButton, tip: str, obstacle: str) -> None:
    """Enable a button unless something is in its way; its tooltip then says what."""
    enable(button, not obstacle, tip, obstacle)


def letting_go(source: Any, events: Iterable[str], callback: Callable[..., Any]) -> Callable[[], None]:
    """A function that takes `callback` off events of a layer or a layer list, if that is still there.

    events: their names. For a widget's `destroyed`.
    """
    known, names = weakref.ref(source), tuple(events)

    def let_go() -> None:
        present = known()
        if present is not None:
            for name in names:
                getattr(present.events, name).disconnect(callback)

    return let_go
