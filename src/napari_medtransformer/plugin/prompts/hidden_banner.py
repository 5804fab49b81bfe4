"""What to do about an image that hides the one that is worked on, asked where the user looks first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medtransformer.plugin.widgets.banner import Banner
from napari_medtransformer.plugin.widgets.style import tool_button

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController


class HiddenBanner(Banner):
    """Seen only while another image hides the one that is worked on."""

    def __init__(self, controller: SessionController) -> None:
        self.switch = tool_button(None, "Work on that image; what was done on the other stays", text="Switch to it")
        self.behind = tool_button(None, "See the image that is worked on", text="Put it behind")
        super().__init__(self.switch, self.behind)
        self._in_front = controller.in_front
        self.switch.clicked.connect(self._in_front.turn_to_hiding)
        self.behind.clicked.connect(self._in_front.bring)
        self._in_front.changed.connect(self.refresh)

    def refresh(self) -> None:
        """Ask if there is anything to ask."""
        self.say(self._in_front.in_words)
