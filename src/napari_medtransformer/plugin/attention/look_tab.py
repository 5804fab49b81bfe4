"""The tab Look: what asks, where in the model, every head's map, and how the chosen one is drawn."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QResizeEvent, QStandardItem, QStandardItemModel
from qtpy.QtWidgets import (
    QBoxLayout,
    QCheckBox,
    QComboBox,
    QLabel,
    QSlider,
    QStackedWidget,
    QTreeView,
    QVBoxLayout,
    QWidget,
)

from napari_medtransformer.plugin.attention.head_grid import HeadGrid
from napari_medtransformer.plugin.attention.head_matrix_view import HeadMatrixView, ScrolledMatrix
from napari_medtransformer.plugin.attention.matrix_content import QUANTITIES, matrix_content
from napari_medtransformer.plugin.attention.organ_choice import OrganChoice
from napari_medtransformer.plugin.attention.pictures import COLOUR_MAPS
from napari_medtransformer.plugin.attention.state import Asks, AttentionState
from napari_medtransformer.plugin.attention.words import numbers_line, query_line, tiles
from napari_medtransformer.plugin.widgets.choices import Choice
from napari_medtransformer.plugin.widgets.layer_choice import LayerChoice
from napari_medtransformer.plugin.widgets.style import QuietLabel, quiet_style, row, section, tool_button
from napari_medtransformer.plugin.widgets.theming import dress

WIDE = 640
"""From this width on, the controls stand beside the heads instead of above them."""
CONTROLS_WIDTH = 325
ASKS: dict[Asks, str] = {
    "voxel": "A voxel",
    "prompt": "A prompt's token",
    "organ": "An organ",
    "everything": "Every token: what is received",
    "prefix": "CLS or global token",
}
CONTOURS = {"no contour": 0.0, "top 25 %": 0.25, "top 50 %": 0.5, "top 80 %": 0.8, "top 95 %": 0.95}
_NEWEST = "newest point"


class LookTab(QWidget):
    """A face of an AttentionState; holds no state of its own."""

    def __init__(self, state: AttentionState) -> None:
        super().__init__()
        self.state = state
        self._controls = QWidget()
        controls = QVBoxLayout(self._controls)
        controls.setContentsMargins(0, 0, 0, 0)
        controls.setSpacing(8)
        controls.addWidget(self._query_section())
        controls.addStretch(1)
        self._controls_layout, self._layer_frame = controls, self._layer_section()
        self._box = QBoxLayout(QBoxLayout.Direction.TopToBottom, self)
        self._box.setContentsMargins(6, 6, 6, 6)
        self._box.setSpacing(8)
        self._box.addWidget(self._controls)
        self._box.addWidget(self._heads_section(), 1)
        self._box.addWidget(self._layer_frame)

    # ------------------------------------------------------------------ building

    def _query_section(self) -> QWidget:
        self.live = QCheckBox("follow cursor")
        self.live.setToolTip("Explain the voxel under the cursor instead of the last clicked one")
        self.live.toggled.connect(self.state.set_live)
        self.pin = QCheckBox("pin")
        self.pin.setToolTip("Keep the voxel that asks while you click elsewhere on its slice")
        self.pin.toggled.connect(self.state.set_pinned)
        frame, layout = section("Query", self.pin, self.live)
        self.models = Choice(
            "Which model is looked into: the one that answers your clicks, or an automatic one where its windows hold "
            "the voxel"
        )
        self.models.activated.connect(lambda: self.state.inspected.choose(self.models.currentData()))
        self.layer_choice = LayerChoice()
        self.layer_choice.setToolTip("The image that is looked at")
        # The names of models are the longer ones.
        self.layer_choice.setMinimumContentsLength(3)
        self.models.setMinimumContentsLength(9)
        layout.addLayout(row(self.layer_choice, self.models))
        self.asks = Choice("What asks: the tokens whose attention is shown")
        self.asks.activated.connect(lambda: self.state.choose_asks(self.asks.currentData()))
        self.prompts = Choice("The decoder's tokens: those of the points and boxes given, and the network's own")
        self.prompts.activated.connect(lambda: self.state.choose_prompt(self.prompts.currentData()))
        self.organ = OrganChoice("All tokens inside this label ask; the answer is their mean")
        self.organ.organ_chosen.connect(self.state.choose_asking_organ)
        layout.addLayout(row(self.asks, self.prompts, self.organ))
        self.query = QuietLabel()
        layout.addWidget(self.query)
        self.sites = site_combo()
        self.sites.activated.connect(lambda: self.state.choose_site(self.sites.currentData(Qt.ItemDataRole.UserRole)))
        layout.addWidget(self.sites)
        return frame

    def _heads_section(self) -> QWidget:
        self.strip_button = tool_button(None, "Every head of the chosen site", text="This site", checkable=True)
        self.matrix_button = tool_button(
            None, "Every head of every site: depth × heads", text="All sites", checkable=True
        )
        for button in (self.strip_button, self.matrix_button):
            button.setFixedHeight(20)
            button.setMaximumWidth(80)
        self.strip_button.setChecked(True)
        self.strip_button.clicked.connect(lambda: self._show_matrix(False))
        self.matrix_button.clicked.connect(lambda: self._show_matrix(True))
        self.find = tool_button(None, "", text="Find")
        self.find.setFixedHeight(20)
        self.find.setMaximumWidth(60)
        self.find.clicked.connect(self.state.find_head)
        self.target = OrganChoice("The organ that is looked at: shares are told and heads are found for it")
        self.target.organ_chosen.connect(self.state.choose_target)
        self.quantity = Choice("The number that frames every head of the matrix")
        for key, text in QUANTITIES.items():
            self.quantity.addItem(text, key)
        self.quantity.activated.connect(lambda: self.refresh_matrix())
        frame, layout = section("Heads", self.strip_button, self.matrix_button)
        looks_at = QLabel("looks at")
        dress(looks_at, quiet_style)
        layout.addLayout(row(looks_at, self.target, self.find))
        self.framed = QLabel("frames show")
        dress(self.framed, quiet_style)
        layout.addLayout(row(self.framed, self.quantity))
        self.message = QuietLabel()
        self.message.setAlignment(Qt.AlignmentFlag.AlignCenter)
        dress(self.message, lambda: quiet_style(12) + "padding: 18px;")
        self.heads = HeadGrid()
        self.heads.chosen.connect(self.state.choose_head)
        self.matrix = HeadMatrixView()
        self.matrix.chosen.connect(lambda site, head: self.state.choose_site(site, str(head)))
        self.matrix.row_chosen.connect(self.state.choose_site)
        self.stack = QStackedWidget()
        self.stack.addWidget(self.heads)
        self.stack.addWidget(ScrolledMatrix(self.matrix))
        self.numbers = QuietLabel()
        layout.addWidget(self.message, 1)
        layout.addWidget(self.stack, 1)
        layout.addWidget(self.numbers)
        return frame

    def _layer_section(self) -> QWidget:
        self.shown = QCheckBox("show")
        self.shown.setChecked(True)
        self.shown.setToolTip("Draw the chosen head as a layer on the anatomy")
        self.shown.toggled.connect(self.state.set_shown)
        style = self.state.style
        self.smooth = QCheckBox("smooth")
        self.smooth.setChecked(style.smooth)
        self.smooth.setToolTip("On: interpolated between tokens. Off: every token as the tile it is")
        self.smooth.toggled.connect(lambda on: self.state.restyle(smooth=on))
        frame, layout = section("Heatmap", self.smooth, self.shown)
        self.colours = Choice("Perceptually uniform colour maps only")
        self.colours.addItems(COLOUR_MAPS)
        self.colours.activated.connect(lambda: self.state.restyle(colour_map=self.colours.currentText()))
        self.blend = Choice("Translucent hides the anatomy where attention is high; additive brightens it")
        self.blend.addItems(("Translucent", "Additive"))
        self.blend.activated.connect(lambda place: self.state.restyle(additive=place == 1))
        layout.addLayout(row(self.colours, self.blend))
        self.opacity, line = slider("Opacity", round(100 * style.opacity), "How much the heatmap covers the anatomy")
        self.opacity.valueChanged.connect(lambda value: self.state.restyle(opacity=value / 100))
        layout.addLayout(line)
        self.threshold, line = slider("Hide lowest", round(style.percentile), "Share of tokens that stay clear")
        self.threshold.setMaximum(99)
        self.threshold.valueChanged.connect(lambda value: self.state.restyle(percentile=float(value)))
        layout.addLayout(line)
        self.contour = Choice("A line around the places that hold so much of the attention")
        for text, share in CONTOURS.items():
            self.contour.addItem(text, share)
        self.contour.activated.connect(lambda: self.state.restyle(contour=self.contour.currentData()))
        self.grid = QCheckBox("tokens")
        self.grid.setToolTip("Draw the edges of the tokens: what the model cannot tell apart")
        self.grid.toggled.connect(lambda on: self.state.restyle(token_grid=on))
        self.windows = QCheckBox("windows")
        self.windows.setToolTip("Draw the edges of the attention windows, where a cyclic shift puts them")
        self.windows.toggled.connect(lambda on: self.state.restyle(windows=on))
        layout.addLayout(row(self.contour, self.grid, self.windows))
        return frame

    # ------------------------------------------------------------------ showing

    def _show_matrix(self, on: bool) -> None:
        self.strip_button.setChecked(not on)
        self.matrix_button.setChecked(on)
        self.stack.setCurrentIndex(1 if on else 0)
        self.state.want_matrix(on)
        self.refresh()

    @property
    def shows_matrix(self) -> bool:
        """Whether every site is shown, not the chosen one alone."""
        return self.stack.currentIndex() == 1

    def refresh_message(self) -> None:
        """Only what can change without a new answer; this runs often."""
        state = self.state
        obstacle = state.obstacle
        self.message.setText(obstacle)
        self.message.setVisible(bool(obstacle))
        self.stack.setVisible(not obstacle)
        self.live.setEnabled(state.controller.session is not None or state.inspected.model is not None)
        self.numbers.setText("" if obstacle else numbers_line(state))
        self.numbers.setVisible(bool(self.numbers.text()))
        able = state.target_mask() is not None and state.answer is not None
        self.find.setEnabled(able)
        tip = "Choose the encoder's head that looks most at this organ from what asks"
        self.find.setToolTip(tip if able else f"{tip}\n\nNot now: no labelled organ on this slice")

    def refresh(self) -> None:
        """Show the newest answer."""
        state = self.state
        self._show_choices()  # organs may have new names, which the message tells
        self.refresh_message()
        self.query.setText(query_line(state))
        self._show_sites()
        if not state.obstacle and not self.shows_matrix:
            self.heads.show_tiles(tiles(state), state.head)
        if self.shows_matrix:
            self._select_in_matrix()
        for widget in (self.framed, self.quantity):
            widget.setVisible(self.shows_matrix)
        self.smooth.setChecked(state.style.smooth)
        for widget in (self.colours, self.blend, self.smooth, self.opacity, self.threshold, self.contour):
            widget.setEnabled(state.shown)  # before the first click too: how it will be drawn

    def refresh_matrix(self) -> None:
        """Show what every site answered."""
        content = matrix_content(self.state, self.quantity.currentData())
        self.matrix.show_content(content, self._selected())

    def _select_in_matrix(self) -> None:
        self.matrix.selected = self._selected()
        self.matrix.update()

    def _selected(self) -> tuple[str, int] | None:
        return (self.state.site, int(self.state.head)) if self.state.head.isdigit() else None

    def _show_models(self) -> None:
        """The model that answers clicks, and the automatic ones that can be loaded at once."""
        clicked = self.state.controller.models.card
        own = "the click model" if clicked is None else clicked.name
        inspected = self.state.inspected
        wanted = [(own, ""), *((card.name, card.name) for card in inspected.cards)]
        if inspected.name not in [name for _, name in wanted]:
            wanted.append((inspected.name, inspected.name))
        if [(self.models.itemText(i), self.models.itemData(i)) for i in range(self.models.count())] != wanted:
            self.models.clear()
            for title, name in wanted:
                self.models.addItem(title, name)
        self.models.setCurrentIndex([name for _, name in wanted].index(inspected.name))

    def _show_choices(self) -> None:
        state = self.state
        self._show_models()
        prefixed = any(site.query_grid.prefix for site in state.inspection.sites) if state.inspection else False
        hidden = {"prefix": not prefixed, "prompt": state.inspected.is_automatic}
        offered = [key for key in ASKS if not hidden.get(key)]
        if [self.asks.itemData(i) for i in range(self.asks.count())] != offered:
            self.asks.clear()
            for key in offered:
                self.asks.addItem(ASKS[key], key)
        self.asks.setCurrentIndex(self.asks.findData(state.asks))
        self.prompts.setVisible(state.asks == "prompt")
        self.organ.setVisible(state.asks == "organ")
        organs = state.organs()
        self.target.show_organs(organs, state.target_organ)
        self.organ.show_organs(organs, state.asking_organ)
        tokens = [] if state.inspection is None else list(enumerate(state.inspection.tokens))
        wanted = [
            (_NEWEST, None),
            *((token.name, index) for index, token in tokens if not token.name.startswith("no ")),
        ]
        if [(self.prompts.itemText(i), self.prompts.itemData(i)) for i in range(self.prompts.count())] != wanted:
            self.prompts.clear()
            for name, index in wanted:
                self.prompts.addItem(name, index)
        self.prompts.setCurrentIndex(max(self.prompts.findData(state.prompt_index), 0))

    def _show_sites(self) -> None:
        entries = self.state.sites
        model: QStandardItemModel = self.sites.model()
        shown = [model.item(i).data(Qt.ItemDataRole.UserRole) for i in range(model.rowCount())]
        if shown != [entry.name for entry in entries]:
            model.removeRows(0, model.rowCount())
            for entry in entries:
                first = QStandardItem(f"{entry.name} · {entry.kind} · {entry.heads} heads")
                first.setData(entry.name, Qt.ItemDataRole.UserRole)
                model.appendRow([first, *map(QStandardItem, (entry.kind, entry.heads, entry.grid, entry.window))])
        names = [entry.name for entry in entries]
        self.sites.setCurrentIndex(names.index(self.state.site) if self.state.site in names else -1)
        self.sites.setEnabled(bool(entries))

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Put the controls beside the heads where there is room."""
        wide = event.size().width() >= WIDE
        direction = QBoxLayout.Direction.LeftToRight if wide else QBoxLayout.Direction.TopToBottom
        if self._box.direction() != direction:
            self._box.setDirection(direction)
            self._controls.setMaximumWidth(CONTROLS_WIDTH if wide else 16777215)  # Qt's "no limit"
            # Narrow, the heads come before how they are drawn.
            self._box.removeWidget(self._layer_frame)
            self._controls_layout.removeWidget(self._layer_frame)
            if wide:
                self._controls_layout.insertWidget(1, self._layer_frame)
            else:
                self._box.addWidget(self._layer_frame)
        super().resizeEvent(event)


def site_combo() -> QComboBox:
    """The sites in the order in which they run; its list has a column for kind, heads, token grid and window."""
    made = Choice("Where in the model: its attention sites in the order in which they run")
    model = QStandardItemModel(0, 5, made)
    model.setHorizontalHeaderLabels(["site", "kind", "heads", "tokens", "window"])
    view = QTreeView()
    view.setRootIsDecorated(False)
    made.setModel(model)
    made.setView(view)
    view.setMinimumWidth(620)
    view.setColumnWidth(0, 280)
    made.setPlaceholderText("sites appear with the first click")
    return made


def slider(caption: str, value: int, tooltip: str):
    """A slider in per cent with its caption and number: the slider, and the row that holds all three."""
    made = QSlider(Qt.Orientation.Horizontal)
    made.setRange(0, 100)
    made.setValue(value)
    made.setToolTip(tooltip)
    number = QLabel(f"{value} %")
    number.setFixedWidth(38)
    number.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    made.valueChanged.connect(lambda v: number.setText(f"{v} %"))
    label = QLabel(caption)
    label.setFixedWidth(74)
    for small in (number, label):
        dress(small, quiet_style)
    return made, row(label, made, number)
