"""Mouse on the canvas: what is clicked is what is painted, in every plane and for every way a file lies on disk."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image

from napari_medtransformer.plugin.demo import organ_centre
from napari_medtransformer.plugin.layers import image_layer
from napari_medtransformer.plugin.planes import set_plane
from napari_medtransformer.plugin.prompts.canvas import Tool
from napari_medtransformer.prompting.prompts import BoxPrompt, PointPrompt
from napari_medtransformer.volumes import read_volume
from napari_medtransformer.volumes.sample_data import sample_path


def layer_of(path: Path) -> Image:
    data, options, _ = image_layer(read_volume(path))
    return Image(data, **options)


def ct_in(orientation: str, folder: Path) -> Path:
    """The slices of the sample CT about its liver, stored in another orientation: same patient, other file."""
    ct = nib.load(sample_path("example_ct.nii.gz")).slicer[:, :, 96:112]
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(ct.affine), nib.orientations.axcodes2ornt(tuple(orientation))
    )
    path = folder / f"ct_{orientation}.nii.gz"
    nib.save(ct.as_reoriented(turn), path)
    return path


def go_to(viewer, layer, zyx) -> None:
    for axis, position in enumerate(layer.data_to_world(zyx)):
        viewer.dims.set_point(axis, float(position))


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SLA"])
def test_a_click_on_the_canvas_paints_that_voxel_in_the_saved_file(open_desk, tmp_path: Path, orientation) -> None:
    path = ct_in(orientation, tmp_path)
    layer = layer_of(path)
    desk = open_desk(layer)
    # Where the liver's centre lies, in millimetres, is known from the sample's labels; the file has its own axes.
    mm = read_volume(sample_path("example_ct.nii.gz")).mm_from_zyx(organ_centre("liver"))
    voxel = tuple(int(v) for v in np.rint(desk.controller.workspace.volume.zyx_from_mm(mm)))
    set_plane(desk.viewer, 0)
    go_to(desk.viewer, layer, voxel)
    desk.qtbot.wait(50)

    desk.click(layer, voxel)
    desk.wait()

    (prompt,) = desk.controller.session.prompts.values()
    assert isinstance(prompt, PointPrompt)
    assert prompt.positive
    assert tuple(np.rint(prompt.position_zyx)) == voxel
    masks = desk.controller.workspace.masks
    assert masks.data[voxel] == 1
    saved = tmp_path / "labels.nii.gz"
    assert masks.save(str(saved), plugin="napari-medtransformer") == [str(saved)]
    # The oracle is nibabel: millimetres through the file's own affine.
    image, labels = nib.load(path), nib.load(saved)
    assert labels.shape == image.shape
    np.testing.assert_array_equal(labels.affine, image.affine)
    ijk = tuple(np.rint(np.linalg.inv(image.affine) @ [*mm, 1])[:3].astype(int))
    assert np.asarray(labels.dataobj)[ijk] == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_clicks_land_on_the_voxel_and_the_plane_that_is_shown(open_desk, axis) -> None:
    layer = layer_of(sample_path("example_ct.nii.gz"))
    desk = open_desk(layer)
    voxel = organ_centre("liver")
    set_plane(desk.viewer, axis)
    go_to(desk.viewer, layer, voxel)
    desk.qtbot.wait(50)

    desk.click(layer, voxel)
    desk.wait()

    (prompt,) = desk.controller.session.prompts.values()
    assert prompt.axis == axis
    assert tuple(np.rint(prompt.position_zyx)) == voxel
    mask = desk.controller.workspace.masks.data
    assert mask[voxel] == 1
    painted = np.unique(np.argwhere(mask)[:, axis])
    np.testing.assert_array_equal(painted, [voxel[axis]])


def test_shift_click_gives_the_other_sign_and_undo_takes_it_back(open_desk) -> None:
    layer = layer_of(sample_path("example_ct.nii.gz"))
    desk = open_desk(layer)
    inside, outside = organ_centre("liver"), organ_centre("spleen")
    outside = (inside[0], *outside[1:])
    set_plane(desk.viewer, 0)
    go_to(desk.viewer, layer, inside)
    desk.qtbot.wait(50)
    desk.click(layer, inside)
    desk.wait()
    before = desk.controller.session.labels

    desk.click(layer, outside, shift=True)
    desk.wait()

    signs = [prompt.positive for prompt in desk.controller.session.prompts.values()]
    assert signs == [True, False]
    assert desk.controller.workspace.masks.data[outside] == 0
    desk.controller.undo()
    desk.wait()
    assert len(desk.controller.session.prompts) == 1
    np.testing.assert_array_equal(desk.controller.session.labels, before)
    desk.controller.undo()
    desk.wait()
    assert not desk.controller.session.labels.any()
    assert len(desk.controller.workspace.prompts.points.data) == 0


def test_dragging_with_the_box_tool_gives_the_voxels_under_it_and_leaves_the_view(open_desk) -> None:
    layer = layer_of(sample_path("example_ct.nii.gz"))
    desk = open_desk(layer)
    set_plane(desk.viewer, 0)
    go_to(desk.viewer, layer, (80, 0, 0))
    desk.qtbot.wait(50)
    desk.controller.set_tool(Tool.BOX)
    centre = desk.viewer.scene.camera.center

    desk.drag(layer, (80, 30, 20), (80, 60, 70))
    desk.wait()

    (prompt,) = desk.controller.session.prompts.values()
    assert prompt == BoxPrompt((80.0, 30.0, 20.0), (80.0, 61.0, 71.0), 1, 0)
    assert desk.viewer.scene.camera.center == centre


def test_dragging_with_the_point_tool_moves_the_view_and_adds_nothing(open_desk) -> None:
    layer = layer_of(sample_path("example_ct.nii.gz"))
    desk = open_desk(layer)
    set_plane(desk.viewer, 0)
    desk.qtbot.wait(50)
    centre = desk.viewer.scene.camera.center

    desk.drag(layer, (60, 30, 20), (60, 60, 70))
    desk.qtbot.wait(50)

    assert desk.controller.session.prompts == {}
    assert desk.viewer.scene.camera.center != centre


def test_clicks_belong_to_a_layer_that_is_being_painted(open_desk) -> None:
    layer = layer_of(sample_path("example_ct.nii.gz"))
    desk = open_desk(layer)
    own = desk.viewer.add_labels(np.zeros(layer.data.shape, np.uint8), scale=layer.scale, translate=layer.translate)
    own.mode = "paint"
    go_to(desk.viewer, layer, (60, 50, 60))
    desk.qtbot.wait(50)

    desk.click(layer, (60, 50, 60))
    desk.wait()

    assert own.data[60, 50, 60] == 1
    assert desk.controller.session.prompts == {}


def test_a_click_beside_the_image_is_refused_with_a_notification(open_desk, notifications) -> None:
    layer = layer_of(sample_path("example_ct.nii.gz"))
    desk = open_desk(layer)
    desk.viewer.scene.camera.zoom /= 2
    desk.qtbot.wait(50)

    desk.click(layer, (60, -20, -20))
    desk.wait()

    assert desk.controller.session.prompts == {}
    assert any("outside the image" in note.message for note in notifications)
