"""The card of the Prompt dock about objects: the list, 3D, cleaning up, and what leaves the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QGridLayout, QMenu, QToolButton, QVBoxLayout, QWidget

from napari_medtransformer.plugin.prompts.actions import EDITS
from napari_medtransformer.plugin.prompts.files import SESSION_FILTER
from napari_medtransformer.plugin.prompts.objects_list import ObjectsList
from napari_medtransformer.plugin.prompts.statistics_table import Row, StatisticsTable
from napari_medtransformer.plugin.widgets.steady import CalmBar
from napari_medtransformer.plugin.widgets.style import enable, folding, row, section, tool_button
from napari_medtransformer.progress import Progress
from napari_medtransformer.prompting.state import SessionObject

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController

_EDIT_TIPS = {
    "fill": "Shapes between the prompted slices, without the model",
    "smooth": "Smooth the outline in 3D; its volume stays",
    "largest": "Keep the largest connected part",
    "holes": "Fill what the object encloses on its slices",
}


class ObjectsSection(QWidget):
    """A face of the controller; `refresh` shows it as it is now."""

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self.controller = controller
        self.measurements: StatisticsTable | None = None
        frame, layout = section("Objects")
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(frame)
        self._add_list(layout)
        self._add_following(layout)
        self._add_files(layout)
        self.show_progress(None)
        controller.actions.progressed.connect(self.show_progress)
        controller.actions.measured.connect(self._show_statistics)

    def _add_list(self, layout: QVBoxLayout) -> None:
        actions = self.controller.actions
        self.objects = ObjectsList()
        self.objects.selected.connect(actions.select_object)
        self.objects.renamed.connect(actions.rename_object)
        self.objects.classed.connect(actions.class_object)
        self.objects.recoloured.connect(actions.colour_object)
        self.objects.reordered.connect(actions.order_objects)
        layout.addWidget(self.objects, 1)
        self.new = tool_button("add", "A further object (N)", text="New")
        self.measure = tool_button("table", "")
        self.clear_all = tool_button("erase", "")
        self.delete = tool_button("delete", "")
        self.new.clicked.connect(actions.new_object)
        self.measure.clicked.connect(self.open_measurements)
        self.clear_all.clicked.connect(lambda: actions.clear_object(self._current_object()))
        self.delete.clicked.connect(lambda: actions.remove_object(self._current_object()))
        layout.addLayout(row(self.new, self.measure, self.clear_all, self.delete))

    def _add_following(self, layout: QVBoxLayout) -> None:
        actions = self.controller.actions
        self.propagate = tool_button("stack", "", text="Propagate to 3D")
        self.propagate.clicked.connect(lambda: actions.propagate())
        self.cancel = tool_button("clear", "Stop; nothing of it is kept")
        self.cancel.clicked.connect(actions.cancel)
        layout.addLayout(row(self.propagate, self.cancel))
        self.progress = CalmBar()
        self.progress.setFixedHeight(14)
        layout.addWidget(self.progress)
        edits = QWidget()
        grid = QGridLayout(edits)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        self.edits: dict[str, QToolButton] = {}
        for place, (kind, (title, _)) in enumerate(EDITS.items()):
            button = tool_button(None, "", text=title)
            button.clicked.connect(lambda _=False, kind=kind: actions.edit(kind))
            grid.addWidget(button, place // 2, place % 2)
            self.edits[kind] = button
        folded, self.edits_fold = folding("Fill and clean up", edits, is_open=False)
        layout.addWidget(folded)

    def _add_files(self, layout: QVBoxLayout) -> None:
        controller = self.controller
        self.commit = tool_button("commit", "", text="Commit")
        self.commit.clicked.connect(controller.files.commit)
        self.save = tool_button("save", "", text="Save labels…")
        self.save.clicked.connect(self.controller.files.save_labels_as)
        self.more = tool_button("more", "Save or open a session, propagate afresh")
        menu = QMenu(self.more)
        self.save_session_action = menu.addAction("Save session…", self.controller.files.save_session_as)
        self.open_session_action = menu.addAction("Open session…", self._open_session)
        self.afresh_action = menu.addAction(
            "Propagate afresh from every prompted slice", controller.actions.propagate_afresh
        )
        self.more.setMenu(menu)
        self.more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        layout.addLayout(row(self.commit, self.save, self.more))

    def refresh(self) -> None:
        """Show the objects and what can be done with them now."""
        controller = self.controller
        session = controller.session
        slices = session.state.slices if session is not None else {}
        own = [there for key, there in slices.items() if key.object_id == self._current_object()]
        mine, prompted = bool(own), any(there.prompts for there in own)
        busy = controller.actions.long_job is not None
        nothing = controller.obstacle or "Click in the image first."
        waiting = "Something is running"
        enable(self.new, session is not None, "A further object (N)", controller.obstacle or "The model is loading")
        enable(self.measure, bool(slices), "Measurements: millilitres, mean, longest diameter", nothing)
        enable(
            self.delete,
            session is not None and bool(session.objects),
            "Delete this object (Undo brings it back)",
            nothing,
        )
        enable(self.clear_all, mine, "Clear this object on every slice (R)", nothing)
        flat = controller.workspace is not None and controller.workspace.volume.shape[0] == 1
        in_3d = session is not None and session.in_3d
        follow = "Follow this object through the slices on both sides (Shift+S)"
        solid = "The model answers in 3D by itself"
        reason = waiting if busy else solid if in_3d else "This image has one slice only" if flat else nothing
        enable(self.propagate, prompted and not busy and not flat and not in_3d, follow, reason)
        for kind, button in self.edits.items():
            enable(button, mine and not busy, f"{_EDIT_TIPS[kind]} (one step of undo)", waiting if busy else nothing)
        enable(self.save, bool(slices), "Save all objects on the image's own grid, the upper over the lower", nothing)
        hand_over = "Hand the labels over to a layer of your own (C); what is there is never replaced unasked"
        enable(self.commit, bool(slices), hand_over, nothing)
        self.save_session_action.setEnabled(bool(slices))
        self.afresh_action.setEnabled(prompted and not busy and not in_3d)
        self.open_session_action.setEnabled(session is not None)
        self._show_objects()

    def show_progress(self, progress: Progress | None) -> None:
        """How far long work is; None hides it."""
        self.cancel.setVisible(progress is not None)
        self.progress.tell(progress)

    def open_measurements(self) -> None:
        """Show the table of measurements, and measure."""
        if self.measurements is None:
            self.measurements = StatisticsTable(self)
        self.measurements.show()
        self.measurements.raise_()
        self.controller.actions.statistics()

    def _show_objects(self) -> None:
        workspace, session = self.controller.workspace, self.controller.session
        if workspace is None or session is None:
            self.objects.show_objects([], {}, {}, 0)
            return
        objects = list(session.objects)
        is_there = workspace.current_object in {one.object_id for one in objects}
        if not is_there:
            objects.append(SessionObject(workspace.current_object))  # it comes into being with its first prompt
        colours = {one.object_id: workspace.colour(one.object_id) for one in objects}
        volumes_ml = self.controller.actions.volumes_ml
        self.objects.show_objects(objects, colours, volumes_ml, workspace.current_object, is_there)

    def _show_statistics(self, rows: list[Row], unit: str) -> None:
        if self.measurements is not None:
            self.measurements.show_rows(rows, unit)

    def _current_object(self) -> int:
        workspace = self.controller.workspace
        return 0 if workspace is None else workspace.current_object

    def _open_session(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open session", "", f"{SESSION_FILTER};;All files (*)")
        if path:
            self.controller.files.open_session(path)
