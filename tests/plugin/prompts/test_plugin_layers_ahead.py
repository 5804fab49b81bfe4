"""The layers that the first prompt needs are there before it, once, and leave no empty ones behind."""

from __future__ import annotations

from typing import Any

from napari.layers import Image

from napari_medtransformer.plugin.prompts.tools import Tool


def names(desk: Any) -> list[str]:
    return [layer.name for layer in desk.viewer.layers]


def test_masks_and_points_wait_for_the_first_click(docked: Any, torso: Any, liver: Any) -> None:
    desk, _ = docked(torso())
    desk.qtbot.waitUntil(lambda: "torso_ct points" in names(desk))
    assert names(desk) == ["torso_ct", "torso_ct objects", "torso_ct points"]
    assert desk.viewer.layers.selection.active is desk.controller.layer
    assert not desk.controller.unsaved()
    desk.show(liver)
    desk.click(desk.controller.layer, liver)
    desk.wait()
    assert desk.controller.session.labels[liver] == 1
    assert names(desk) == ["torso_ct", "torso_ct objects", "torso_ct points"]


def test_lines_wait_for_the_first_box_once_its_tool_is_taken(docked: Any, torso: Any) -> None:
    desk, _ = docked(torso())
    desk.qtbot.waitUntil(lambda: "torso_ct points" in names(desk))
    assert "torso_ct shapes" not in names(desk)
    desk.controller.set_tool(Tool.BOX)
    desk.qtbot.waitUntil(lambda: "torso_ct shapes" in names(desk))


def test_without_the_prompt_dock_nothing_is_made(open_desk: Any, torso: Any) -> None:
    desk = open_desk(torso())
    desk.qtbot.wait(100)
    assert names(desk) == ["torso_ct"]


def test_what_the_user_deletes_does_not_come_back_by_itself(docked: Any, torso: Any) -> None:
    desk, _ = docked(torso())
    desk.qtbot.waitUntil(lambda: "torso_ct points" in names(desk))
    desk.viewer.layers.remove("torso_ct points")
    desk.controller.changed.emit()
    desk.qtbot.wait(100)
    assert "torso_ct points" not in names(desk)


def test_only_the_first_volume_gets_its_layers_ahead(docked: Any, torso: Any) -> None:
    desk, _ = docked(torso())
    desk.qtbot.waitUntil(lambda: "torso_ct points" in names(desk))
    other = desk.viewer.add_layer(Image(desk.controller.layer.data[:8].copy(), name="other", scale=(3, 3, 3)))
    desk.controller.set_layer(other)
    desk.wait()
    desk.qtbot.wait(100)
    assert "other objects" not in names(desk)


def test_a_closed_image_leaves_no_empty_masks(docked: Any, torso: Any) -> None:
    desk, _ = docked(torso())
    desk.qtbot.waitUntil(lambda: "torso_ct points" in names(desk))
    desk.viewer.layers.remove(desk.controller.layer)
    desk.qtbot.waitUntil(lambda: not len(desk.viewer.layers))
