"""Unsaved work of an earlier session, offered where the user looks first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFrame, QVBoxLayout

from napari_medtransformer.plugin.widgets.style import AMBER, quiet_label, row, tool_button, warning_style
from napari_medtransformer.plugin.widgets.theming import dress

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController


class RecoveryBanner(QFrame):
    """Seen only while there is something to recover."""

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = controller
        self.setObjectName("medtRecovery")
        self.setStyleSheet(f"QFrame#medtRecovery {{ border: 1px solid {AMBER}; border-radius: 5px; }}")
        self.text = quiet_label()
        dress(self.text, warning_style)
        self.restore = tool_button(None, "", text="Restore")
        self.later = tool_button(None, "Offer it again at the next start", text="Later")
        self.discard = tool_button(None, "Throw it away", text="Discard")
        recovery = controller.recovery
        self.restore.clicked.connect(lambda: recovery.restore(recovery.offers[0]))
        self.later.clicked.connect(lambda: recovery.put_off(recovery.offers[0]))
        self.discard.clicked.connect(lambda: recovery.discard(recovery.offers[0]))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(9, 6, 9, 6)
        layout.addWidget(self.text)
        layout.addLayout(row(self.restore, self.later, self.discard))
        recovery.changed.connect(self.refresh)
        controller.layer_changed.connect(recovery.look)
        controller.models.loaded.connect(self.refresh)
        self.refresh()
        recovery.look()

    def refresh(self) -> None:
        """Show the first of the offers: what belongs to the open image goes first."""
        offers = self._controller.recovery.offers
        self.setVisible(bool(offers))
        if not offers:
            return
        offer = offers[0]
        rest = f" {len(offers) - 1} more after it." if len(offers) > 1 else ""
        self.text.setText(offer.in_words() + rest)
        if offer.here:
            self.restore.setText("Restore")
            self.restore.setEnabled(self._controller.model is not None)
            self.restore.setToolTip("Bring back prompts, objects and masks")
        else:
            self.restore.setText("Open image")
            self.restore.setEnabled(offer.source is not None)
            tip = f"Open {offer.source}" if offer.source is not None else "Its file is gone; open the image by hand"
            self.restore.setToolTip(tip)
