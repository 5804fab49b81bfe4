"""The model's candidate masks for the prompts on the slice: one button each, with the overlap the model expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QSizePolicy, QToolButton, QWidget

from napari_medtransformer.plugin.status import overlap_in_words
from napari_medtransformer.plugin.widgets.style import BUTTON_HEIGHT, GAP, tool_button

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController

MOST = 4
"""As many masks as any model of the catalogue offers for one prompt."""


class MaskChoice(QWidget):
    """Shows nothing but a disabled line while there is no choice, so that the dock does not jump."""

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = controller
        self.setFixedHeight(BUTTON_HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.buttons: list[QToolButton] = []
        for place in range(MOST):
            button = tool_button(None, "", text=f"{place + 1}", checkable=True)
            button.setParent(self)
            button.clicked.connect(lambda _=False, place=place: controller.prompting.choose_mask(place))
            self.buttons.append(button)

    def refresh(self) -> None:
        """Show the masks of the current object on the slice that is shown."""
        controller = self._controller
        key = controller.current_key
        offered = controller.session.candidate_scores(key) if key is not None else None
        scores, chosen = ((), -1) if offered is None else offered
        several, as_before = len(scores) > 1, True
        for place, button in enumerate(self.buttons):
            there = place < len(scores)
            visible = there or place == 0 or (not several and place < 3)
            if button.isVisibleTo(self) != visible:
                button.setVisible(visible)
                as_before = False
            button.setEnabled(several and there)
            button.setChecked(several and place == chosen)
            text = f"{place + 1}: {overlap_in_words(scores[place])}" if there else "–" if place else "mask –"
            if button.text() != text:
                button.setText(text)
            tip = "A mask the model offers, with the overlap it expects (Tab shows the next)"
            button.setToolTip(tip if several else f"{tip}\n\nNot now: the model has no other mask for this slice")
        if not as_before:
            self._share_width()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """The dock became wider or narrower."""
        self._share_width()

    def _share_width(self) -> None:
        """By hand: in a layout, every new text would have the whole dock laid out anew."""
        shown = [button for button in self.buttons if button.isVisibleTo(self)]
        width = (self.width() - GAP * (len(shown) - 1)) / max(len(shown), 1)
        for place, button in enumerate(shown):
            left, right = round(place * (width + GAP)), round(place * (width + GAP) + width)
            button.setGeometry(left, 0, right - left, self.height())
