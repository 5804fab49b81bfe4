"""What the docks of one viewer share: the model, the volume, the session, and the worker that runs the slow parts."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Any

from napari.layers import Image, Layer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_medtransformer.errors import MedTransformerError
from napari_medtransformer.plugin import planes
from napari_medtransformer.plugin.actions import SessionActions
from napari_medtransformer.plugin.attention_state import AttentionState
from napari_medtransformer.plugin.canvas import CanvasTools, Tool
from napari_medtransformer.plugin.layer_volume import SlicePoint
from napari_medtransformer.plugin.model_slot import ModelSlot
from napari_medtransformer.plugin.notify import report, reported, tell, warn
from napari_medtransformer.plugin.predicting import PredictionLoop
from napari_medtransformer.plugin.prompt_commands import PromptCommands
from napari_medtransformer.plugin.prompt_layers import box_between
from napari_medtransformer.plugin.view import ViewFollower
from napari_medtransformer.plugin.work import WorkQueue
from napari_medtransformer.plugin.workspace import Workspace
from napari_medtransformer.prompting import PromptSession
from napari_medtransformer.prompting.prompts import BoxPrompt, PointPrompt, Prompt, SliceKey

MEASURE_DELAY_MS = 250
"""Objects are measured once nothing has changed for this long."""

_controllers: weakref.WeakKeyDictionary[Any, SessionController] = weakref.WeakKeyDictionary()


def real_viewer(viewer: Any) -> Any:
    """The viewer behind the proxy that napari hands to docks: a proxy is new each time, and would not live long."""
    return getattr(viewer, "__wrapped__", viewer)


def controller_of(viewer: Any) -> SessionController:
    """The one controller of this viewer, made at the first call."""
    viewer = real_viewer(viewer)
    controller = _controllers.get(viewer)
    if controller is None:
        controller = _controllers[viewer] = SessionController(viewer)
    return controller


class SessionController(QObject):
    """Owns what the docks show and do. Docks call its methods and listen to its signals; they know no model.

    All methods belong to the window's thread. The viewer is held weakly: it owns this object, not the reverse.
    """

    changed = Signal()  # anything a dock shows: prompts, masks, objects, undo, status, model
    layer_changed = Signal()
    queried = Signal(object, bool)  # a SlicePoint to explain, and whether it is only hovered over

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self.queue = WorkQueue()
        self.queue.busy_changed.connect(self._on_busy)
        self.models = ModelSlot(self.queue)
        self.models.loaded.connect(self._on_model)
        self.models.changed.connect(self.changed)
        self.prediction = PredictionLoop(self)
        self.prompting = PromptCommands(self)
        self.actions = SessionActions(self)
        self.attention = AttentionState(self)
        self.tool = Tool.POINT
        self.positive = True
        self.follows_cursor = False
        self.displayed_contrast = False
        self.layer_fault = ""
        self.busy = ""  # what the worker is doing
        self._workspaces: dict[Layer, Workspace] = {}
        self._current: Workspace | None = None
        self._preview: BoxPrompt | None = None
        self._closed = False
        self._users = 0
        self._measure_timer = QTimer(self)
        self._measure_timer.setSingleShot(True)
        self._measure_timer.setInterval(MEASURE_DELAY_MS)
        self._measure_timer.timeout.connect(self.actions.measure)
        self._canvas = CanvasTools(viewer, self)
        self._canvas.allow_double_click_zoom(False)
        viewer.layers.events.removed.connect(self._on_layer_removed)
        self.view = ViewFollower(viewer, self)

    def attach(self, dock: QObject) -> None:
        """A dock uses this controller; when the last one is gone, mouse and worker are given back."""
        self._users += 1
        controller = weakref.ref(self)
        dock.destroyed.connect(lambda: (c := controller()) is not None and c._dock_gone())

    def close(self) -> None:
        """Stop the worker and leave the viewer as it was."""
        if self._closed:
            return
        self._closed = True
        self.view.detach()
        self._measure_timer.stop()
        self.queue.close()
        self._canvas.detach()
        viewer = self._viewer()
        if viewer is not None:
            viewer.layers.events.removed.disconnect(self._on_layer_removed)
            _controllers.pop(viewer, None)

    def _dock_gone(self) -> None:
        self._users -= 1
        if self._users == 0:
            # At the end of the program Qt may have deleted our timers before this dock.
            with suppress(RuntimeError):
                self.close()

    @property
    def viewer(self) -> Any:
        """The viewer, or None once it is gone."""
        return self._viewer()

    @property
    def workspace(self) -> Workspace | None:
        """The volume that is worked on."""
        return self._current

    @property
    def layer(self) -> Image | None:
        return None if self._current is None else self._current.layer

    @property
    def session(self) -> PromptSession | None:
        return None if self._current is None else self._current.session

    @property
    def model(self) -> Any:
        """The model that answers, or None."""
        return self.models.model

    @property
    def obstacle(self) -> str:
        """Why a click cannot be answered now, and what to do about it; empty if it can."""
        if self.layer_fault:
            return self.layer_fault
        if self._current is None:
            return "Open a CT or MR volume: File → Open, or File → Open Sample → MedTransformer."
        if self.models.fault:
            return self.models.fault
        if self.model is None and not self.models.loading:
            return "Choose a model."
        viewer = self.viewer
        if viewer is not None and viewer.dims.ndisplay != 2:
            return "Prompts are given in 2D: choose a plane."
        return ""

    def _on_model(self) -> None:
        for workspace in list(self._workspaces.values()):
            self._start_session(workspace)
        self.view.show()
        self.after_change()

    # ------------------------------------------------------------------ volume

    def set_layer(self, layer: Image | None) -> None:
        """Work on this image layer; a layer that is no volume is refused with a notification."""
        self._preview = None
        if layer is None:
            self._current, self.layer_fault = None, ""
        else:
            workspace = self._workspaces.get(layer)
            if workspace is None:
                try:
                    workspace = Workspace(self.viewer, layer, self.prompting)
                except MedTransformerError as error:
                    self._current, self.layer_fault = None, str(error)
                    report(error)
                    self._show_layer()
                    return
                self._workspaces[layer] = workspace
                if workspace.assumed:
                    tell(workspace.assumed)
                if self.model is not None:
                    self._start_session(workspace)
            self._current, self.layer_fault = workspace, ""
        self._show_layer()

    def _show_layer(self) -> None:
        self.view.show()
        self.layer_changed.emit()
        self.after_change()

    def adopt(self, session: PromptSession) -> None:
        """Work with a session that was loaded from a file."""
        workspace = self._current
        workspace.show_session(session)
        self.keep_current_object()
        for request in session.pending():
            self.prediction.ask(session, request)
        self.after_change()

    def set_displayed_contrast(self, on: bool) -> None:
        """Whether the model sees the layer's contrast limits instead of the volume's own window."""
        self.displayed_contrast = on
        if self._current is not None and self.model is not None:
            self._start_session(self._current)
            self.after_change()

    def show_plane(self, axis: int) -> None:
        """Show axial (0), coronal (1) or sagittal (2) slices."""
        if self.viewer is not None:
            planes.set_plane(self.viewer, axis)

    def _start_session(self, workspace: Workspace) -> None:
        """A session with the present model and window, to which the prompts of the last one are given again."""
        window = None
        if self.displayed_contrast:
            low, high = (float(limit) for limit in workspace.layer.contrast_limits)
            window = (low, high)
        again = workspace.session is not None
        with reported():
            requests = workspace.start_session(self.model, window)
            for request in requests:
                self.prediction.ask(workspace.session, request)
            if again and requests:
                tell("The prompts are predicted anew; undo starts from here.")

    # ------------------------------------------------------------------ canvas

    def set_tool(self, tool: Tool) -> None:
        """What a click on the canvas means from now on."""
        self.tool = tool
        self._canvas.allow_double_click_zoom(tool is Tool.PAN)
        viewer = self.viewer
        if viewer is not None and tool is not Tool.PAN and self.layer is not None:
            active = viewer.layers.selection.active
            if active is not None and str(active.mode) != "pan_zoom":
                active.mode = "pan_zoom"  # else that layer would go on taking the clicks
        self.changed.emit()

    def set_positive(self, positive: bool) -> None:
        """The sign of the next point."""
        self.positive = positive
        self.changed.emit()

    def clicked(self, point: SlicePoint | None, *, other_sign: bool = False) -> None:
        """A click on the canvas: a point prompt with the point tool, and in any case the voxel to explain."""
        if point is None:
            if self._current is not None and self.viewer.dims.ndisplay == 2 and self.tool is not Tool.PAN:
                warn("That click lies outside the image; nothing was added.")
            return
        if self.tool is Tool.POINT:
            positive = self.positive != other_sign
            self.add_prompt(PointPrompt(point.position_zyx, positive, self._current.current_object, point.axis))
        self.queried.emit(point, False)

    def hovered(self, point: SlicePoint | None) -> None:
        """The mouse moved while a dock follows it."""
        if point is not None:
            self.queried.emit(point, True)

    def preview_box(self, start: SlicePoint | None, stop: SlicePoint | None) -> None:
        """Show the box that is being drawn."""
        if self._current is None or (start is None and self._preview is None):
            return
        both = start is not None and stop is not None
        self._preview = box_between(start, stop, self._current.current_object) if both else None
        self._current.refresh(self._preview)

    def box_drawn(self, start: SlicePoint, stop: SlicePoint | None) -> None:
        """A drag with the box tool ended."""
        if stop is not None:
            self.add_prompt(box_between(start, stop, self._current.current_object))

    # ------------------------------------------------------------------ prompts

    def add_prompt(self, prompt: Prompt) -> None:
        """Give the session a prompt and predict."""
        self.prompting.add(prompt)

    def undo(self) -> None:
        """One step back."""
        self.prompting.undo()

    def redo(self) -> None:
        """One step forward again."""
        self.prompting.redo()

    @property
    def current_key(self) -> SliceKey | None:
        """The current object on the slice that is shown."""
        where = self.view.shown_slice()
        if where is None or self.session is None:
            return None
        return SliceKey(self._current.current_object, *where)

    def prompts_on(self, point: SlicePoint) -> tuple[Prompt, ...]:
        """The current object's prompts on the slice of a point, oldest first."""
        return self.prompting.on_slice(SliceKey(self._current.current_object, point.axis, point.voxel[point.axis]))

    def keep_current_object(self) -> None:
        """After undo or loading, the current object may be gone: take the last there is."""
        ids = [o.object_id for o in self.session.objects]
        if ids and self._current.current_object not in ids:
            self._current.current_object = ids[-1]

    def after_change(self) -> None:
        """Show everything as it is now; call it after the session was changed."""
        if self._closed:
            return
        if self._current is not None:
            self._current.refresh()
            self._measure_timer.start()
        self.changed.emit()

    def _on_busy(self, label: str) -> None:
        self.busy = label
        self.changed.emit()

    def _on_layer_removed(self, event: Any) -> None:
        layer = event.value
        if layer is self.layer:
            self.set_layer(None)
        self._workspaces.pop(layer, None)
        for workspace in self._workspaces.values():
            workspace.forget(layer)
        self.attention.layers.forget(layer)
