"""A short tour at the first use of the Attention dock: what a query, a head and a position are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtpy.QtCore import QSettings
from qtpy.QtWidgets import QFrame, QLabel, QVBoxLayout

from napari_medtransformer.plugin.widgets.icons import theme_colour
from napari_medtransformer.plugin.widgets.style import QuietLabel, row, tool_button
from napari_medtransformer.plugin.widgets.theming import dress

if TYPE_CHECKING:
    from napari_medtransformer.plugin.attention.dock import AttentionDock

SEEN_KEY = "attention/tour_seen"


@dataclass(frozen=True)
class Step:
    """One step. page: the tab it is about."""

    title: str
    text: str
    page: str


STEPS = (
    Step(
        "A query",
        "A transformer cuts the slice into tokens. Each of them asks all others how much they matter to it: that is "
        "attention. Click a voxel; its token is the query, and the blue ring marks it.",
        "Look",
    ),
    Step(
        "A head",
        "Every block asks several times at once: its heads. Each thumbnail is what one head attends to from your "
        "query. “All sites” shows the heads of every block, framed in the colour of a number.",
        "Look",
    ),
    Step(
        "An organ",
        "With labels open, let an organ ask, or ask which head looks at one: choose it beside “looks at”, then Find.",
        "Look",
    ),
    Step(
        "Cause",
        "A head that looks at the liver need not matter for the liver. Switch heads off and see what the mask loses.",
        "Heads that matter",
    ),
    Step(
        "A position",
        "Attention alone does not know where a token is. The positional encoding tells it: see which positions it "
        "calls alike, and what happens without it. The guide docs/tour.md goes on from here.",
        "Positions",
    ),
)


class Tour(QFrame):
    """A card above the tabs; dismissed once, it stays away."""

    def __init__(self, dock: AttentionDock) -> None:
        super().__init__()
        self._dock = dock
        self.step = 0
        self.setObjectName("medtTour")
        dress(
            self,
            lambda: (
                f"QFrame#medtTour {{ background: {theme_colour('current')}; border-radius: 5px; }}"
                "QFrame#medtTour QLabel { background: transparent; }"
            ),
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(9, 6, 9, 6)
        layout.setSpacing(4)
        self.title = QLabel()
        self.title.setStyleSheet("font-weight: 600;")
        self.next = tool_button(None, "", text="Next")
        self.next.clicked.connect(self.go_on)
        self.close_button = tool_button(None, "Do not show this again", text="Close")
        self.close_button.clicked.connect(self.dismiss)
        for button in (self.next, self.close_button):
            button.setFixedHeight(20)
            button.setMaximumWidth(70)
        layout.addLayout(row(self.title, None, self.next, self.close_button))
        self.text = QuietLabel()
        dress(self.text, lambda: f"font-size: 11px; color: {theme_colour('text')};")
        layout.addWidget(self.text)
        self.setVisible(not seen())
        self._show()

    def go_on(self) -> None:
        """The next step; after the last, the tour is over."""
        if self.step + 1 == len(STEPS):
            self.dismiss()
            return
        self.step += 1
        self._dock.show_page(STEPS[self.step].page)
        self._show()

    def start(self) -> None:
        """From the beginning, also if it was seen."""
        self.step = 0
        self._dock.show_page(STEPS[0].page)
        self._show()
        self.show()

    def dismiss(self) -> None:
        """Stay away from now on."""
        settings().setValue(SEEN_KEY, True)
        self.hide()
        self._dock.show_page("Look")

    def _show(self) -> None:
        step = STEPS[self.step]
        self.title.setText(f"{self.step + 1} of {len(STEPS)} · {step.title}")
        self.text.setText(step.text)
        self.next.setText("Done" if self.step + 1 == len(STEPS) else "Next")


def seen() -> bool:
    """Whether the tour was dismissed on this machine."""
    return str(settings().value(SEEN_KEY, "false")).lower() == "true"


def settings() -> QSettings:
    """Where the plugin remembers such things."""
    return QSettings(QSettings.Format.IniFormat, QSettings.Scope.UserScope, "napari", "medtransformer")
