"""The Attention dock: what every head attends to from the voxel that was clicked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QHideEvent, QResizeEvent, QShowEvent
from qtpy.QtWidgets import QBoxLayout, QCheckBox, QComboBox, QLabel, QSizePolicy, QSlider, QVBoxLayout, QWidget

from napari_medtransformer.plugin.controller import controller_of
from napari_medtransformer.plugin.head_grid import HeadGrid
from napari_medtransformer.plugin.pictures import COLOUR_MAPS
from napari_medtransformer.plugin.style import Column, quiet_label, quiet_style, row, section, tool_button

if TYPE_CHECKING:
    import napari

WIDE = 640
"""From this width on, the controls stand beside the heads instead of above them."""
CONTROLS_WIDTH = 300


class AttentionDock(QWidget):
    """A face of an AttentionState; holds no state of its own."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self.controller = controller_of(napari_viewer)
        self.controller.attach(self)
        self.state = self.controller.attention

        self.message = quiet_label()
        self.message.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.message.setStyleSheet(quiet_style(12) + "padding: 18px;")
        self.heads = HeadGrid()
        self.heads.chosen.connect(self.state.choose_head)
        self.find = tool_button(None, "", text="Find")
        self.find.setFixedHeight(20)
        self.find.setMaximumWidth(60)
        self.find.clicked.connect(self.state.find_head)
        heads_frame, heads_layout = section("Heads", self.find)
        self.numbers = quiet_label()
        heads_layout.addWidget(self.message, 1)
        heads_layout.addWidget(self.heads, 1)
        heads_layout.addWidget(self.numbers)

        self._controls = QWidget()
        controls = QVBoxLayout(self._controls)
        controls.setContentsMargins(0, 0, 0, 0)
        controls.setSpacing(8)
        controls.addWidget(self._query_section())
        controls.addStretch(1)
        self._controls_layout, self._layer_frame = controls, self._layer_section()

        body = QWidget()
        self._box = QBoxLayout(QBoxLayout.Direction.TopToBottom, body)
        self._box.setContentsMargins(6, 6, 6, 6)
        self._box.setSpacing(8)
        self._box.addWidget(self._controls)
        self._box.addWidget(heads_frame, 1)
        self._box.addWidget(self._layer_frame)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(Column(body))

        self.state.changed.connect(self._refresh)
        self.controller.changed.connect(self._refresh_message)
        self._refresh()

    # ------------------------------------------------------------------ building

    def _query_section(self) -> QWidget:
        self.live = QCheckBox("follow cursor")
        self.live.setToolTip("Explain the voxel under the cursor instead of the last clicked one")
        self.live.toggled.connect(self.state.set_live)
        frame, layout = section("Query", self.live)
        self.query = quiet_label()
        layout.addWidget(self.query)
        self.sites = _combo("Where in the model: its blocks in the order in which they run")
        self.sites.activated.connect(lambda: self.state.choose_site(self.sites.currentData()))
        layout.addWidget(self.sites)
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
        self.colours = _combo("Perceptually uniform colour maps only")
        self.colours.addItems(COLOUR_MAPS)
        self.colours.activated.connect(lambda: self.state.restyle(colour_map=self.colours.currentText()))
        self.blend = _combo("Translucent hides the anatomy where attention is high; additive brightens it")
        self.blend.addItems(("Translucent", "Additive"))
        self.blend.activated.connect(lambda place: self.state.restyle(additive=place == 1))
        layout.addLayout(row(self.colours, self.blend))
        self.opacity, line = _slider("Opacity", round(100 * style.opacity), "How much the heatmap covers the anatomy")
        self.opacity.valueChanged.connect(lambda value: self.state.restyle(opacity=value / 100))
        layout.addLayout(line)
        self.threshold, line = _slider("Hide lowest", round(style.percentile), "Share of tokens that stay clear")
        self.threshold.setMaximum(99)
        self.threshold.valueChanged.connect(lambda value: self.state.restyle(percentile=float(value)))
        layout.addLayout(line)
        return frame

    # ------------------------------------------------------------------ showing

    def _refresh_message(self) -> None:
        """Only what can change without a new answer; this runs often."""
        obstacle = self.state.obstacle
        self.message.setText(obstacle)
        self.message.setVisible(bool(obstacle))
        self.heads.setVisible(not obstacle)
        self.live.setEnabled(self.controller.session is not None)
        self.numbers.setText("" if obstacle else self.state.numbers_line)
        self.numbers.setVisible(bool(self.numbers.text()))
        able = self.state.object_mask() is not None
        self.find.setEnabled(able)
        tip = "Choose the encoder head that looks most at the selected object from this voxel"
        self.find.setToolTip(tip if able else f"{tip}\n\nNot now: no object is marked on this slice")

    def _refresh(self) -> None:
        state = self.state
        obstacle = state.obstacle
        self._refresh_message()
        self.query.setText(state.query_line)
        self._show_sites()
        if not obstacle:
            self.heads.show_tiles(state.tiles(), state.head)
        self.smooth.setChecked(state.style.smooth)
        for widget in (self.colours, self.blend, self.smooth, self.opacity, self.threshold):
            widget.setEnabled(state.maps is not None and state.shown)

    def _show_sites(self) -> None:
        sites = self.state.sites
        if [self.sites.itemData(i) for i in range(self.sites.count())] != [name for name, _ in sites]:
            self.sites.clear()
            for name, label in sites:
                self.sites.addItem(label, name)
        self.sites.setCurrentIndex(self.sites.findData(self.state.site))
        self.sites.setEnabled(bool(sites))
        self.sites.setPlaceholderText("sites appear with the first click")

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

    def showEvent(self, event: QShowEvent) -> None:
        self.state.set_awake(True)
        super().showEvent(event)

    def hideEvent(self, event: QHideEvent) -> None:
        self.state.set_awake(False)
        super().hideEvent(event)


def _combo(tooltip: str) -> QComboBox:
    combo = QComboBox()
    combo.setToolTip(tooltip)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    combo.setMinimumContentsLength(6)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    return combo


def _slider(caption: str, value: int, tooltip: str):
    slider = QSlider(Qt.Orientation.Horizontal)
    slider.setRange(0, 100)
    slider.setValue(value)
    slider.setToolTip(tooltip)
    number = QLabel(f"{value} %")
    number.setFixedWidth(38)
    number.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    slider.valueChanged.connect(lambda v: number.setText(f"{v} %"))
    label = QLabel(caption)
    label.setFixedWidth(74)
    for small in (number, label):
        small.setStyleSheet(quiet_style())
    return slider, row(label, slider, number)
