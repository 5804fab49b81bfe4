"""Where weights lie and come from, and how many models stay in memory: the settings below the picker."""

from __future__ import annotations

from dataclasses import replace

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QLineEdit,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_medtransformer.models.download import CACHE_VARIABLE, MIRROR_VARIABLE, OFFLINE_VARIABLE, cache_folder
from napari_medtransformer.models.settings import read_settings, write_settings
from napari_medtransformer.plugin.notify import reported
from napari_medtransformer.plugin.widgets.style import row, tool_button


class ModelSettings(QWidget):
    """The user's settings about weights; what is entered is kept at once."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.cache = QLineEdit()
        self.cache.setToolTip(f"The folder of downloaded weights; {CACHE_VARIABLE} comes before it.")
        self.browse = tool_button(None, "Choose the folder", text="Browse…")
        self.browse.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.mirror = QLineEdit()
        self.mirror.setPlaceholderText("https://… (empty: the publishers' own addresses)")
        self.mirror.setToolTip(
            f"Asked instead of the publishers, under the same paths; {MIRROR_VARIABLE} comes before it."
        )
        self.offline = QCheckBox("Work offline: fetch nothing")
        self.offline.setToolTip(
            f"Weights that are here or put into the folder are used; {OFFLINE_VARIABLE} comes before it."
        )
        self.kept = QDoubleSpinBox()
        self.kept.setRange(0, 1000)
        self.kept.setDecimals(1)
        self.kept.setSuffix(" GB")
        self.kept.setToolTip("Models used before stay loaded up to this size, so that choosing them again is quick.")
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Folder", row(self.cache, self.browse))
        form.addRow("Mirror", self.mirror)
        form.addRow("Keep loaded", row(self.kept, self.offline, None))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        self.refresh()
        self.cache.editingFinished.connect(self._keep)
        self.mirror.editingFinished.connect(self._keep)
        self.offline.toggled.connect(self._keep)
        self.kept.valueChanged.connect(self._keep)
        self.browse.clicked.connect(self._choose_folder)

    def refresh(self) -> None:
        """Show the settings as they are."""
        settings = read_settings()
        for widget in (self.cache, self.mirror, self.offline, self.kept):
            widget.blockSignals(True)
        self.cache.setText(settings.cache)
        self.cache.setPlaceholderText(str(cache_folder()))
        self.mirror.setText(settings.mirror)
        self.offline.setChecked(settings.offline)
        self.kept.setValue(settings.kept_gb)
        for widget in (self.cache, self.mirror, self.offline, self.kept):
            widget.blockSignals(False)

    def _keep(self, *_: object) -> None:
        before = read_settings()
        with reported():
            after = replace(
                before,
                cache=self.cache.text().strip(),
                mirror=self.mirror.text().strip(),
                offline=self.offline.isChecked(),
                kept_gb=self.kept.value(),
            )
            if after != before:
                write_settings(after)
                self.changed.emit()
            return
        self.refresh()  # what was entered is no setting: a notification says why

    def _choose_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of weights", str(cache_folder()))
        if folder:
            self.cache.setText(folder)
            self._keep()
