"""Nothing lost: a killed program's work comes back, closing asks, and labels are never replaced unasked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QApplication

from napari_medtransformer.plugin.layer_volume import SlicePoint, label_under
from napari_medtransformer.plugin.layers import image_layer
from napari_medtransformer.plugin.prompts.commits import Overlap
from napari_medtransformer.plugin.prompts.preferences import (
    Preferences,
    preferences_path,
    read_preferences,
    write_preferences,
)
from napari_medtransformer.plugin.prompts.questions import Closing
from napari_medtransformer.volumes import read_volume

WORK = """
import sys, time
import napari, numpy as np
from qtpy.QtWidgets import QApplication
from napari_medtransformer.plugin.layer_volume import SlicePoint
from napari_medtransformer.plugin.prompts.dock import PromptDock

path, answer, z, y, x = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])
viewer = napari.Viewer(show=False)
viewer.open(path, plugin="napari-medtransformer")
dock = PromptDock(viewer)
viewer.window.add_dock_widget(dock)
controller = dock.controller

def until(done):
    while not done():
        QApplication.processEvents()
        time.sleep(0.01)

until(lambda: controller.session is not None)
controller.clicked(SlicePoint((z, y, x), 0))
controller.actions.rename_object(1, "liver")
controller.actions.new_object()
controller.clicked(SlicePoint((z, y + 20.0, x + 30.0), 0))
controller.clicked(SlicePoint((z, y, x), 1), other_sign=True)
until(lambda: controller.queue.pending == 0)
until(lambda: controller.workspace.autosave is not None)
assert controller.workspace.autosave.flush()
np.savez(answer, labels=controller.session.labels, prompts=repr(controller.session.prompts),
         objects=repr(controller.session.objects))
print("working", flush=True)
time.sleep(600)
"""


@pytest.mark.slow  # a whole program of its own
def test_a_killed_programs_work_is_offered_and_restored(docked, tmp_path, torso_file, liver) -> None:
    answer = tmp_path / "answer.npz"
    command = [sys.executable, "-c", WORK, str(torso_file), str(answer), *map(str, liver)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline().strip() == "working"
        finally:
            program.send_signal(signal.SIGKILL)
    told = np.load(answer)

    data, options, _ = image_layer(read_volume(torso_file))
    desk, dock = docked(Image(data, **options))
    recovery = desk.controller.recovery
    desk.qtbot.waitUntil(lambda: bool(recovery.offers), timeout=180_000)
    assert recovery.offers[0].here
    assert dock.recovery.isVisible()
    assert "3 prompts in 2 objects" in dock.recovery.text.text()
    kept = recovery.offers[0].found.path
    dock.recovery.restore.click()
    desk.wait()
    session = desk.controller.session
    assert repr(session.prompts) == str(told["prompts"])
    assert repr(session.objects) == str(told["objects"])
    np.testing.assert_array_equal(session.labels, told["labels"])
    np.testing.assert_array_equal(desk.controller.workspace.masks.data, told["labels"])
    assert not dock.recovery.isVisible()
    desk.qtbot.waitUntil(lambda: not kept.exists(), timeout=180_000)
    assert desk.controller.workspace.autosave.path.exists()  # still unsaved: kept anew


def test_work_on_an_image_that_is_not_open_is_offered_with_that_image(
    docked, tmp_path, torso, torso_file, liver
) -> None:
    desk, _ = docked(torso())
    desk.prompt(liver)
    desk.wait()
    assert desk.controller.workspace.autosave.flush()
    desk.viewer.layers.remove(desk.controller.layer)
    desk.controller.recovery.look()
    desk.qtbot.waitUntil(lambda: bool(desk.controller.recovery.offers), timeout=180_000)
    (offer,) = desk.controller.recovery.offers
    assert not offer.here
    assert offer.source == torso_file
    desk.controller.recovery.discard(offer)
    assert not offer.found.path.exists()
    assert desk.controller.recovery.offers == []


def test_work_on_another_frame_of_an_open_film_is_restored_there(docked, tmp_path, torso_file, liver) -> None:
    still = nib.load(torso_file)  # of fewer frames, each would be an image of its own
    data = np.asarray(still.dataobj)
    film = tmp_path / "film.nii.gz"
    nib.save(nib.Nifti1Image(np.stack([data, *[data[:, ::-1]] * 15], -1), still.affine), film)
    desk, dock = docked()
    viewer, controller = desk.viewer, desk.controller

    def open_film():
        (layer,) = viewer.open(str(film), plugin="napari-medtransformer")
        viewer.dims.set_point(0, 0)
        desk.wait()
        return layer

    layer = open_film()
    labels = []
    for frame in (0, 2):
        viewer.dims.set_point(0, frame)
        desk.wait()
        desk.prompt(liver)
        desk.wait()
        assert controller.workspace.autosave.flush()
        labels.append(controller.session.labels)
    viewer.layers.remove(layer)
    layer = open_film()
    recovery = controller.recovery
    desk.qtbot.waitUntil(lambda: bool(recovery.offers) and recovery.offers[0].here, timeout=180_000)
    dock.recovery.restore.click()
    desk.wait()
    np.testing.assert_array_equal(controller.session.labels, labels[0])
    (other,) = recovery.offers
    assert not other.here
    dock.recovery.restore.click()
    assert [one for one in viewer.layers if isinstance(one, Image)] == [layer]
    assert controller.workspace.frame == 2
    desk.qtbot.waitUntil(lambda: bool(recovery.offers) and recovery.offers[0].here, timeout=180_000)
    dock.recovery.restore.click()
    desk.wait()
    np.testing.assert_array_equal(controller.session.labels, labels[1])
    assert not recovery.offers


def test_saved_work_is_not_offered_again(docked, tmp_path, torso, liver) -> None:
    desk, _ = docked(torso())
    desk.prompt(liver)
    desk.wait()
    kept: Path = desk.controller.workspace.autosave.path
    assert desk.controller.files.save_session(tmp_path / "work.medt")
    assert not kept.exists()
    assert desk.controller.unsaved() == []


def test_closing_with_unsaved_work_asks_and_stays_if_told_to(docked, torso, liver) -> None:
    desk, _dock = docked(torso())
    asked: list[list[str]] = []
    answers = [Closing.STAY, Closing.LEAVE]

    def ask(names: list[str], kept: bool) -> Closing:
        asked.append(names)
        return answers[len(asked) - 1]

    desk.controller.guard.ask = ask
    window = desk.viewer.window._qt_window
    first = QCloseEvent()
    assert not desk.controller.guard.eventFilter(window, first)  # nothing was done yet
    desk.prompt(liver)
    desk.wait()
    event = QCloseEvent()
    QApplication.sendEvent(window, event)
    assert not event.isAccepted()
    assert window.isVisible()
    assert asked == [["torso_ct"]]
    assert not desk.controller.guard.eventFilter(window, QCloseEvent())
    assert len(asked) == 2


def test_committing_asks_before_it_replaces_labels_and_undo_brings_them_back(docked, torso, liver) -> None:
    layer = torso()
    desk, dock = docked(layer)
    desk.prompt(liver)
    desk.wait()
    mine = Labels(np.zeros(layer.data.shape, np.uint8), scale=layer.scale, translate=layer.translate, name="mine")
    mine.data[liver[0], : liver[1]] = 7
    desk.viewer.add_layer(mine)
    desk.viewer.layers.selection.active = mine
    before = mine.data.copy()
    asked: list[int] = []
    answers: list[Overlap | None] = [None, Overlap.KEEP, Overlap.OVERWRITE]

    def ask(name: str, voxels: int) -> Overlap | None:
        asked.append(voxels)
        return answers[len(asked) - 1]

    desk.controller.files.ask_overlap = ask
    found = desk.controller.session.labels == 1
    dock.work.commit.click()
    np.testing.assert_array_equal(mine.data, before)
    assert asked == [int((found & (before == 7)).sum())]
    dock.work.commit.click()
    np.testing.assert_array_equal(mine.data, np.where(found & (before == 0), 1, before))
    desk.controller.undo()
    np.testing.assert_array_equal(mine.data, before)
    assert desk.controller.session.labels[liver] == 1  # the prompt is another step
    desk.controller.redo()
    dock.work.commit.click()
    np.testing.assert_array_equal(mine.data, np.where(found, 1, before))
    mine.data[liver] = 5  # painted by hand since
    desk.controller.undo()
    desk.controller.undo()
    assert mine.data[liver] == 5
    rest = np.ones(before.shape, bool)
    rest[liver] = False
    np.testing.assert_array_equal(mine.data[rest], before[rest])


def test_a_commit_without_a_layer_makes_one_above_the_masks(docked, torso, liver) -> None:
    desk, dock = docked(torso())
    desk.prompt(liver)
    desk.wait()
    dock.work.commit.click()
    layer = desk.viewer.layers["torso_ct labels"]
    np.testing.assert_array_equal(layer.data, desk.controller.session.labels)
    assert layer.editable
    desk.controller.undo()
    assert not layer.data.any()


def test_preferences_are_kept_and_damaged_ones_left_alone(own_folders) -> None:
    chosen = Preferences(auto=False, memory_mb=300, cluster="tcp://somewhere:8786")
    write_preferences(chosen)
    assert read_preferences() == chosen
    preferences_path().write_text('{"memory_mb": Infinity}')
    with pytest.warns(UserWarning, match="cannot be read"):
        assert read_preferences() == Preferences()
    preferences_path().write_text("{ not json")
    with pytest.warns(UserWarning, match="cannot be read"):
        assert read_preferences() == Preferences()
    assert preferences_path().read_text() == "{ not json"


def test_every_frame_with_unsaved_work_is_saved_before_the_window_closes(
    docked, torso, liver, tmp_path, monkeypatch
) -> None:
    still = torso()
    film = Image(
        np.stack([still.data, still.data[:, ::-1]]),
        scale=(1, *still.scale),
        translate=(0, *still.translate),
        units=("pixel", "mm", "mm", "mm"),
        name="film",
    )
    desk, _dock = docked(film)
    controller = desk.controller
    for frame in (0, 1):
        desk.viewer.dims.set_point(0, frame)
        desk.wait()
        desk.prompt((liver[0], liver[1] + 3 * frame, liver[2]))
        desk.wait()
    saved = []

    def ask(workspace: Any, *_: str) -> str:
        saved.append(workspace.frame)
        return str(tmp_path / f"frame{saved[-1]}.medt")

    monkeypatch.setattr(controller.files, "ask_file", ask)
    desk.controller.guard.ask = lambda names, kept: Closing.SAVE
    assert not desk.controller.guard.eventFilter(desk.viewer.window._qt_window, QCloseEvent())
    assert sorted(saved) == [0, 1]
    assert controller.unsaved() == []


def test_labels_of_another_place_are_neither_committed_to_nor_refined(docked, torso, liver) -> None:
    layer = torso()
    elsewhere = Labels(
        np.zeros(layer.data.shape, np.uint8),
        name="labels of another scan",
        scale=layer.scale,
        translate=np.add(layer.translate, (0, 400, 0)),
        units=layer.units,
    )
    desk, dock = docked(layer)
    desk.viewer.add_layer(elsewhere)
    desk.prompt(liver)
    desk.wait()
    desk.viewer.layers.selection.active = elsewhere
    dock.work.commit.click()
    assert not elsewhere.data.any()
    made = [each for each in desk.viewer.layers if isinstance(each, Labels) and each not in (elsewhere,)]
    assert any(each.data.any() for each in made if each is not desk.controller.workspace.masks)
    elsewhere.data[liver[0]] = 7
    for each in made:
        each.visible = False
    assert label_under(desk.viewer, desk.controller.workspace, SlicePoint(tuple(map(float, liver)), 0)) is None


def test_redo_does_the_newest_step_again_and_no_commit_that_it_replaced(docked, torso, liver) -> None:
    layer = torso()
    mine = Labels(np.zeros(layer.data.shape, np.uint8), scale=layer.scale, translate=layer.translate, name="mine")
    desk, dock = docked(layer)
    desk.viewer.add_layer(mine)
    desk.prompt(liver)
    desk.wait()
    desk.viewer.layers.selection.active = mine
    dock.work.commit.click()
    assert mine.data.any()
    desk.controller.undo()
    assert not mine.data.any()
    desk.controller.redo()
    assert mine.data.any()
    desk.controller.undo()
    desk.prompt((liver[0], liver[1] + 6, liver[2]))
    desk.wait()
    desk.controller.undo()
    desk.wait()
    desk.controller.redo()
    desk.wait()
    assert not mine.data.any()
    assert len(desk.controller.session.prompts) == 2


def test_clearing_a_slice_is_one_step_of_undo(docked, torso, liver) -> None:
    desk, _dock = docked(torso())
    desk.show(liver)
    for beside in (0, 6, -6):
        desk.prompt((liver[0], liver[1] + beside, liver[2]))
        desk.wait()
    desk.controller.prompting.clear_slice()
    desk.wait()
    assert not desk.controller.session.prompts
    desk.controller.undo()
    desk.wait()
    assert len(desk.controller.session.prompts) == 3
