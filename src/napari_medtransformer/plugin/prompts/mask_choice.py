"""The model's candidate masks for the prompts on the slice: one button each, with the overlap the model expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QHBoxLayout, QToolButton, QWidget

from napari_medtransformer.plugin.widgets.style import GAP, tool_button

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController

MOST = 4
"""As many masks as any model of the catalogue offers for one prompt."""


class MaskChoice(QWidget):
    """Shows nothing but a disabled line while there is no choice, so that the dock does not jump."""

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = controller
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GAP)
        self.buttons: list[QToolButton] = []
        for place in range(MOST):
            button = tool_button(None, "", text=f"{place + 1}", checkable=True)
            button.clicked.connect(lambda _=False, place=place: controller.prompting.choose_mask(place))
            layout.addWidget(button)
            self.buttons.append(button)

    def refresh(self) -> None:
        """Show the masks of the current object on the slice that is shown."""
        controller = self._controller
        key = controller.current_key
        offered = controller.session.candidates(key) if key is not None else None
        scores: list[float] = [] if offered is None else offered.scores.tolist()
        chosen = -1 if offered is None else offered.chosen
        several = len(scores) > 1
        for place, button in enumerate(self.buttons):
            there = place < len(scores)
            visible = there or place == 0 or (not several and place < 3)
            if button.isVisibleTo(self) != visible:
                button.setVisible(visible)
            button.setEnabled(several and there)
            button.setChecked(several and place == chosen)
            button.setText(f"{place + 1}: {scores[place]:.0%}" if there else "–" if place else "mask –")
            tip = "A mask the model offers, with the overlap it expects (Tab shows the next)"
            button.setToolTip(tip if several else f"{tip}\n\nNot now: the model has no other mask for this slice")
