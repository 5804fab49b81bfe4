"""The Prompt dock: choose image and model, click, get the organ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Image
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QButtonGroup, QCheckBox, QLabel, QVBoxLayout, QWidget

from napari_medtransformer.plugin.controller import controller_of, real_viewer
from napari_medtransformer.plugin.models.row import ModelRow
from napari_medtransformer.plugin.models.slot import DEFAULT_MODEL, answers_prompts
from napari_medtransformer.plugin.planes import PLANES, plane_of
from napari_medtransformer.plugin.prompts.hidden_banner import HiddenBanner
from napari_medtransformer.plugin.prompts.layers_ahead import LayersAhead
from napari_medtransformer.plugin.prompts.objects_section import ObjectsSection
from napari_medtransformer.plugin.prompts.recovery_banner import RecoveryBanner
from napari_medtransformer.plugin.prompts.section import PromptSection
from napari_medtransformer.plugin.status import status_line
from napari_medtransformer.plugin.widgets.choices import Choice
from napari_medtransformer.plugin.widgets.layer_choice import LayerChoice
from napari_medtransformer.plugin.widgets.steady import CalmBar, SteadyText
from napari_medtransformer.plugin.widgets.style import GAP, Column, folding, quiet_style, row, section, tool_button
from napari_medtransformer.plugin.widgets.theming import ThemeFollower, dress
from napari_medtransformer.progress import Progress

if TYPE_CHECKING:
    import napari

_MOODS = {"ready": "#35d07f", "busy": "#ffb000", "blocked": "#8d97a3"}
REFRESH_DELAY_MS = 15
"""What a click changes on the canvas comes first; ten changes in a row are shown once."""


class PromptDock(QWidget):
    """A face of the viewer's SessionController; holds no state of its own."""

    gives_prompts = True  # clicks are prompts while this dock is open, whatever else they ask

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        viewer = real_viewer(napari_viewer)
        self.controller = controller_of(viewer)
        self.controller.attach(self)

        self.recovery = RecoveryBanner(self.controller)
        self.hidden = HiddenBanner(self.controller)
        self.prompt = PromptSection(self.controller)
        self.work = ObjectsSection(self.controller)
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(6, 6, 6, 2)
        column.setSpacing(6)
        for banner in (self.hidden, self.recovery):
            column.addWidget(banner)
            banner.refresh()  # not before: shown without a parent, it would be a window of its own
        column.addWidget(self._image_section())
        column.addWidget(self._model_section())
        column.addWidget(self.prompt)
        column.addWidget(self.work, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(Column(body), 1)
        layout.addWidget(self._status_bar())

        self._refresh_timer = QTimer(self)
        self._refresh_timer.setSingleShot(True)
        self._refresh_timer.timeout.connect(self.refresh)
        self.controller.changed.connect(self._refresh_soon)
        self._layers_ahead = LayersAhead(self.controller)
        self.controller.view.prefetched.connect(self._show_prefetch)
        self.controller.prediction.encoding.connect(self._show_encoding)
        self.layer_choice.follow(viewer, self.controller)
        self._theme = ThemeFollower(viewer, self, self.refresh)
        if self.controller.models.card is None:
            self.controller.models.load(DEFAULT_MODEL)
        self.refresh()

    # ------------------------------------------------------------------ building

    def _image_section(self) -> QWidget:
        frame, layout = section("Image")
        self.layer_choice = LayerChoice(Image)
        self.layer_choice.setToolTip("The image layer that prompts are given on")
        layout.addWidget(self.layer_choice)
        self.planes = QButtonGroup(self)
        buttons = []
        for axis, name in enumerate(PLANES):
            button = tool_button(None, f"Show {name.lower()} slices, the way round radiologists read them", text=name)
            button.setCheckable(True)
            self.planes.addButton(button, axis)
            buttons.append(button)
        self.planes.idClicked.connect(self.controller.show_plane)
        layout.addLayout(row(*buttons))
        return frame

    def _model_section(self) -> QWidget:
        frame, layout = section("Model")
        self.model_row = ModelRow(self.controller.models, answers_prompts)
        self.models = self.model_row.combo
        layout.addWidget(self.model_row)
        self.device = Choice("Where the model runs. Automatic takes a GPU if there is one.", letters=4)
        for label, device in (("Automatic", "auto"), ("Processor", "cpu"), ("CUDA GPU", "cuda"), ("Apple GPU", "mps")):
            self.device.addItem(label, device)
        self.device.activated.connect(lambda: self.controller.models.set_device(self.device.currentData()))
        self.contrast = QCheckBox("As displayed")
        self.contrast.setToolTip(
            "On: the model sees the image through the window on screen, from the next prompt on.\n"
            "Off: it keeps the window that it has now, whatever you look at."
        )
        self.contrast.setChecked(self.controller.model_window.as_displayed)
        self.contrast.toggled.connect(self.controller.set_displayed_contrast)
        self.controller.model_window.changed.connect(self._show_contrast)
        caption = QLabel("Runs on")
        dress(caption, quiet_style)
        details = QWidget()
        line = row(caption, self.device, self.contrast)
        details.setLayout(line)
        folded, self.model_details = folding("Device and contrast", details, is_open=False)
        layout.addWidget(folded)
        return frame

    def _show_contrast(self) -> None:
        self.contrast.setChecked(self.controller.model_window.as_displayed)

    def _status_bar(self) -> QWidget:
        bar = QWidget()
        self.mood = QLabel("●")
        self.mood.setFixedSize(14, 18)  # of one size, it may change its colour without the dock being laid out anew
        self.status = SteadyText()
        self.stop = tool_button("clear", "Stop encoding; the prompt stays and waits for S")
        self.stop.clicked.connect(self.controller.prediction.stop)
        self.stop.hide()
        line = row(self.mood, self.status, self.stop)
        line.setStretch(1, 1)
        line.setSpacing(GAP)
        self.prefetch = CalmBar()
        self.prefetch.setFixedHeight(3)
        self.prefetch.setTextVisible(False)
        self.prefetch.setToolTip("Neighbouring slices are being encoded, so that clicks there are answered at once")
        policy = self.prefetch.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.prefetch.setSizePolicy(policy)
        layout = QVBoxLayout(bar)
        layout.setContentsMargins(12, 2, 10, 6)
        layout.setSpacing(4)
        layout.addWidget(self.prefetch)
        layout.addLayout(line)
        return bar

    # ------------------------------------------------------------------ showing

    def _refresh_soon(self) -> None:
        if not self._refresh_timer.isActive():
            self._refresh_timer.start(REFRESH_DELAY_MS)

    def refresh(self) -> None:
        """Show everything as it is now."""
        controller = self.controller
        mood, line = status_line(controller)
        style = f"color: {_MOODS[mood]}; font-size: 11px;"
        if self.mood.styleSheet() != style:  # the same one again would lay out and paint the whole dock
            self.mood.setStyleSheet(style)
        self.status.say(line)
        has_volume = controller.workspace is not None
        viewer = controller.viewer
        axis = plane_of(viewer) if viewer is not None and has_volume else None
        three = has_volume and controller.layer.ndim >= 3
        self.planes.setExclusive(False)
        for i, button in enumerate(self.planes.buttons()):
            button.setEnabled(three)
            button.setChecked(three and i == axis)
        self.planes.setExclusive(True)
        self.prompt.refresh()
        self.work.refresh()

    def _show_encoding(self, progress: Progress | None) -> None:
        """The encoder at work for a prompt, with a way to stop it."""
        self.stop.setVisible(progress is not None)
        self._show_prefetch(progress)

    def _show_prefetch(self, progress: Progress | None) -> None:
        under_way = progress is not None and progress.done < (progress.total or 0)
        self.prefetch.tell(progress if under_way else None)
