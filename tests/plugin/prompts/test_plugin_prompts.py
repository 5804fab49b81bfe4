"""Every kind of prompt by hand, in each plane, on volumes of any orientation: the saved mask is where the hand was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage

from napari_medtransformer.plugin.layers import image_layer, labels_layer
from napari_medtransformer.plugin.planes import set_plane
from napari_medtransformer.plugin.prompts.tools import Tool
from napari_medtransformer.volumes import read_volume
from napari_medtransformer.volumes.sample_data import sample_label_names, sample_path

LIVER = next(number for number, name in sample_label_names("total").items() if name == "liver")
ORIENTATIONS = ("RAS", "LPS", "oblique")


@dataclass(frozen=True)
class Scene:
    """The sample CT in some orientation, and the voxels of its liver in the order of our layers, (z, y, x)."""

    path: Path
    liver: np.ndarray

    def middle(self, axis: int) -> tuple[int, int, int]:
        """The liver's most interior voxel on its largest slice across an axis."""
        index = int(np.argmax(self.liver.sum(axis=tuple(a for a in range(3) if a != axis))))
        plane = np.take(self.liver, index, axis=axis)
        y, x = np.unravel_index(
            int(np.argmax(ndimage.distance_transform_edt(np.pad(plane, 1))[1:-1, 1:-1])), plane.shape
        )
        place = np.insert(np.array([y, x]), axis, index)
        return int(place[0]), int(place[1]), int(place[2])

    def saved(self, path: Path) -> np.ndarray:
        """Labels of a file in the order (z, y, x), by nibabel: superior, posterior and left grow."""
        return _upright(nib.load(path))


def _upright(image: nib.Nifti1Image) -> np.ndarray:
    array = np.asarray(nib.as_closest_canonical(image).dataobj)  # (right, anterior, superior) grow
    return array[::-1, ::-1].transpose(2, 1, 0)


def _turned(image: nib.Nifti1Image, orientation: str) -> nib.Nifti1Image:
    if orientation == "oblique":
        angle = np.deg2rad(12)
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        return nib.Nifti1Image(np.asarray(image.dataobj), turn @ image.affine)
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(tuple(orientation)))
    array = nib.apply_orientation(np.asarray(image.dataobj), turn)
    return nib.Nifti1Image(array, image.affine @ inv_ornt_aff(turn, image.shape))


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scene]:
    folder = tmp_path_factory.mktemp("scenes")
    image = nib.load(sample_path("example_ct.nii.gz"))
    labels = nib.load(sample_path("example_seg_fast_force_split.nii.gz"))
    made = {}
    for orientation in ORIENTATIONS:
        path = folder / f"ct_{orientation}.nii"
        turned = _turned(image, orientation)
        nib.save(turned, path)
        if orientation != "oblique":
            assert "".join(nib.aff2axcodes(turned.affine)) == orientation
        made[orientation] = Scene(path, _upright(_turned(labels, orientation)) == LIVER)
    return made


def along(middle: tuple[int, int, int], axis: int, row: float, column: float) -> tuple[float, float, float]:
    """A place on the slice of a voxel, so many rows and columns from it."""
    offset = np.insert(np.array([row, column]), axis, 0.0)
    z, y, x = (float(p) for p in np.add(middle, offset))
    return z, y, x


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_prompt_by_hand_marks_the_voxel_under_the_hand(open_desk, scenes, tmp_path, axis, orientation) -> None:
    scene = scenes[orientation]
    volume = read_volume(scene.path)
    data, options, _ = image_layer(volume)
    layer = Image(data, **options)
    known, known_options, _ = labels_layer(scene.liver.astype(np.uint8), volume, "known liver")
    desk = open_desk(layer, Labels(known, visible=False, **known_options))
    controller = desk.controller
    set_plane(desk.viewer, axis)
    middle = scene.middle(axis)
    beside = along(middle, axis, 5, -4)
    desk.show(middle)
    desk.wait()
    target = tmp_path / "saved.nii"

    def saved_after(tool: Tool, gesture, *, first: bool = False) -> np.ndarray:
        """What is saved after a gesture, alone or after a click in the middle; then everything is undone."""
        if first:
            controller.set_tool(Tool.POINT)
            desk.click(layer, middle)
            desk.wait()
        controller.set_tool(tool)
        gesture()
        desk.wait()
        controller.files.save_labels(target)
        desk.wait()
        while controller.prompting.can_undo:
            controller.undo()
        desk.wait()
        assert not controller.session.live_labels.any()
        return scene.saved(target)

    place = tuple(round(p) for p in beside)
    assert saved_after(Tool.POINT, lambda: desk.click(layer, middle))[middle] == 1
    refused = saved_after(Tool.POINT, lambda: desk.click(layer, beside, shift=True), first=True)
    assert (refused[middle], refused[place]) == (1, 0)
    corners = along(middle, axis, -9, -9), along(middle, axis, 9, 9)
    assert saved_after(Tool.BOX, lambda: desk.drag(layer, *corners))[middle] == 1
    painted = [along(middle, axis, step, 0) for step in (-4, 0, 4)]
    assert saved_after(Tool.SCRIBBLE, lambda: desk.stroke(layer, painted))[middle] == 1
    struck = [along(beside, axis, step, 0) for step in (-1, 0, 1)]
    refused = saved_after(Tool.SCRIBBLE, lambda: desk.stroke(layer, struck, shift=True), first=True)
    assert (refused[middle], refused[place]) == (1, 0)
    circle = [along(middle, axis, 9 * np.sin(a), 9 * np.cos(a)) for a in np.linspace(0, 2 * np.pi, 9)]
    assert saved_after(Tool.LASSO, lambda: desk.stroke(layer, circle))[middle] == 1
    small = [along(beside, axis, 2.5 * np.sin(a), 2.5 * np.cos(a)) for a in np.linspace(0, 2 * np.pi, 9)]
    refused = saved_after(Tool.LASSO, lambda: desk.stroke(layer, small, shift=True), first=True)
    assert (refused[middle], refused[place]) == (1, 0)
    desk.viewer.layers["known liver"].visible = True
    refined = saved_after(Tool.REFINE, lambda: desk.click(layer, middle))
    np.testing.assert_array_equal(refined != 0, scene.liver)


def test_an_outline_clicked_corner_by_corner_closes_with_a_double_click(open_desk, torso, liver) -> None:
    from qtpy.QtCore import QPoint, Qt

    layer = torso()
    desk = open_desk(layer)
    desk.show(liver)
    desk.controller.set_tool(Tool.LASSO)
    corners = [along(liver, 0, *offset) for offset in ((-10, -10), (-10, 10), (10, 10))]
    for corner in corners:
        desk.click(layer, corner)
        desk.qtbot.wait(20)
    assert desk.controller.session.prompts == {}
    last = QPoint(*desk.pixel_of(layer, along(liver, 0, 10, -10)))
    desk.qtbot.mouseClick(desk.canvas.native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, last)
    desk.qtbot.mouseDClick(desk.canvas.native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, last)
    desk.wait()
    (prompt,) = desk.controller.session.prompts.values()
    rows = [vertex[1] for vertex in prompt.vertices_zyx]
    assert min(rows) == pytest.approx(liver[1] - 10, abs=0.7)
    assert max(rows) == pytest.approx(liver[1] + 10, abs=0.7)
    assert desk.controller.session.labels[liver] == 1


def test_a_prompt_is_selected_dragged_and_deleted_by_hand(open_desk, torso, liver) -> None:
    from qtpy.QtCore import Qt

    from napari_medtransformer.plugin.prompts.shortcuts import bind_shortcuts

    layer = torso()
    desk = open_desk(layer)
    controller = desk.controller
    bind_shortcuts(desk.viewer, controller)
    desk.show(liver)
    z, y, x = liver
    desk.click(layer, liver)
    controller.set_tool(Tool.BOX)
    desk.drag(layer, (z, y - 12, x - 12), (z, y + 12, x + 12))
    desk.wait()
    before = controller.session.labels
    controller.set_tool(Tool.EDIT)
    desk.drag(layer, (z, y - 12.4, x), (z, y - 2.4, x + 6))  # by its edge
    desk.wait()
    point, box = controller.session.prompts.values()
    assert point.position_zyx == pytest.approx(liver, abs=0.7)
    assert box.start_zyx[1] == pytest.approx(y - 2, abs=1.5)
    assert box.start_zyx[2] == pytest.approx(x - 6, abs=1.5)
    controller.undo()
    desk.wait()
    np.testing.assert_array_equal(controller.session.labels, before)
    desk.click(layer, liver)
    assert len(controller.prompting.selected) == 1
    desk.key(Qt.Key.Key_Delete)
    desk.wait()
    assert [type(prompt).__name__ for prompt in controller.session.prompts.values()] == ["BoxPrompt"]


def test_prompts_of_every_kind_are_drawn_with_their_sign(open_desk, torso, liver) -> None:
    layer = torso()
    desk = open_desk(layer)
    desk.show(liver)
    z, y, x = liver
    desk.click(layer, liver)
    desk.click(layer, (z, y + 8, x), shift=True)
    desk.controller.set_tool(Tool.SCRIBBLE)
    desk.stroke(layer, [(z, y, x + 6), (z, y + 4, x + 6)], shift=True)
    desk.wait()
    points, shapes = desk.controller.workspace.prompts.points, desk.controller.workspace.prompts.shapes
    desk.qtbot.waitUntil(lambda: list(points.features.get("sign", ())) == ["+", "−"])
    assert [str(symbol) for symbol in points.symbol] == ["disc", "x"]
    assert list(shapes.features["kind"]) == ["scribble"]
    assert list(shapes.features["sign"]) == ["−"]
    assert (shapes.data[0][:, 0] == z).all()


def test_prediction_waits_for_s_when_live_is_off(open_desk, torso, liver) -> None:
    desk = open_desk(torso())
    controller = desk.controller
    controller.prediction.set_auto(False)
    desk.prompt(liver)
    desk.wait()
    assert len(controller.session.prompts) == 1
    assert not controller.session.live_labels.any()
    assert controller.prediction.waiting() == 1
    controller.prediction.run()
    desk.wait()
    assert controller.session.labels[liver] == 1


def test_the_preview_follows_the_cursor_and_changes_nothing(open_desk, torso, liver) -> None:
    layer = torso()
    desk = open_desk(layer)
    controller = desk.controller
    controller.hover.set_on(True)
    desk.show(liver)
    desk.qtbot.waitUntil(lambda: controller.session.is_encoded(0, liver[0]), timeout=180_000)
    desk.hover(layer, liver)
    desk.qtbot.waitUntil(lambda: bool(controller.workspace.prompts.sketched), timeout=180_000)
    assert controller.session.prompts == {}
    assert not controller.session.live_labels.any()
    outline = controller.workspace.prompts.sketched[0].line_zyx
    assert outline[:, 1].min() < liver[1] < outline[:, 1].max()
    controller.hover.set_on(False)
    assert not controller.workspace.prompts.sketched


def test_each_frame_of_a_4d_image_has_a_session_of_its_own(open_desk, torso, liver) -> None:
    still = torso()
    film = Image(
        np.stack([np.asarray(still.data)] * 2),
        scale=(1, *still.scale),
        translate=(0, *still.translate),
        units=("pixel", "mm", "mm", "mm"),
        name="film",
    )
    desk = open_desk(film)
    controller = desk.controller
    desk.viewer.dims.set_point(0, 0)
    for axis, position in enumerate(film.data_to_world((0, *liver))[1:], start=1):
        desk.viewer.dims.set_point(axis, float(position))
    desk.wait()
    desk.click(film, (0, *liver))
    desk.wait()
    first = controller.session
    assert first.labels[liver] == 1
    desk.viewer.dims.set_point(0, 1)
    desk.wait()
    assert controller.session is not first
    assert controller.session.prompts == {}
    desk.click(film, (1, *liver), shift=True)
    desk.wait()
    assert [prompt.positive for prompt in controller.session.prompts.values()] == [False]
    shown = [other.name for other in desk.viewer.layers if "objects" in other.name and other.visible]
    assert len(shown) <= 1
    desk.viewer.dims.set_point(0, 0)
    desk.wait()
    assert controller.session is first


def test_switching_the_model_keeps_prompts_and_the_steps_of_undo(open_desk, torso, liver) -> None:
    from napari_medtransformer.models.registry import load_model

    desk = open_desk(torso())
    desk.prompt(liver)
    desk.wait()
    desk.prompt((liver[0], liver[1] + 6, liver[2]), other_sign=True)
    desk.wait()
    desk.controller.models.use(load_model("medt-click-tiny", weights="random", device="cpu"))
    desk.wait()
    session = desk.controller.session
    assert len(session.prompts) == 2
    assert session.pending() == []
    while desk.controller.prompting.can_undo:
        desk.controller.undo()
    desk.wait()
    assert session.prompts == {}
    for _ in range(2):
        desk.controller.redo()
    desk.wait()
    assert len(session.prompts) == 2


def test_points_are_as_wide_on_a_screen_of_finer_pixels(open_desk, torso, liver, monkeypatch) -> None:
    from qtpy.QtGui import QGuiApplication

    widths = []
    for ratio in (1.0, 2.0):
        monkeypatch.setattr(QGuiApplication, "devicePixelRatio", lambda _, ratio=ratio: ratio)
        desk = open_desk(torso())
        desk.prompt(liver)
        desk.wait()
        widths.append(desk.controller.workspace.prompts.points.canvas_size_limits)
    assert widths[1][0] == widths[0][0] == 0
    assert widths[1][1] == 2 * widths[0][1]


def test_a_point_that_is_dragged_before_the_model_is_there_is_answered_where_it_was_left(
    open_desk, torso, liver, click_model
) -> None:
    layer = torso()
    desk = open_desk(layer, model=None)
    z, y, x = liver
    desk.show(liver)
    desk.prompt(liver)
    desk.prompt((z, y + 20, x))
    points = desk.controller.workspace.prompts.points
    desk.viewer.layers.selection.active = points
    points.mode = "select"
    desk.drag(layer, liver, (z, y + 10, x))
    desk.controller.models.use(click_model)
    desk.wait()
    moved, other = [p.position_zyx for p in desk.controller.session.prompts.values()]
    assert moved == pytest.approx((z, y + 10, x), abs=0.8)
    assert other == (z, y + 20, x)
    np.testing.assert_allclose(desk.controller.workspace.prompts.points.data, [moved, other])
