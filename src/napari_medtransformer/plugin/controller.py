"""What the docks of one viewer share: the model, the volume, the session, and the worker that runs the slow parts."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Any

from napari.layers import Image, Layer
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QWidget

from napari_medtransformer.errors import MedTransformerError
from napari_medtransformer.plugin import planes
from napari_medtransformer.plugin.attention.state import AttentionState
from napari_medtransformer.plugin.collecting import Collecting
from napari_medtransformer.plugin.docking import arrange
from napari_medtransformer.plugin.in_front import InFront
from napari_medtransformer.plugin.layer_volume import SlicePoint, frames_of
from napari_medtransformer.plugin.models.intensity_window import ModelWindow
from napari_medtransformer.plugin.models.slot import ModelSlot
from napari_medtransformer.plugin.notify import report, reported, tell, warn
from napari_medtransformer.plugin.open_volumes import OpenVolumes
from napari_medtransformer.plugin.prompts.actions import SessionActions
from napari_medtransformer.plugin.prompts.closing import CloseGuard
from napari_medtransformer.plugin.prompts.commands import PromptCommands
from napari_medtransformer.plugin.prompts.files import SessionFiles
from napari_medtransformer.plugin.prompts.gestures import Gestures
from napari_medtransformer.plugin.prompts.hover import HoverPreview
from napari_medtransformer.plugin.prompts.mouse_and_keys import MouseAndKeys
from napari_medtransformer.plugin.prompts.obstacles import obstacle_to_clicks
from napari_medtransformer.plugin.prompts.predicting import PredictionLoop
from napari_medtransformer.plugin.prompts.preferences import Preferences, read_preferences, write_preferences
from napari_medtransformer.plugin.prompts.recovery import Recovery
from napari_medtransformer.plugin.prompts.remote import RemoteChoice
from napari_medtransformer.plugin.prompts.showing import Showing
from napari_medtransformer.plugin.prompts.tools import Tool
from napari_medtransformer.plugin.view import ViewFollower
from napari_medtransformer.plugin.work import WorkQueue
from napari_medtransformer.plugin.workspace import Workspace
from napari_medtransformer.prompting import PromptSession
from napari_medtransformer.prompting.embedding_store import EmbeddingStore
from napari_medtransformer.prompting.prompts import PointPrompt, SliceKey

_controllers: weakref.WeakKeyDictionary[Any, SessionController] = weakref.WeakKeyDictionary()


def real_viewer(viewer: Any) -> Any:
    """The viewer behind the proxy that napari hands to docks: a proxy is new each time, and would not live long."""
    return getattr(viewer, "__wrapped__", viewer)


def controller_of(viewer: Any) -> SessionController:
    """The one controller of this viewer, made at the first call."""
    viewer = real_viewer(viewer)
    return known_controller(viewer) or _controllers.setdefault(viewer, SessionController(viewer))


def known_controller(viewer: Any) -> SessionController | None:
    """The controller of this viewer if a dock has made one."""
    return _controllers.get(real_viewer(viewer))


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
        self.queue = WorkQueue(lasting=True)
        self.showing = Showing(self)
        self.showing.busy_changed.connect(self.changed)
        self.queue.busy_changed.connect(self.showing.work)
        self.models = ModelSlot(self.queue)
        self.models.loaded.connect(self._on_model)
        self.models.changed.connect(self.changed)
        self.preferences = read_preferences()
        self.prediction: PredictionLoop = PredictionLoop(self)
        self.hover = HoverPreview(self)
        self.gestures = Gestures(self)
        self.prompting: PromptCommands = PromptCommands(self)
        self.actions: SessionActions = SessionActions(self)
        self.files: SessionFiles = SessionFiles(self)
        self.remote = RemoteChoice(self)
        self.recovery = Recovery(self)
        self._store: EmbeddingStore | None = None
        self.model_window = ModelWindow(self)
        self.attention = AttentionState(self)
        self.tool = Tool.POINT
        self.positive = True
        self.follows_cursor = False
        self.layer_fault = ""
        self._refused: weakref.ref[Image] | None = None
        self._volumes = OpenVolumes()
        self.in_front = InFront(viewer, self, self._volumes)
        self._closed = False
        self._hands = MouseAndKeys(viewer, self)
        self.guard = CloseGuard(viewer, self)
        self._hands.docks.destroyed_with_window.connect(self._end)
        viewer.layers.events.removed.connect(self._on_layer_removed)
        self.view = ViewFollower(viewer, self)
        self._collecting = Collecting(viewer, self.models)

    def attach(self, dock: QWidget) -> None:
        """A dock uses this controller; while none is in the window, napari has mouse and keys, and sessions wait."""
        self._hands.docks.add(dock)
        arrange(dock, self.viewer)

    def close(self) -> None:
        """Stop the worker and leave the viewer as it was."""
        if self._closed:
            return
        self._closed = True
        self._collecting.detach()
        self.view.detach()
        self.in_front.detach()
        self.hover.close()
        self.remote.close()
        for workspace in self._volumes:
            self.recovery.let_go(workspace, discard=not workspace.unsaved)
        self.recovery.close()
        self.showing.close()
        self.model_window.close()
        self.queue.close()
        self.models.close()
        self._hands.detach()
        viewer = self._viewer()
        if viewer is not None:
            viewer.layers.events.removed.disconnect(self._on_layer_removed)
            _controllers.pop(viewer, None)

    def _end(self) -> None:
        with suppress(RuntimeError):  # at the end of the program Qt may have deleted our timers before the docks
            self.close()

    @property
    def viewer(self) -> Any:
        """The viewer, or None once it is gone."""
        return self._viewer()

    @property
    def workspace(self) -> Workspace | None:
        """The volume that is worked on."""
        return self._volumes.current

    @property
    def layer(self) -> Image | None:
        return None if self.workspace is None else self.workspace.layer

    @property
    def refused(self) -> Image | None:
        """The image that was chosen last and is no volume; None once another was chosen."""
        return None if self._refused is None else self._refused()

    @property
    def session(self) -> PromptSession | None:
        return None if self.workspace is None else self.workspace.session

    @property
    def model(self) -> Any:
        """The model that answers, or None."""
        return self.models.model

    @property
    def busy(self) -> str:
        """What the worker is doing, once it takes a while."""
        return self.showing.busy

    @property
    def obstacle(self) -> str:
        """Why a click cannot be answered now, and what to do about it; empty if it can."""
        return obstacle_to_clicks(self)

    def _on_model(self) -> None:
        for workspace in self._volumes:
            self._start_session(workspace)
        self.remote.start()
        self.view.show()
        self.after_change()

    # ------------------------------------------------------------------ volume

    def set_layer(self, layer: Image | None) -> None:
        """Work on this image layer; a layer that is no volume is refused with a notification."""
        self._leave()
        self._refused = None
        if layer is None:
            self._volumes.current, self.layer_fault = None, ""
        else:
            try:
                self._volumes.current, self.layer_fault = self._workspace_of(layer, self._shown_frame(layer)), ""
            except MedTransformerError as error:
                self._volumes.current, self.layer_fault, self._refused = None, str(error), weakref.ref(layer)
                report(error)
        self._show_layer()

    def turn_to(self, workspace: Workspace) -> bool:
        """Work on a volume that was worked on before, because its layers were touched; whether it is there to be."""
        if workspace is not self.workspace and workspace in self._volumes:
            planes.show_frame(self.viewer, workspace.layer, workspace.frame)
            self.set_layer(workspace.layer)
        return workspace is self.workspace

    def follow_slice(self) -> None:
        """Another slice is shown; of a layer (frame, z, y, x), perhaps another volume."""
        self.hover.clear()
        self.gestures.drop_polygon()
        current = self.workspace
        # While many layers are taken out, slices change when the image is gone already.
        if current is not None and frames_of(current.layer) > 1 and current.layer in self.viewer.layers:
            frame = self._shown_frame(current.layer)
            if frame != current.frame:
                self._leave()
                self._volumes.current = self._workspace_of(current.layer, frame)
                self._show_layer()
                return
        self.changed.emit()

    def _workspace_of(self, layer: Image, frame: int) -> Workspace:
        """The workspace of a layer's volume, made at the first call. Raises UnsupportedVolume."""
        workspace = self._volumes.of(layer, frame)
        if workspace is None:
            workspace = Workspace(self.viewer, layer, self.prompting, frame)
            self._volumes.add(workspace)
            if workspace.assumed and frame == self._shown_frame(layer):
                tell(workspace.assumed)
            if self.model is not None:
                self._start_session(workspace)
        workspace.set_visible(True)
        return workspace

    def _leave(self) -> None:
        """Put the current volume's things aside."""
        self.hover.clear()
        self.gestures.drop_polygon()
        self._volumes.leave()

    def _shown_frame(self, layer: Layer) -> int:
        return planes.shown_frame(self.viewer, layer)

    def _show_layer(self) -> None:
        self.view.show()
        self.layer_changed.emit()
        self.after_change()

    def adopt(self, session: PromptSession) -> None:
        """Work with a session that was loaded from a file."""
        workspace = self.workspace
        workspace.show_session(session)
        self.remote.serve()
        self.model_window.show(session.window)
        self.keep_current_object()
        self.prediction.follow(session, session.pending())
        self.after_change()

    def set_displayed_contrast(self, on: bool) -> None:
        """Whether the model sees the window on screen, as unless told otherwise; off, it keeps the present one."""
        self.model_window.set_as_displayed(on)
        self.after_change()

    def show_plane(self, axis: int) -> None:
        """Show axial (0), coronal (1) or sagittal (2) slices."""
        if self.viewer is not None:
            planes.set_plane(self.viewer, axis)

    def _start_session(self, workspace: Workspace) -> None:
        """The present model and window answer from now on; prompts, masks and undo stay."""
        self.model_window.follow(workspace.layer)
        window = self.model_window.of(workspace.layer, workspace.volume)
        with reported():
            memory = self.preferences.memory_mb * 1_000_000
            requests = workspace.use_model(self.model, window, memory, self.embedding_store())
            self.remote.serve()
            self.prediction.follow(workspace.session, requests)

    def embedding_store(self) -> EmbeddingStore | None:
        """Where encoded slices are kept on disk; None if the user keeps none there."""
        budget = int(self.preferences.disk_gb * 1e9)
        if budget and (self._store is None or self._store.budget_bytes != budget):
            self._store = EmbeddingStore(budget_bytes=budget)
        return self._store if budget else None

    def set_preferences(self, preferences: Preferences) -> None:
        """Take over and keep what the user decided."""
        self.preferences = preferences
        with reported():
            write_preferences(preferences)
        self.prediction.set_auto(preferences.auto)
        self.hover.set_on(preferences.hover)
        self.changed.emit()

    # ------------------------------------------------------------------ canvas

    def set_tool(self, tool: Tool) -> None:
        """What a click on the canvas means from now on."""
        self.tool = tool
        self.hover.clear()
        self.gestures.drop_polygon()
        if tool is not Tool.EDIT and self.prompting.selected:
            self.prompting.select(())
        self._hands.canvas.allow_double_click_zoom(tool is Tool.PAN)
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

    @property
    def wants_moves(self) -> bool:
        """Whether anybody follows the cursor."""
        return self.follows_cursor or self.hover.wants_moves

    def clicked(self, point: SlicePoint | None, *, other_sign: bool = False) -> None:
        """A click on the canvas: a prompt of the tool, and in any case the voxel to explain."""
        if point is None:
            if self.workspace is not None and self.viewer.dims.ndisplay == 2 and self.tool is not Tool.PAN:
                warn(self.in_front.in_words or "That click lies outside the image; nothing was added.")
            return
        self.hover.clear()
        if self.tool is not Tool.POINT:
            self.gestures.click(point, other_sign)
        elif not self._clicks_only_ask:
            positive = self.positive != other_sign
            self.prompting.add(PointPrompt(point.position_zyx, positive, self.workspace.current_object, point.axis))
        self.queried.emit(point, False)

    @property
    def _clicks_only_ask(self) -> bool:
        """Whether a click is for the automatic model that is looked into, and there is no dock to see a prompt in."""
        return self.attention.inspected.is_automatic and not self._hands.docks.give_prompts

    def hovered(self, point: SlicePoint | None) -> None:
        """The mouse moved while somebody follows it."""
        if self.hover.wants_moves:
            self.hover.moved(point)
        if point is not None and self.follows_cursor:
            self.queried.emit(point, True)

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
        return SliceKey(self.workspace.current_object, *where)

    def keep_current_object(self) -> None:
        """After undo or loading, the current object may be gone: take the last there is."""
        ids = [o.object_id for o in self.session.objects]
        if ids and self.workspace.current_object not in ids:
            self.workspace.current_object = ids[-1]

    def sessions(self) -> list[PromptSession]:
        """Of every volume that was worked on."""
        return self._volumes.sessions()

    def unsaved(self) -> list[Workspace]:
        """The volumes with work that no file holds."""
        return self._volumes.unsaved(self.viewer)

    def after_change(self) -> None:
        """Show everything as it is now; call it after the session was changed."""
        if not self._closed:
            self.showing.now()

    def _on_layer_removed(self, event: Any) -> None:
        layer = event.value
        if layer is self.layer:
            self.set_layer(None)
        for workspace in self._volumes.forget(layer):
            self.recovery.let_go(workspace, discard=not workspace.unsaved)
        self.attention.layers.forget(layer)
