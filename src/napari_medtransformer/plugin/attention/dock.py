"""The Attention dock: look at heads, compare them, switch them off, see positions, and take numbers away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from napari_medtransformer.plugin.attention.cause_tab import CauseTab
from napari_medtransformer.plugin.attention.compare_tab import CompareTab
from napari_medtransformer.plugin.attention.export_tab import ExportTab
from napari_medtransformer.plugin.attention.inspector_tour import Tour
from napari_medtransformer.plugin.attention.look_tab import LookTab
from napari_medtransformer.plugin.attention.positions_tab import PositionsTab
from napari_medtransformer.plugin.controller import controller_of, real_viewer
from napari_medtransformer.plugin.docking import make_strip
from napari_medtransformer.plugin.models.slot import DEFAULT_MODEL
from napari_medtransformer.plugin.widgets.style import Column
from napari_medtransformer.plugin.widgets.theming import ThemeFollower

if TYPE_CHECKING:
    import napari


class AttentionDock(QWidget):
    """Tabs over one AttentionState; only the one that can be seen is kept up to date."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        viewer = real_viewer(napari_viewer)
        self.controller = controller_of(viewer)
        make_strip(self)
        self.controller.attach(self)
        self.state = self.controller.attention
        self.look = LookTab(self.state)
        self.compare = CompareTab(self.state)
        self.cause = CauseTab(self.state)
        self.positions = PositionsTab(self.state, self.cause.switches)
        self.export = ExportTab(self.state)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self._pages = {
            "Look": self.look,
            "Compare": self.compare,
            "Heads that matter": self.cause,
            "Positions": self.positions,
            "Export": self.export,
        }
        for title, page in self._pages.items():
            self.tabs.addTab(Column(page), title)
        self.tabs.currentChanged.connect(self._on_tab)
        self.tour = Tour(self)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)  # the title above is a little higher than it says
        layout.setSpacing(4)
        layout.addWidget(self.tour)
        layout.addWidget(self.tabs, 1)
        self.state.changed.connect(self._refresh)
        self.state.matrix_changed.connect(self._refresh_matrix)
        self._names: list[str] = []
        self.controller.changed.connect(self._on_session)
        # whoever opens this dock alone has an image to look at and a model to look into
        self.look.layer_choice.follow(viewer, self.controller)
        if self.controller.models.card is None:
            self.controller.models.load(DEFAULT_MODEL)
        self._theme = ThemeFollower(viewer, self, self._refresh)
        self._refresh()

    @property
    def page(self) -> QWidget:
        """The tab that is shown."""
        return list(self._pages.values())[self.tabs.currentIndex()]

    def show_page(self, title: str) -> None:
        """Show a tab by its title."""
        self.tabs.setCurrentIndex(list(self._pages).index(title))

    def _on_tab(self) -> None:
        if self.page not in (self.compare, self.positions):
            self.state.draw_instead(None)
        self.state.want_matrix(self.look.shows_matrix or self.page is self.compare)
        self._refresh()
        self._refresh_matrix()

    def _refresh(self) -> None:
        self.page.refresh()

    def _on_session(self) -> None:
        session = self.controller.session
        names = [] if session is None else [each.name for each in session.objects]
        if names != self._names:  # organs are chosen and told by them
            self._names = names
            self._refresh()
        elif self.page is self.look:
            self.look.refresh_message()

    def _refresh_matrix(self) -> None:
        if self.page is self.look:
            self.look.refresh_matrix()
        elif self.page is self.compare:
            self.compare.refresh_matrix()

    def showEvent(self, event: QShowEvent) -> None:
        self.state.set_awake(True)
        super().showEvent(event)

    def hideEvent(self, event: QHideEvent) -> None:
        self.state.set_awake(False)
        super().hideEvent(event)
