"""Where the model runs: here, or with a worker of a dask cluster; the state of the connection, shown."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_medtransformer.plugin.notify import report, tell, warn
from napari_medtransformer.plugin.work import WorkQueue

if TYPE_CHECKING:
    from napari_medtransformer.cluster import Cluster, ClusterState
    from napari_medtransformer.plugin.controller import SessionController


class RemoteChoice(QObject):
    """The connection to a cluster, if there is one. Belongs to a controller, which it holds weakly.

    Connecting waits in a thread of its own: the model goes on answering here meanwhile.
    """

    _state_told = Signal(str)

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = weakref.ref(controller)
        self._queue = WorkQueue()
        self.cluster: Cluster | None = None
        self.address = ""
        self.state: ClusterState = "local"
        self.note = ""
        self._state_told.connect(self._on_state)

    def use(self, address: str) -> None:
        """Run the model at this scheduler's workers from now on; empty: here."""
        self.address = address
        if not address:
            self._leave()
            self.note = ""
            self._apply()
            return

        def connect() -> Any:
            from napari_medtransformer.cluster import connect

            return connect(address)

        self.state, self.note = "reconnecting", f"Connecting to {address}…"
        self._queue.submit(connect, label="", key="connect", on_done=self._connected, on_error=self._failed)
        self._changed()

    def close(self) -> None:
        """Let go of the connection."""
        self._queue.close()
        if self.cluster is not None:
            self.cluster.close()
            self.cluster = None

    def _connected(self, cluster: Cluster) -> None:
        self._leave()
        self.cluster, self.state, self.note = cluster, "connected", f"The model runs at {cluster.address}."
        cluster.subscribe(self._state_told.emit)
        self._apply()
        tell(self.note)

    def _failed(self, error: Exception) -> None:
        self._leave()
        self.note = str(error)
        report(error)
        self._apply()

    def _leave(self) -> None:
        if self.cluster is not None:
            cluster, self.cluster = self.cluster, None
            self._queue.submit(cluster.close, label="")
        self.state = "local"

    def _on_state(self, state: ClusterState) -> None:
        if self.cluster is None or state == self.state:
            return
        self.state = state
        if state == "reconnecting":
            self.note = f"The connection to {self.cluster.address} is lost; what is asked meanwhile is answered here."
            warn(self.note)
        elif state == "connected":
            self.note = f"The model runs at {self.cluster.address}."
            tell(self.note)
        self._changed()

    def _apply(self) -> None:
        """Let the sessions ask whoever answers now."""
        controller = self._controller()
        if controller is not None:
            controller.use_cluster(self.cluster)
        self._changed()

    def _changed(self) -> None:
        controller = self._controller()
        if controller is not None:
            controller.changed.emit()
