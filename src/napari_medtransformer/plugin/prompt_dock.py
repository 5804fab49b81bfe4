"""The Prompt dock: choose image and model, click, get the organ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QLabel,
    QMenu,
    QProgressBar,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_medtransformer.plugin.canvas import Tool
from napari_medtransformer.plugin.controller import controller_of, real_viewer
from napari_medtransformer.plugin.layer_choice import LayerChoice
from napari_medtransformer.plugin.model_row import ModelRow
from napari_medtransformer.plugin.model_slot import DEFAULT_MODEL, answers_prompts
from napari_medtransformer.plugin.objects_list import ObjectsList
from napari_medtransformer.plugin.planes import PLANES, plane_of
from napari_medtransformer.plugin.shortcuts import bind_shortcuts, shortcuts_help
from napari_medtransformer.plugin.status import status_line
from napari_medtransformer.plugin.style import (
    GAP,
    NEGATIVE,
    POSITIVE,
    Column,
    quiet_label,
    quiet_style,
    row,
    section,
    tool_button,
)
from napari_medtransformer.progress import Progress

if TYPE_CHECKING:
    import napari

_MOODS = {"ready": "#35d07f", "busy": "#ffb000", "blocked": "#8d97a3"}


class PromptDock(QWidget):
    """A face of the viewer's SessionController; holds no state of its own."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        viewer = real_viewer(napari_viewer)
        self.controller = controller_of(viewer)
        self.controller.attach(self)
        self.actions_of_session = self.controller.actions
        bind_shortcuts(viewer, self.controller)

        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(6, 6, 6, 2)
        column.setSpacing(8)
        column.addWidget(self._image_section())
        column.addWidget(self._model_section())
        column.addWidget(self._prompt_section())
        column.addWidget(self._objects_section(), 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(Column(body), 1)
        layout.addWidget(self._status_bar())

        self.controller.changed.connect(self._refresh)
        self.controller.actions.progressed.connect(self._show_progress)
        self.controller.actions.volumes_changed.connect(self._refresh)
        self.layer_choice.follow(viewer, self.controller)
        if self.controller.models.card is None:
            self.controller.models.load(DEFAULT_MODEL)
        self._refresh()

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
        self.device = _combo()
        for label, device in (("Automatic", "auto"), ("Processor", "cpu"), ("CUDA GPU", "cuda"), ("Apple GPU", "mps")):
            self.device.addItem(label, device)
        self.device.setToolTip("Where the model runs. Automatic takes a GPU if there is one.")
        self.device.activated.connect(lambda: self.controller.models.set_device(self.device.currentData()))
        self.contrast = QCheckBox("As displayed")
        self.contrast.setToolTip(
            "Off: the model sees the window found from the image (CT: by Hounsfield units).\n"
            "On: it sees the layer's contrast limits, as you do; prompts are predicted anew."
        )
        self.contrast.toggled.connect(self.controller.set_displayed_contrast)
        layout.addLayout(row(_caption("Runs on"), self.device, self.contrast))
        return frame

    def _prompt_section(self) -> QWidget:
        frame, layout = section("Prompt", self._help_button())
        self.tools = QButtonGroup(self)
        self._tool_buttons = {}
        for tool, icon_name, text, tip in (
            (Tool.POINT, "point", "Point", "Click a structure (P)"),
            (Tool.BOX, "box", "Box", "Drag a box around a structure (B)"),
            (Tool.PAN, "pan_arrows", "Move", "Move and zoom only; a click still asks the Attention dock (Esc)"),
        ):
            button = tool_button(icon_name, tip, text=text, checkable=True)
            button.clicked.connect(lambda _=False, tool=tool: self.controller.set_tool(tool))
            self.tools.addButton(button)
            self._tool_buttons[tool] = button
        layout.addLayout(row(*self._tool_buttons.values()))
        self.signs = QButtonGroup(self)
        switch = "(T switches; Shift-click: the other)"
        self.inside = tool_button(
            "plus", f"Points mark the structure {switch}", text="Inside", checkable=True, colour=POSITIVE
        )
        self.outside = tool_button(
            "minus", f"Points mark what is not the structure {switch}", text="Outside", checkable=True, colour=NEGATIVE
        )
        for positive, button in ((True, self.inside), (False, self.outside)):
            self.signs.addButton(button)
            button.clicked.connect(lambda _=False, positive=positive: self.controller.set_positive(positive))
        layout.addLayout(row(self.inside, self.outside))
        self.undo = tool_button("undo", "Undo (Ctrl+Z)", text="Undo")
        self.redo = tool_button("redo", "Redo (Ctrl+Shift+Z)")
        self.masks = tool_button("masks", "")
        self.clear = tool_button("clear", "")
        self.undo.clicked.connect(self.controller.undo)
        self.redo.clicked.connect(self.controller.redo)
        self.masks.clicked.connect(self.controller.prompting.cycle_mask)
        self.clear.clicked.connect(self.controller.prompting.clear_slice)
        self.undo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        layout.addLayout(row(self.undo, self.redo, self.masks, self.clear))
        return frame

    def _objects_section(self) -> QWidget:
        actions = self.actions_of_session
        frame, layout = section("Objects")
        self.objects = ObjectsList()
        self.objects.selected.connect(actions.select_object)
        self.objects.renamed.connect(actions.rename_object)
        self.objects.recoloured.connect(actions.colour_object)
        layout.addWidget(self.objects, 1)
        self.new = tool_button("add", "A further object (N)", text="New")
        self.clear_all = tool_button("erase", "")
        self.delete = tool_button("delete", "")
        self.new.clicked.connect(actions.new_object)
        self.clear_all.clicked.connect(lambda: actions.clear_object(self._current_object()))
        self.delete.clicked.connect(lambda: actions.remove_object(self._current_object()))
        layout.addLayout(row(self.new, self.clear_all, self.delete))
        self.propagate = tool_button("stack", "", text="Propagate to 3D")
        self.propagate.clicked.connect(actions.propagate)
        self.cancel = tool_button("clear", "Stop; nothing of it is kept")
        self.cancel.clicked.connect(actions.cancel)
        layout.addLayout(row(self.propagate, self.cancel))
        self.progress = QProgressBar()
        self.progress.setFixedHeight(14)
        layout.addWidget(self.progress)
        self.save = tool_button("save", "", text="Save labels…")
        self.save.clicked.connect(self._save_labels)
        self.more = tool_button("more", "Copy the labels to a layer, save or open a session")
        menu = QMenu(self.more)
        self.copy_action = menu.addAction("Copy to a layer of my own (C)", actions.copy_to_layer)
        self.save_session_action = menu.addAction("Save session…", self._save_session)
        self.open_session_action = menu.addAction("Open session…", self._open_session)
        self.more.setMenu(menu)
        self.more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        layout.addLayout(row(self.save, self.more))
        self._show_progress(None)
        return frame

    def _status_bar(self) -> QWidget:
        bar = QWidget()
        self.mood = QLabel("●")
        self.mood.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.status = quiet_label()
        self.status.setMinimumHeight(32)  # two lines, so that the dock does not jump as the text changes
        self.status.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        line = row(self.mood, self.status)
        line.setStretch(1, 1)
        line.setContentsMargins(12, 4, 10, 6)
        line.setSpacing(GAP)
        bar.setLayout(line)
        return bar

    def _help_button(self) -> QToolButton:
        button = tool_button("help", shortcuts_help())
        button.setFixedSize(20, 20)
        button.setStyleSheet("QToolButton { background: transparent; border: 0; padding: 0; }")
        button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        return button

    # ------------------------------------------------------------------ showing

    def _refresh(self) -> None:
        controller = self.controller
        session, obstacle = controller.session, controller.obstacle
        mood, line = status_line(controller)
        self.mood.setStyleSheet(f"color: {_MOODS[mood]}; font-size: 11px;")
        if self.status.text() != line:
            self.status.setText(line)
            self.status.setToolTip(line)
        has_volume = controller.workspace is not None
        viewer = controller.viewer
        axis = plane_of(viewer) if viewer is not None and has_volume else None
        three = has_volume and controller.layer.ndim == 3
        self.planes.setExclusive(False)
        for i, button in enumerate(self.planes.buttons()):
            button.setEnabled(three)
            button.setChecked(three and i == axis)
        self.planes.setExclusive(True)
        for tool, button in self._tool_buttons.items():
            button.setChecked(tool is controller.tool)
            button.setEnabled(has_volume)
        self.inside.setChecked(controller.positive)
        self.outside.setChecked(not controller.positive)
        for button in (self.inside, self.outside):
            button.setEnabled(has_volume and controller.tool is Tool.POINT)
        key = controller.current_key
        prompts = list(session.prompts.values()) if session is not None else []
        mine = [p for p in prompts if p.object_id == self._current_object()]
        here = [p for p in mine if p.key == key]
        candidates = session.candidates(key) if session is not None and key is not None else None
        busy = controller.actions.long_job is not None
        nothing = obstacle or "Click in the image first."
        _enable(self.undo, session is not None and session.can_undo, "Undo (Ctrl+Z)", "Nothing to undo yet")
        _enable(self.redo, session is not None and session.can_redo, "Redo (Ctrl+Shift+Z)", "Nothing to redo")
        _enable(self.masks, candidates is not None and len(candidates.scores) > 1,
                "Next of the model's masks (Tab)", "The model has no other mask for this slice")  # fmt: skip
        _enable(self.clear, bool(here), "Remove this object's prompts on this slice (Shift+C)",
                "No prompts of this object on this slice")  # fmt: skip
        _enable(self.new, session is not None, "A further object (N)", obstacle or "The model is still loading")
        _enable(self.delete, session is not None and bool(mine), "Delete this object (Undo brings it back)", nothing)
        _enable(self.clear_all, bool(mine), "Clear this object on every slice", nothing)
        flat = has_volume and controller.workspace.volume.shape[0] == 1
        _enable(self.propagate, bool(mine) and not busy and not flat,
                "Follow this object through the slices on both sides (Shift+S)",
                "It is running" if busy else "This image has one slice only" if flat else nothing)  # fmt: skip
        _enable(self.save, bool(prompts), "Save all objects as NIfTI on the image's own grid", nothing)
        self.copy_action.setEnabled(bool(prompts))
        self.save_session_action.setEnabled(bool(prompts))
        self.open_session_action.setEnabled(session is not None)
        self._show_objects()

    def _show_objects(self) -> None:
        workspace, session = self.controller.workspace, self.controller.session
        if session is None:
            self.objects.show_objects([], {}, {}, 0)
            return
        objects = [(o.object_id, o.name) for o in session.objects]
        if workspace.current_object not in {object_id for object_id, _ in objects}:
            objects.append((workspace.current_object, ""))  # it comes into being with its first prompt
        colours = {object_id: workspace.colour(object_id) for object_id, _ in objects}
        self.objects.show_objects(objects, colours, self.controller.actions.volumes_ml, workspace.current_object)

    def _show_progress(self, progress: Progress | None) -> None:
        self.progress.setVisible(progress is not None)
        self.cancel.setVisible(progress is not None)
        if progress is not None:
            self.progress.setRange(0, progress.total or 0)
            self.progress.setValue(progress.done)
            self.progress.setFormat(progress.message or "%v of %m")

    # ------------------------------------------------------------------ asking

    def _current_object(self) -> int:
        workspace = self.controller.workspace
        return 0 if workspace is None else workspace.current_object

    def _save_labels(self) -> None:
        path = self._ask_to_save("Save labels", "_labels.nii.gz", "NIfTI (*.nii.gz *.nii)")
        if path:
            self.actions_of_session.save_labels(path)

    def _save_session(self) -> None:
        path = self._ask_to_save("Save session", ".medt", "Session (*.medt)")
        if path:
            self.actions_of_session.save_session(path)

    def _open_session(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open session", "", "Session (*.medt);;All files (*)")
        if path:
            self.actions_of_session.open_session(path)

    def _ask_to_save(self, title: str, ending: str, file_filter: str) -> str:
        volume = self.controller.workspace.volume
        folder = volume.source.path.parent if volume.source is not None else Path.cwd()
        path, _ = QFileDialog.getSaveFileName(self, title, str(folder / f"{volume.name}{ending}"), file_filter)
        return path


def _enable(button: QToolButton, possible: bool, tip: str, reason: str) -> None:
    """Enable a button, or disable it with a tooltip that says why."""
    button.setEnabled(possible)
    button.setToolTip(tip if possible else f"{tip}\n\nNot now: {reason}")


def _combo() -> QComboBox:
    combo = QComboBox()
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    combo.setMinimumContentsLength(8)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    return combo


def _caption(text: str) -> QLabel:
    label = QLabel(text)
    label.setStyleSheet(quiet_style())
    return label
