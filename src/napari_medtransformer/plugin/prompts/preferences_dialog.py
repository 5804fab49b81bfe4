"""The settings of prompting, in a window: live or on demand, preview, slices ahead, memory, disk, autosave, cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_medtransformer.plugin.widgets.style import QuietLabel, row

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController

_CLUSTER_COLOURS = {"connected": "#35d07f", "reconnecting": "#ffb000", "local": "#8d97a3"}


class PreferencesDialog(QDialog):
    """Changes count at once; not modal."""

    def __init__(self, controller: SessionController, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Prompt settings")
        self.controller = controller
        now = controller.preferences
        form = QFormLayout()
        self.autosave = QCheckBox("Keep unsaved work and offer it at the next start")
        self.autosave.setChecked(now.autosave)
        self.reach = QSpinBox()
        self.reach.setRange(0, 200)
        self.reach.setSuffix(" slices on each side")
        self.reach.setValue(now.reach)
        self.reach.setToolTip("Encoded in the background while you look, so that clicks there are answered at once")
        self.memory = QSpinBox()
        self.memory.setRange(50, 1_000_000)
        self.memory.setSingleStep(500)
        self.memory.setSuffix(" MB of memory")
        self.memory.setValue(now.memory_mb)
        self.memory.setToolTip("For encoded slices of one volume; counts for images opened from now on")
        self.disk = QDoubleSpinBox()
        self.disk.setRange(0, 10_000)
        self.disk.setDecimals(1)
        self.disk.setSuffix(" GB on disk")
        self.disk.setValue(now.disk_gb)
        self.disk.setToolTip("For encoded slices of all volumes, found again when one is reopened; 0 keeps none")
        self.address = QLineEdit(now.cluster)
        self.address.setPlaceholderText("empty: here.  tcp://host:8786 of a dask scheduler")
        self.connect_button = QPushButton("Connect")
        self.cluster_state = QLabel()
        self.cluster_note = QuietLabel()
        form.addRow("Unsaved work", self.autosave)
        form.addRow("Encode ahead", self.reach)
        form.addRow("Encoded slices", self.memory)
        form.addRow("", self.disk)
        form.addRow("Model runs at", row(self.address, self.connect_button))
        form.addRow("", row(self.cluster_state, None))
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.close)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self.cluster_note)
        layout.addWidget(buttons)
        self.setMinimumWidth(460)
        self.autosave.toggled.connect(self._keep)
        for spin in (self.reach, self.memory, self.disk):
            spin.valueChanged.connect(self._keep)
        self.connect_button.clicked.connect(self._connect)
        self.address.returnPressed.connect(self._connect)
        controller.changed.connect(self._show_cluster)
        self._show_cluster()

    def _keep(self) -> None:
        self.controller.set_preferences(
            replace(
                self.controller.preferences,
                autosave=self.autosave.isChecked(),
                reach=self.reach.value(),
                memory_mb=self.memory.value(),
                disk_gb=self.disk.value(),
            )
        )

    def _connect(self) -> None:
        address = self.address.text().strip()
        self.controller.set_preferences(replace(self.controller.preferences, cluster=address))
        self.controller.remote.use(address)

    def _show_cluster(self) -> None:
        remote = self.controller.remote
        state = remote.state
        self.cluster_state.setText(f"● {state}")
        self.cluster_state.setStyleSheet(f"color: {_CLUSTER_COLOURS[state]};")
        self.cluster_note.setText(remote.note)
        self.cluster_note.setVisible(bool(remote.note))
