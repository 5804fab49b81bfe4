"""On screen in three planes: letters, the right side of the patient, an oblique brain, a large file."""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image

from napari_medtransformer.plugin.layers import grid_kwargs, image_layer
from napari_medtransformer.plugin.planes import set_plane
from napari_medtransformer.volumes import read_volume
from napari_medtransformer.volumes.sample_data import sample_path

PLUGIN = "napari-medtransformer"


@pytest.fixture
def brain(shared_data: Path) -> Path:
    """A T2-weighted brain whose slices are tilted against the patient."""
    path = shared_data / "torchio_brain" / "t2.nii.gz"
    if not path.is_file():
        pytest.skip(f"no {path.name} among the real data")
    return path


def canvas_of(viewer) -> np.ndarray:
    return np.asarray(viewer.window.screenshot(canvas_only=True, flash=False))


def marked_pixel(viewer, qtbot, volume, zyx) -> tuple[float, float]:
    """Where on the canvas a voxel painted pure green is seen: (row, column) as shares of its height and width."""
    labels = np.zeros(volume.shape, np.uint8)
    labels[tuple(slice(max(0, i - 2), i + 3) for i in zyx)] = 1
    colours = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0), 1: (0, 1, 0, 1)}
    layer = viewer.add_labels(labels, opacity=1.0, colormap=colours, **grid_kwargs(volume))
    for axis, position in enumerate(layer.data_to_world(zyx)):
        viewer.dims.set_point(axis, float(position))
    qtbot.wait(100)
    picture = canvas_of(viewer).astype(int)
    viewer.layers.remove(layer)
    green = np.argwhere((picture[..., 1] > 200) & (picture[..., 0] < 60) & (picture[..., 2] < 60))
    assert len(green) > 0
    row, column = green.mean(axis=0)
    return row / picture.shape[0], column / picture.shape[1]


@pytest.mark.parametrize(
    ("axis", "direction_ras", "seen"),
    [
        (0, (1, 0, 0), "left"),
        (0, (0, 1, 0), "up"),
        (1, (1, 0, 0), "left"),
        (1, (0, 0, 1), "up"),
        (2, (0, 1, 0), "left"),
        (2, (0, 0, 1), "up"),
    ],
)
def test_on_screen_the_patients_right_is_left_and_anterior_or_superior_is_up(
    open_desk, axis, direction_ras, seen
) -> None:
    """Oracle: a green mark where nibabel says that the patient's right, front or top is, found on a screenshot."""
    path = sample_path("example_ct.nii.gz")
    image, volume = nib.load(path), read_volume(path)
    data, options, _ = image_layer(volume)
    desk = open_desk(Image(data, **options), model=None)
    set_plane(desk.viewer, axis)
    desk.qtbot.wait(100)
    centre = nib.affines.apply_affine(image.affine, (np.array(image.shape) - 1) / 2)
    places = []
    for sign in (1, -1):
        ijk = nib.affines.apply_affine(np.linalg.inv(image.affine), centre + sign * 60 * np.array(direction_ras))
        zyx = tuple(int(i) for i in volume.source.zyx_from_file_index(np.rint(ijk).astype(int)))
        places.append(marked_pixel(desk.viewer, desk.qtbot, volume, zyx))
    (row, column), (other_row, other_column) = places
    if seen == "left":
        assert column < other_column - 0.05
        assert abs(row - other_row) < 0.02
    else:
        assert row < other_row - 0.05
        assert abs(column - other_column) < 0.02


def test_labels_painted_on_an_oblique_brain_are_saved_where_they_were_painted(
    open_desk, brain: Path, tmp_path: Path, notifications
) -> None:
    desk = open_desk(model=None)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        (image,) = desk.viewer.open(brain, plugin=PLUGIN)
        volume = image.metadata["medt_volume"]
        layer = desk.viewer.add_labels(np.zeros(volume.shape, np.uint8), **grid_kwargs(volume))
        voxels = []
        for axis in range(3):
            set_plane(desk.viewer, axis)
            voxel = (5 + 3 * axis, 150 + 20 * axis, 170 - 15 * axis)
            for d, position in enumerate(layer.data_to_world(voxel)):
                desk.viewer.dims.set_point(d, float(position))
            layer.mode, layer.brush_size, layer.selected_label = "paint", 1, axis + 1
            desk.qtbot.wait(100)
            desk.click(layer, voxel)
            desk.qtbot.wait(50)
            voxels.append(voxel)
    assert volume.is_oblique
    said = [str(w.message) for w in heard] + [note.message for note in notifications]
    assert not [text for text in said if "orthogonal" in text.lower()]

    (saved,) = layer.save(str(tmp_path / "painted.nii.gz"), plugin=PLUGIN)

    before, after = nib.load(brain), nib.load(saved)
    assert after.shape == before.shape
    np.testing.assert_array_equal(after.affine, before.affine)
    written = np.asarray(after.dataobj)
    assert np.count_nonzero(written) == np.count_nonzero(layer.data)
    values = np.asarray(before.dataobj)
    for number, voxel in enumerate(voxels, 1):
        assert layer.data[voxel] == number
        ijk = tuple(int(i) for i in volume.source.file_index(voxel))
        assert written[ijk] == number
        assert values[ijk] == volume.data[voxel]  # the voxel that was seen under the brush
        # By millimetres through the file's own affine as well, of which our index arithmetic knows nothing.
        mm = nib.affines.apply_affine(before.affine, ijk)
        np.testing.assert_allclose(volume.mm_from_zyx(voxel), mm, atol=1e-3)


@pytest.mark.skipif(sys.platform != "linux", reason="a file with holes, and its memory in kilobytes")
@pytest.mark.slow
def test_four_gigabytes_open_scroll_and_take_a_click_in_memory_for_what_is_seen(open_desk, tmp_path: Path) -> None:
    shape = (1024, 1024, 2048)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header.set_sform(np.diag([0.5, 0.5, 0.5, 1]), code=1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path = tmp_path / "large.nii"
    with path.open("wb") as file:
        file.write(header.binaryblock + bytes(4))
        file.truncate(352 + 2 * int(np.prod(shape)))
        # One slice has a bright disc on soft tissue; all others are zeros that take no disk.
        plane = np.full((1024, 1024), 40, np.int16)
        y, x = np.ogrid[:1024, :1024]
        plane[(x - 512) ** 2 + (y - 512) ** 2 < 200**2] = 200
        file.seek(352 + 2 * 1024 * 1024 * 1000)
        file.write(plane.tobytes())
    desk = open_desk()
    # Starts the peak anew, or an earlier test's larger one would hide this one's.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_mb()
    started = time.process_time()  # of all threads: what else runs on the machine is not our haste
    (layer,) = desk.viewer.open(path, plugin=PLUGIN)
    seconds = time.process_time() - started
    volume = layer.metadata["medt_volume"]
    layer.contrast_limits = (-160, 240)
    z, *_ = (int(i) for i in volume.source.zyx_from_file_index((512, 512, 1000)))
    for d, position in enumerate(layer.data_to_world((z, 512, 512))):
        desk.viewer.dims.set_point(d, float(position))
    for axis in (2, 1, 0):
        set_plane(desk.viewer, axis)
        desk.qtbot.wait(50)
        np.testing.assert_array_equal(layer._slice.image.raw.shape, np.delete(volume.shape, axis))
    desk.controller.set_layer(layer)
    desk.wait()
    desk.click(layer, (z, 512, 512))
    desk.wait()
    desk.qtbot.wait(400)  # objects are measured once all is quiet
    desk.wait()
    assert desk.controller.actions.volumes_ml[1] > 0
    labels = desk.controller.session.live_labels
    assert labels[z, 512, 512] == 1
    assert labels[z, 100, 100] == 0
    assert set(np.argwhere(labels[z - 1 : z + 2].any(axis=(1, 2))).ravel()) == {1}
    grown_mb = _peak_mb() - before
    assert grown_mb < 1000, f"{grown_mb:.0f} MB more than before"
    assert seconds < 5


def _peak_mb() -> float:
    """The largest resident memory of this process since its peak was last cleared."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e3
