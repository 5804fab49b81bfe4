"""The card of the Prompt dock in which prompts are given: tools, signs, undo, live or on demand, the model's masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QButtonGroup,
    QDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QSlider,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_medtransformer.plugin.prompts.help_dialog import HelpDialog
from napari_medtransformer.plugin.prompts.mask_choice import MaskChoice
from napari_medtransformer.plugin.prompts.preferences_dialog import PreferencesDialog
from napari_medtransformer.plugin.prompts.tools import Tool
from napari_medtransformer.plugin.widgets.style import (
    NEGATIVE,
    POSITIVE,
    enable,
    quiet_style,
    row,
    section,
    tool_button,
)
from napari_medtransformer.plugin.widgets.theming import dress

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController

TOOLS = (
    (Tool.POINT, "point", "Point", "Click a structure (P)"),
    (Tool.BOX, "box", "Box", "Drag a box around a structure (B)"),
    (Tool.SCRIBBLE, "scribble", "Scribble", "Paint a stroke on a structure (D)"),
    (Tool.LASSO, "lasso", "Lasso", "Drag around a structure, or click corners and double-click (L)"),
    (Tool.REFINE, "refine", "Refine", "Click a label of another layer: the object takes it over, to be corrected (G)"),
    (Tool.EDIT, "edit", "Edit", "Click a prompt to select it, drag to move it, Del removes it (E)"),
    (Tool.PAN, "pan_arrows", "Move", "Move and zoom only; a click still asks the Attention dock (Esc)"),
)
_COLUMNS = 3


class PromptSection(QWidget):
    """A face of the controller; `refresh` shows it as it is now."""

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self.controller = controller
        self._windows: dict[str, QDialog] = {}
        settings = _small_button("gear", "Settings: slices ahead, memory, autosave, cluster")
        settings.clicked.connect(lambda: self._open("settings", lambda: PreferencesDialog(controller, self)))
        self.help = _small_button("help", "Keys and mouse")
        self.help.clicked.connect(lambda: self._open("help", lambda: HelpDialog(self)))
        frame, layout = section("Prompt", settings, self.help)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(frame)
        layout.addLayout(self._tool_grid())
        layout.addLayout(self._history_row())
        self.masks = MaskChoice(controller)
        layout.addWidget(self.masks)

    def _tool_grid(self) -> QGridLayout:
        controller = self.controller
        self._tools = QButtonGroup(self)
        self.tools: dict[Tool, QToolButton] = {}
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        for place, (tool, icon_name, text, tip) in enumerate(TOOLS):
            button = tool_button(icon_name, tip, text=text, checkable=True)
            button.clicked.connect(lambda _=False, tool=tool: controller.set_tool(tool))
            self._tools.addButton(button)
            self.tools[tool] = button
            grid.addWidget(button, place // _COLUMNS, place % _COLUMNS)
            grid.setColumnStretch(place % _COLUMNS, 1)
        self._signs = QButtonGroup(self)
        switch = "(T switches; Shift: the other)"
        self.inside = tool_button(
            "plus", f"The prompt marks the structure {switch}", text="Inside", checkable=True, colour=POSITIVE
        )
        self.outside = tool_button(
            "minus", f"It marks what is not the structure {switch}", text="Outside", checkable=True, colour=NEGATIVE
        )
        for positive, button in ((True, self.inside), (False, self.outside)):
            self._signs.addButton(button)
            button.clicked.connect(lambda _=False, positive=positive: controller.set_positive(positive))
        self.brush = QSlider(Qt.Orientation.Horizontal)
        self.brush.setRange(1, 30)
        self.brush.setToolTip("How broad a stroke is")
        self.brush.valueChanged.connect(lambda value: controller.gestures.set_brush_radius(value / 2))
        for place, button in enumerate((self.inside, self.outside), start=len(TOOLS)):
            grid.addWidget(button, place // _COLUMNS, place % _COLUMNS)
        self.brush_row = QWidget()
        caption = QLabel("Stroke width")
        dress(caption, quiet_style)
        line = row(caption, self.brush)
        line.setStretch(1, 1)
        self.brush_row.setLayout(line)
        grid.addWidget(self.brush_row, 3, 0, 1, _COLUMNS)
        return grid

    def _history_row(self) -> QHBoxLayout:
        controller = self.controller
        self.undo = tool_button("undo", "Undo (Ctrl+Z)", text="Undo")
        self.redo = tool_button("redo", "Redo (Ctrl+Shift+Z)")
        self.clear = tool_button("clear", "")
        self.live = tool_button(None, "", text="Live", checkable=True)
        self.preview = tool_button(
            None, "Preview under the cursor what a click would give (H)", text="Preview", checkable=True
        )
        self.undo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.undo.clicked.connect(controller.undo)
        self.redo.clicked.connect(controller.redo)
        self.clear.clicked.connect(controller.prompting.clear_slice)
        self.live.clicked.connect(self._toggle_live)
        self.preview.clicked.connect(self._toggle_preview)
        return row(self.undo, self.redo, self.clear, self.live, self.preview)

    def refresh(self) -> None:
        """Show tools, signs and what can be done now."""
        controller = self.controller
        has_volume = controller.workspace is not None
        in_3d = controller.session is not None and controller.session.in_3d
        tips = {tool: tip for tool, _, _, tip in TOOLS}
        no_box = "The model answers in 3D and takes no boxes; click, paint or draw around the structure"
        for tool, button in self.tools.items():
            button.setChecked(tool is controller.tool)
            takes_it = tool is not Tool.BOX or not in_3d
            enable(button, has_volume and takes_it, tips[tool], no_box if has_volume else controller.obstacle)
        self.inside.setChecked(controller.positive)
        self.outside.setChecked(not controller.positive)
        for button in (self.inside, self.outside):
            button.setEnabled(has_volume and controller.tool.has_sign)
        self.brush_row.setVisible(controller.tool is Tool.SCRIBBLE)
        self.brush.blockSignals(True)
        self.brush.setValue(round(2 * controller.gestures.brush_radius))
        self.brush.blockSignals(False)
        waiting = controller.prediction.waiting()
        self.live.setChecked(controller.prediction.auto)
        self.live.setText(f"Run {waiting}" if waiting else "Live")
        self.live.setToolTip(
            "On: every prompt is answered at once"
            if controller.prediction.auto
            else "Prompts wait: S or this button answers them"
            if waiting
            else "Off: prompts wait until you press S"
        )
        self.preview.setChecked(controller.hover.on)
        by_click = controller.tool is Tool.POINT
        tip = "Preview under the cursor what a click would give (H)"
        none = "The model answers in 3D" if in_3d else "Choose Point; other tools have none"
        enable(self.preview, by_click and not in_3d, tip, none)
        key = controller.current_key
        here = () if key is None else controller.prompting.on_slice(key)
        enable(self.undo, controller.prompting.can_undo, "Undo (Ctrl+Z)", "Nothing to undo yet")
        enable(self.redo, controller.prompting.can_redo, "Redo (Ctrl+Shift+Z)", "Nothing to redo")
        clear = "Remove this object's prompts on this slice (Shift+C)"
        enable(self.clear, bool(here), clear, "No prompts of this object on this slice")
        self.masks.refresh()

    def _toggle_live(self) -> None:
        controller = self.controller
        if controller.prediction.waiting():
            controller.prediction.run()
            controller.changed.emit()
        else:
            controller.set_preferences(replace(controller.preferences, auto=not controller.prediction.auto))

    def _toggle_preview(self) -> None:
        controller = self.controller
        controller.set_preferences(replace(controller.preferences, hover=not controller.hover.on))

    def _open(self, name: str, make: Callable[[], QDialog]) -> None:
        window = self._windows.get(name)
        if window is None:
            window = self._windows[name] = make()
        window.show()
        window.raise_()


def _small_button(icon_name: str, tip: str) -> QToolButton:
    button = tool_button(icon_name, tip)
    button.setFixedSize(20, 20)
    dress(button, lambda: "QToolButton { background: transparent; border: 0; padding: 0; }")
    button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    return button
