"""A picker of models in a real viewer, with settings and weights of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from model_pickers import PATIENCE_MS
from qtpy.QtCore import QCoreApplication, QEvent

from napari_medtransformer.plugin.models.picker import ModelPicker
from napari_medtransformer.plugin.models.slot import answers_prompts


@pytest.fixture(autouse=True)
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings and weights in empty folders; no network beyond this machine."""
    monkeypatch.setenv("MEDT_SETTINGS", str(tmp_path / "settings.json"))
    monkeypatch.setenv("MEDT_CACHE", str(tmp_path / "weights"))
    for name in ("MEDT_MIRROR", "MEDT_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def open_picker(open_desk) -> Iterator:
    """A function that opens a viewer on layers and the picker beside it."""
    pickers = []

    def open_it(*layers, model=None):
        desk = open_desk(*layers, model=model)
        picker = ModelPicker(desk.controller.models, answers_prompts, desk.viewer.window._qt_window)
        picker.open_at()
        desk.qtbot.waitUntil(lambda: picker.details.device.count() > 1, timeout=PATIENCE_MS)
        pickers.append(picker)
        return desk, picker

    yield open_it
    for picker in pickers:
        picker.close()
        picker.deleteLater()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
