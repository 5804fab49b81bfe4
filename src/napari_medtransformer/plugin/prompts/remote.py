"""Where prompts are answered: here, or by workers of a dask cluster; the state of the connection, shown."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_medtransformer.plugin.notify import report, tell, warn
from napari_medtransformer.plugin.work import WorkQueue

if TYPE_CHECKING:
    from napari_medtransformer.cluster import Cluster, ClusterState
    from napari_medtransformer.plugin.controller import SessionController
    from napari_medtransformer.prompting.remote import RemoteModel


class RemoteChoice(QObject):
    """The connection to a cluster, if there is one. Belongs to a controller, which it holds weakly.

    Connecting waits in a thread of its own: the model here goes on answering meanwhile.
    """

    _told = Signal(str)

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = weakref.ref(controller)
        self._queue = WorkQueue()
        self._cluster: Cluster | None = None
        self._remote: RemoteModel | None = None
        self._connecting = False
        self._started = False
        self.note = ""
        self._told.connect(self._on_told)

    @property
    def state(self) -> ClusterState:
        """connected: workers answer. reconnecting: the model here does until they are back. local: it always does."""
        if self._connecting:
            return "reconnecting"
        if self._cluster is None:
            return "local"
        return "connected" if self._remote is None or self._remote.place != "here" else "reconnecting"

    def use(self, address: str) -> None:
        """Have prompts answered by this scheduler's workers from now on; empty: here."""
        if not address:
            self._leave()
            self._apply("Prompts are answered here.")
            return

        def connect() -> Any:
            from napari_medtransformer.cluster import connect

            return connect(address)

        self._connecting = True
        self._queue.submit(connect, label="", key="connect", on_done=self._connected, on_error=self._failed)
        self._show(f"Connecting to {address}…")

    def start(self) -> None:
        """Connect to the cluster of the settings, the first time there is a model."""
        controller = self._controller()
        if not self._started and controller is not None:
            self._started = True
            if controller.preferences.cluster:
                self.use(controller.preferences.cluster)

    def serve(self) -> None:
        """See to it that every session asks whoever is to answer; call it when sessions or the model changed."""
        controller = self._controller()
        if controller is None or controller.model is None:
            return
        if self._cluster is None or controller.model.card.dimensions == 3:  # those are not asked on clusters
            self._drop_remote()
        elif self._remote is None or self._remote.model is not controller.model:
            from napari_medtransformer.prompting.remote import RemoteModel

            self._drop_remote()
            self._remote = RemoteModel(controller.model, self._cluster, on_state=self._told.emit)
        for session in controller.sessions():
            if session.model is controller.model and not session.in_3d:
                session.use(self._remote)

    def close(self) -> None:
        """Let go of the connection."""
        self._queue.close()
        self._drop_remote()
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None

    def _connected(self, cluster: Cluster) -> None:
        self._leave()
        self._cluster = cluster
        self._apply(f"Prompts are answered at {cluster.address}.")
        tell(self.note)

    def _failed(self, error: Exception) -> None:
        self._leave()
        report(error)
        self._apply(str(error))

    def _leave(self) -> None:
        self._connecting = False
        self._drop_remote()
        if self._cluster is not None:
            cluster, self._cluster = self._cluster, None
            self._queue.submit(cluster.close, label="")

    def _drop_remote(self) -> None:
        if self._remote is not None:
            self._remote.close()
            self._remote = None

    def _on_told(self, line: str) -> None:
        """The place where prompts are answered has changed."""
        (tell if self.state == "connected" else warn)(line)
        self._show(line)

    def _apply(self, note: str) -> None:
        self.serve()
        self._show(note)

    def _show(self, note: str) -> None:
        self.note = note
        controller = self._controller()
        if controller is not None:
            controller.changed.emit()
