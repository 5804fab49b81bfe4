"""Questions that stop the window because an answer is needed: before labels are replaced, and before work is lost."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import napari
from qtpy.QtWidgets import QFileDialog, QMessageBox, QPushButton, QWidget

from napari_medtransformer.plugin.prompts.commits import Overlap

if TYPE_CHECKING:
    from napari_medtransformer.plugin.workspace import Workspace

Answer = TypeVar("Answer")


class Closing(Enum):
    """What becomes of unsaved work when the window closes."""

    SAVE = "save"
    LEAVE = "leave"
    STAY = "stay"


def ask_overlap(name: str, voxels: int) -> Overlap | None:
    """What to do with labels that are there already; None to do nothing."""
    box = QMessageBox(_window())
    box.setIcon(QMessageBox.Icon.Question)
    box.setWindowTitle("Commit")
    box.setText(f"{name} already has other labels in {voxels} voxels that the objects cover.")
    keep = box.addButton("Keep those labels", QMessageBox.ButtonRole.AcceptRole)
    replace = box.addButton("Replace them", QMessageBox.ButtonRole.DestructiveRole)
    new = box.addButton("Into a new layer", QMessageBox.ButtonRole.ActionRole)
    box.addButton(QMessageBox.StandardButton.Cancel)
    box.setDefaultButton(keep)
    answers = {keep: Overlap.KEEP, replace: Overlap.OVERWRITE, new: Overlap.NEW_LAYER}
    return _answer(box, answers)


def ask_closing(names: list[str], kept: bool) -> Closing:
    """What to do with unsaved work on the named images. kept: autosave offers it at the next start."""
    box = QMessageBox(_window())
    box.setIcon(QMessageBox.Icon.Question)
    box.setWindowTitle("Unsaved work")
    box.setText(f"The prompts and objects on {', '.join(names)} are not saved.")
    box.setInformativeText("They are offered again at the next start." if kept else "They will be lost.")
    save = box.addButton("Save session…", QMessageBox.ButtonRole.AcceptRole)
    leave = box.addButton("Close", QMessageBox.ButtonRole.DestructiveRole)
    box.addButton(QMessageBox.StandardButton.Cancel)
    box.setDefaultButton(save)
    answers = {save: Closing.SAVE, leave: Closing.LEAVE}
    return _answer(box, answers) or Closing.STAY


def ask_file(workspace: Workspace, title: str, ending: str, kinds: str) -> str:
    """Where to save something of a volume, beside its image by default; "" if nowhere."""
    volume = workspace.volume
    name = f"{volume.name}_frame{workspace.frame}" if workspace.layer.ndim == 4 else volume.name
    folder = volume.source.path.parent if volume.source is not None else Path.cwd()
    path, _ = QFileDialog.getSaveFileName(_window(), title, str(folder / f"{name}{ending}"), kinds)
    return path


def _answer(box: QMessageBox, answers: Mapping[QPushButton, Answer]) -> Answer | None:
    box.exec()
    clicked = box.clickedButton()
    answer = next((answer for button, answer in answers.items() if clicked is button), None)
    box.deleteLater()  # else it would stay with the window
    return answer


def _window() -> QWidget | None:
    """The window that asks: a question without one has neither its theme nor its place."""
    viewer = napari.current_viewer()
    return None if viewer is None else viewer.window._qt_window
