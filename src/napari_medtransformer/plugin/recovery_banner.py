"""Unsaved work of an earlier session, offered where the user looks first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFrame, QPushButton, QVBoxLayout

from napari_medtransformer.plugin.style import quiet_label, row

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController


class RecoveryBanner(QFrame):
    """Seen only while there is something to recover."""

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = controller
        self.setObjectName("medtRecovery")
        self.setStyleSheet(
            "QFrame#medtRecovery { border: 1px solid #ffb000; border-radius: 5px; }"
            "QFrame#medtRecovery QLabel { color: #ffb000; }"
        )
        self.text = quiet_label()
        self.restore = QPushButton("Restore")
        self.later = QPushButton("Later")
        self.discard = QPushButton("Discard")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(9, 6, 9, 6)
        layout.addWidget(self.text)
        layout.addLayout(row(self.restore, self.later, self.discard))
        self.hide()
