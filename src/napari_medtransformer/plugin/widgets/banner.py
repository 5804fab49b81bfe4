"""A framed line at the top of a dock that asks for a decision, with the buttons that take it."""

from __future__ import annotations

from qtpy.QtWidgets import QFrame, QToolButton, QVBoxLayout

from napari_medtransformer.plugin.widgets.style import AMBER, QuietLabel, row, warning_style
from napari_medtransformer.plugin.widgets.theming import dress


class Banner(QFrame):
    """Empty until `say`; hidden by an empty text."""

    def __init__(self, *buttons: QToolButton) -> None:
        super().__init__()
        self.setObjectName("medtBanner")
        self.setStyleSheet(f"QFrame#medtBanner {{ border: 1px solid {AMBER}; border-radius: 5px; }}")
        self.text = QuietLabel()
        dress(self.text, warning_style)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(9, 6, 9, 6)
        layout.addWidget(self.text)
        layout.addLayout(row(*buttons))
        self.hide()

    def say(self, text: str) -> None:
        """Ask, or be gone."""
        self.text.setText(text)
        self.setVisible(bool(text))
