"""Unsaved work of an earlier session, offered where the user looks first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medtransformer.plugin.widgets.banner import Banner
from napari_medtransformer.plugin.widgets.style import tool_button

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController


class RecoveryBanner(Banner):
    """Seen only while there is something to recover."""

    def __init__(self, controller: SessionController) -> None:
        self._controller = controller
        self.restore = tool_button(None, "", text="Restore")
        self.later = tool_button(None, "Offer it again at the next start", text="Later")
        self.discard = tool_button(None, "Throw it away", text="Discard")
        super().__init__(self.restore, self.later, self.discard)
        recovery = controller.recovery
        self.restore.clicked.connect(lambda: recovery.restore(recovery.offers[0]))
        self.later.clicked.connect(lambda: recovery.put_off(recovery.offers[0]))
        self.discard.clicked.connect(lambda: recovery.discard(recovery.offers[0]))
        recovery.changed.connect(self.refresh)
        controller.layer_changed.connect(recovery.look)
        controller.models.loaded.connect(self.refresh)
        recovery.look()

    def refresh(self) -> None:
        """Show the first of the offers: what belongs to the open image goes first."""
        offers = self._controller.recovery.offers
        if not offers:
            self.say("")
            return
        offer = offers[0]
        rest = f" {len(offers) - 1} more after it." if len(offers) > 1 else ""
        self.say(offer.in_words() + rest)
        if offer.here:
            self.restore.setText("Restore")
            self.restore.setEnabled(self._controller.model is not None)
            self.restore.setToolTip("Bring back prompts, objects and masks")
        else:
            self.restore.setText("Open image")
            self.restore.setEnabled(offer.source is not None)
            tip = f"Open {offer.source}" if offer.source is not None else "Its file is gone; open the image by hand"
            self.restore.setToolTip(tip)
