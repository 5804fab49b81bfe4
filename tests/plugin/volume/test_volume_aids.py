"""Letters at the edges and the place under the cursor, from the moment a volume is opened and without any dock."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from napari_medtransformer.plugin import controller
from napari_medtransformer.plugin.planes import set_plane
from napari_medtransformer.plugin.volume import aids
from napari_medtransformer.volumes.sample_data import sample_path

PLUGIN = "napari-medtransformer"
VOXEL = (60, 50, 70)


@pytest.fixture
def viewer(make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(900, 700)
    return viewer


def letters(viewer) -> str:
    """Top, bottom, left, right, as far as they are seen."""
    overlays = viewer.canvas.overlays
    seen = [overlays[f"medt_{edge}"] for edge in ("top", "bottom", "left", "right") if f"medt_{edge}" in overlays]
    return " ".join(overlay.text for overlay in seen if overlay.visible)


def look_at(viewer, layer, voxel, qtbot) -> None:
    for d, position in enumerate(layer.data_to_world(voxel)):
        viewer.dims.set_point(d, float(position))
    viewer.reset_view()
    qtbot.wait(50)


def hover(viewer, layer, voxel, qtbot) -> str:
    """Move the mouse over a voxel that is on screen; what the status bar says then."""
    canvas = viewer.window._qt_viewer.canvas
    displayed = list(viewer.dims.displayed)
    world = np.asarray(layer.data_to_world(voxel), dtype=float)[[d - viewer.dims.ndim for d in displayed]]
    (top, left), (bottom, right) = np.asarray(canvas._viewbox_corners_in_world)[:, displayed]
    width, height = canvas.view.rect.size
    point = QPointF((world[1] - left) / (right - left) * width, (world[0] - top) / (bottom - top) * height)
    native, none = canvas.native, Qt.MouseButton.NoButton
    viewer.mouse_over_canvas = True
    QApplication.sendEvent(
        native,
        QMouseEvent(
            QEvent.Type.MouseMove, point, native.mapToGlobal(point), none, none, Qt.KeyboardModifier.NoModifier
        ),
    )
    viewer.window._qt_window.status_thread.calculate_status()  # in a test, napari does not start the thread that would
    qtbot.wait(50)
    return viewer.window._qt_window.statusBar()._coordinates.text()


@pytest.mark.parametrize(("axis", "expected"), [(0, "A P R L"), (1, "S I R L"), (2, "S I A P")])
def test_a_volume_is_lettered_and_read_out_as_soon_as_it_is_opened(viewer, qtbot, axis, expected) -> None:
    path = sample_path("example_ct.nii.gz")
    (layer,) = viewer.open(path, plugin=PLUGIN)
    assert viewer not in controller._controllers
    set_plane(viewer, axis)
    look_at(viewer, layer, VOXEL, qtbot)
    assert letters(viewer) == expected
    value = int(nib.load(path).dataobj[tuple(layer.metadata["medt_volume"].source.file_index(VOXEL))])
    assert hover(viewer, layer, VOXEL, qtbot).endswith(f"mm · {value} HU")


def test_a_sample_is_lettered_too(viewer, qtbot) -> None:
    viewer.open_sample(PLUGIN, "mr")
    assert letters(viewer) == "A P R L"


def test_whatever_is_selected_the_topmost_visible_volume_answers(viewer, qtbot, tmp_path: Path) -> None:
    (ct,) = viewer.open(sample_path("example_ct.nii.gz"), plugin=PLUGIN)
    image = nib.load(sample_path("example_ct.nii.gz"))
    nib.save(nib.Nifti1Image(np.full(image.shape, 99, np.int16), image.affine), tmp_path / "flat.nii")
    (flat,) = viewer.open(tmp_path / "flat.nii", plugin=PLUGIN)
    (organs,) = viewer.open(sample_path("example_seg_fast_force_split.nii.gz"), plugin=PLUGIN)
    voxel = tuple(int(i) for i in np.argwhere(organs.data == 5)[0])
    points = viewer.add_points(np.zeros((0, 3)))
    look_at(viewer, ct, voxel, qtbot)
    hu = int(ct.data[voxel])

    selections = [{ct}, {organs}, {points}, {ct, organs}, set()]
    flat.visible = False
    said = []
    for selection in selections:
        viewer.layers.selection = selection
        viewer.status = "nothing"
        said.append(hover(viewer, ct, voxel, qtbot))
    assert [text.split(" mm · ")[1].split(" · ")[0] for text in said] == [f"{hu} HU"] * len(selections)
    assert all("label 5" in text for text in said)

    flat.visible, organs.visible = True, False
    viewer.layers.selection = {ct}
    viewer.status = "nothing"
    assert hover(viewer, ct, voxel, qtbot).endswith(f"· value 99 · example_ct {hu}")
    for layer in (ct, flat, organs):
        layer.visible = False
    assert letters(viewer) == ""
    ct.visible = True
    assert letters(viewer) == "A P R L"


def test_another_plugins_image_keeps_naparis_own_line(viewer, qtbot) -> None:
    (ct,) = viewer.open(sample_path("example_ct.nii.gz"), plugin=PLUGIN)
    other = viewer.add_image(np.full(ct.data.shape, 7.0), scale=ct.scale, translate=ct.translate)
    look_at(viewer, ct, VOXEL, qtbot)
    viewer.layers.selection = {other}
    text = hover(viewer, ct, VOXEL, qtbot)
    assert text.endswith(": 7")
    assert "HU" not in text


def test_a_film_of_volumes_is_lettered_and_read_out_frame_by_frame(viewer, qtbot, tmp_path: Path) -> None:
    values = np.arange(14 * 8 * 10 * 12, dtype=np.int16).reshape(12, 10, 8, 14)
    path = tmp_path / "film.nii.gz"
    nib.save(nib.Nifti1Image(values, np.diag([-2.0, 2, 3, 1])), path)  # (i, j, k) to L, A, S
    (layer,) = viewer.open(path, plugin=PLUGIN)
    assert layer.ndim == 4
    assert viewer.dims.ndisplay == 2
    for axis, expected in enumerate(("A P R L", "S I R L", "S I A P")):
        set_plane(viewer, axis)
        look_at(viewer, layer, (3, 4, 5, 6), qtbot)
        assert letters(viewer) == expected
        text = hover(viewer, layer, (3, 4, 5, 6), qtbot)
        assert text.endswith(f"value {values[6, 10 - 1 - 5, 4, 3]}")
        assert text.startswith("zyx 4 5 6 · file (6, 4, 4) · L 12.0  A 8.0  S 12.0 mm")
    viewer.dims.order = (1, 2, 0, 3)  # frames side by side
    assert letters(viewer) == ""


def test_letters_are_readable_on_the_brightest_anatomy(viewer, qtbot, tmp_path: Path) -> None:
    path = tmp_path / "bright.nii.gz"
    nib.save(nib.Nifti1Image(np.full((40, 40, 3), 3000, np.int16), np.eye(4)), path)
    (layer,) = viewer.open(path, plugin=PLUGIN)
    layer.contrast_limits = (0, 100)
    viewer.reset_view(margin=0)
    qtbot.wait(100)
    picture = np.asarray(viewer.window.screenshot(canvas_only=True, flash=False))[..., :3].astype(int)
    height, width, _ = picture.shape
    for rows, columns in ((slice(0, 60), slice(width // 2 - 12, width // 2 + 12)),
                          (slice(height - 60, height), slice(width // 2 - 12, width // 2 + 12))):  # fmt: skip
        around = picture[rows, columns]
        yellow = (around[..., 0] > 220) & (around[..., 1] > 180) & (around[..., 2] < 140)
        assert yellow.any()
        (top, left), (bottom, right) = np.argwhere(yellow).min(axis=0), np.argwhere(yellow).max(axis=0)
        frame = np.r_[around[top - 2, left : right + 1], around[bottom + 2, left : right + 1]]
        assert frame.max() < 90  # bright letters stand on dark ground


def test_one_viewer_is_accompanied_once_and_forgotten_with_it(viewer, qtbot, make_napari_viewer) -> None:
    viewer.open(sample_path("example_mr_sm.nii.gz"), plugin=PLUGIN)
    first = aids.aids_of(viewer)
    said: list[str] = []
    first.moved.connect(said.append)
    (layer,) = viewer.open(sample_path("example_mr_sm.nii.gz"), plugin=PLUGIN)
    assert aids.aids_of(viewer) is first
    look_at(viewer, layer, (5, 40, 50), qtbot)
    viewer.status = "nothing"
    said.clear()
    text = hover(viewer, layer, (5, 40, 50), qtbot)
    assert said.count(text) <= 2  # napari's own line, and its completion

    other = make_napari_viewer(show=False)
    aids.accompany_open_viewers()
    gone = weakref.ref(aids.aids_of(other))
    other.close()
    del other
    for _ in range(3):
        gc.collect()
        qtbot.wait(10)
    assert gone() is None or gone()._viewer() is None or gone() not in {aids.aids_of(viewer)}


def test_rows_run_down_again_once_no_volume_is_left(viewer, qtbot) -> None:
    (layer,) = viewer.open(sample_path("example_ct.nii.gz"), plugin=PLUGIN)
    set_plane(viewer, 1)
    assert viewer.scene.camera.orientation[1] == "up"
    viewer.layers.remove(layer)
    assert viewer.scene.camera.orientation[1] == "down"
    assert letters(viewer) == ""
