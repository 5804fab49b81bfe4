"""Docks that are closed, hidden and opened again: whose mouse and keys are, and the work that goes on."""

from __future__ import annotations

import gc

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QCloseEvent

from napari_medtransformer.plugin.controller import known_controller
from napari_medtransformer.plugin.prompts.dock import PromptDock
from napari_medtransformer.plugin.prompts.questions import Closing
from napari_medtransformer.plugin.prompts.tools import Tool


def test_closing_the_dock_gives_the_viewer_its_mouse_back(open_desk, torso) -> None:
    desk = open_desk(torso())
    callbacks = len(desk.viewer.mouse_drag_callbacks)
    dock = PromptDock(desk.viewer)
    desk.viewer.window.add_dock_widget(dock, name="Prompt")
    desk.viewer.window.remove_dock_widget(dock)
    dock.deleteLater()
    desk.qtbot.waitUntil(lambda: len(desk.viewer.mouse_drag_callbacks) == callbacks - 1)


def test_after_a_docks_x_clicks_and_keys_are_naparis_and_a_new_dock_goes_on_with_the_work(
    open_desk, torso, liver
) -> None:
    layer = torso()
    desk = open_desk(layer)
    window, controller, (z, y, x) = desk.viewer.window, desk.controller, liver
    prompts, _ = window.add_plugin_dock_widget("napari-medtransformer", "Prompt")
    volumes, _ = window.add_plugin_dock_widget("napari-medtransformer", "Volume")
    desk.viewer.layers.selection.active = layer
    desk.show(liver)
    desk.click(layer, liver)
    desk.wait()
    labels = controller.session.labels
    for holder in (prompts, volumes):
        holder.hide()
    desk.click(layer, (z, y, x + 9))  # hidden docks are not closed
    desk.key(Qt.Key.Key_B)
    desk.wait()
    assert controller.tool is Tool.BOX
    assert len(controller.session.prompts) == 2
    controller.undo()
    controller.set_tool(Tool.POINT)
    prompts.title.close_button.click()
    assert desk.viewer.keymap
    volumes.title.close_button.click()
    assert not desk.viewer.keymap
    assert not layer.keymap
    desk.click(layer, (z, y, x + 9))
    desk.key(Qt.Key.Key_B)
    desk.wait()
    assert controller.tool is Tool.POINT
    assert len(controller.session.prompts) == 1
    del prompts, volumes
    gc.collect()
    asked = []
    controller.guard.ask = lambda names, kept: asked.append(names) or Closing.STAY
    assert controller.guard.eventFilter(window._qt_window, QCloseEvent())  # unsaved work is asked about without a dock
    assert asked == [["torso_ct"]]

    _, dock = window.add_plugin_dock_widget("napari-medtransformer", "Prompt")
    desk.wait()
    assert dock.controller is controller
    np.testing.assert_array_equal(controller.session.labels, labels)
    np.testing.assert_array_equal(controller.workspace.masks.data, labels)
    desk.click(layer, (z, y, x + 9))
    desk.key(Qt.Key.Key_B)
    desk.wait()
    assert controller.tool is Tool.BOX
    assert len(controller.session.prompts) == 2
    controller.undo()
    controller.undo()
    assert not controller.session.prompts


def test_a_window_that_closes_after_its_docks_ends_the_worker(open_desk, torso) -> None:
    desk = open_desk(torso())
    holder, _ = desk.viewer.window.add_plugin_dock_widget("napari-medtransformer", "Prompt")
    holder.title.close_button.click()
    desk.qtbot.wait(50)
    desk.viewer.close()
    desk.qtbot.waitUntil(lambda: known_controller(desk.viewer) is None)
