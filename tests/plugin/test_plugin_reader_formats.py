"""DICOM, 4D and named labels in the viewer."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtWidgets import QInputDialog

from napari_medtransformer.errors import InvalidSession, UnsupportedVolume
from napari_medtransformer.plugin import readers
from napari_medtransformer.plugin.readers import get_reader, read_layers
from napari_medtransformer.volumes import Label, Volume, file_values, read_label_names, read_labels, write_labels

PLUGIN = "napari-medtransformer"


def test_a_dicom_folder_opens_upright_with_the_window_it_asks_for(make_napari_viewer, shared_data: Path) -> None:
    viewer = make_napari_viewer()
    (layer,) = viewer.open(shared_data / "totalsegmentator" / "dicom", plugin=PLUGIN)
    assert layer.data.shape == (20, 512, 512)
    assert tuple(layer.contrast_limits) == (-110, 190)
    assert layer.name == "dicom"


def test_one_dicom_file_without_a_suffix_opens_by_its_content(make_napari_viewer, shared_data: Path) -> None:
    path = sorted((shared_data / "totalsegmentator" / "dicom").iterdir())[0]
    viewer = make_napari_viewer()
    (layer,) = viewer.open(path, plugin=PLUGIN)
    assert layer.data.shape == (1, 512, 512)


def test_folders_and_files_without_images_are_left_to_others(tmp_path: Path) -> None:
    assert get_reader(tmp_path) is None
    (tmp_path / "report00").write_text("nothing")
    assert get_reader(tmp_path) is None
    assert get_reader(tmp_path / "report00") is None


def test_a_dicom_seg_opens_as_labels_named_and_coloured_on_its_ct(make_napari_viewer, shared_data: Path) -> None:
    viewer = make_napari_viewer()
    (ct,) = viewer.open(shared_data / "dcmqi_ct", plugin=PLUGIN)
    (seg,) = viewer.open(shared_data / "dcmqi_ct" / "liver.dcm", plugin=PLUGIN)
    assert seg._type_string == "labels"
    np.testing.assert_allclose(seg.extent.world, ct.extent.world, atol=1e-4)
    assert seg.features["name"].tolist() == ["background", "Liver"]
    (liver,) = read_label_names(shared_data / "dcmqi_ct" / "liver.dcm")
    np.testing.assert_allclose(seg.get_color(1)[:3], liver.color, atol=1e-6)
    assert seg.get_color(2)[3] == 1  # a label drawn later is seen


@pytest.mark.parametrize("accepted", [True, False])
def test_of_several_series_the_user_chooses_one(
    make_napari_viewer, shared_data, tmp_path, monkeypatch, accepted
) -> None:
    shutil.copytree(shared_data / "totalsegmentator" / "dicom", tmp_path / "study" / "a")
    shutil.copytree(shared_data / "dcmqi_ct", tmp_path / "study" / "b")
    asked = []

    def answer(parent, title, text, items, *_) -> tuple[str, bool]:
        asked.append(items)
        return next(item for item in items if "3 × 512" in item), accepted

    monkeypatch.setattr(QInputDialog, "getItem", answer)
    viewer = make_napari_viewer()
    if not accepted:
        with pytest.raises(UnsupportedVolume, match="holds 2 series"):
            read_layers(tmp_path / "study")
        return
    (layer,) = viewer.open(tmp_path / "study", plugin=PLUGIN)
    assert layer.data.shape == (3, 512, 512)
    assert len(asked[0]) == 2


def test_every_channel_of_a_4d_file_is_a_layer_of_its_own(make_napari_viewer, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 99, (4, 5, 6, 3)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([1, 2, 3, 1])), tmp_path / "channels.nii")
    viewer = make_napari_viewer()
    layers = viewer.open(tmp_path / "channels.nii", plugin=PLUGIN)
    assert [layer.name for layer in layers] == [f"channels [frame {place}]" for place in range(3)]
    assert [layer.visible for layer in layers] == [True, False, False]
    for place, layer in enumerate(layers):
        volume = layer.metadata["medt_volume"]
        assert isinstance(volume, Volume)
        assert np.array_equal(volume.source.to_file_order(np.asarray(layer.data)), values[..., place])


def test_names_and_colours_survive_from_file_to_viewer_to_file(make_napari_viewer, tmp_path: Path) -> None:
    data = np.zeros((4, 5, 6), np.uint8)
    data[1, 2, 3], data[2, 2, 2] = 1, 4
    names = [Label(1, "liver", (1.0, 0.0, 0.0)), Label(4, "spleen", (0.0, 0.0, 1.0))]
    write_labels(data, Volume.from_array(data), tmp_path / "organs.seg.nrrd", names=names)
    viewer = make_napari_viewer()
    (layer,) = viewer.open(tmp_path / "organs.seg.nrrd", plugin=PLUGIN)
    (saved,) = layer.save(str(tmp_path / "again.seg.nrrd"), plugin=PLUGIN)
    assert read_label_names(saved) == names
    assert np.array_equal(read_labels(saved).data, data)


@pytest.mark.parametrize("lazy", [False, True])
def test_labels_of_an_uncompressed_file_can_be_painted_on(
    make_napari_viewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lazy: bool
) -> None:
    if lazy:
        monkeypatch.setattr(file_values, "LAZY_BYTES", 1)
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.uint8), np.diag([1, 2, 3, 1])), tmp_path / "liver_labels.nii")
    viewer = make_napari_viewer()
    (layer,) = viewer.open(tmp_path / "liver_labels.nii", plugin=PLUGIN)
    layer.paint((1, 1, 1), 3)
    assert layer.data[1, 1, 1] == 3
    assert not isinstance(layer.metadata["medt_volume"].data, np.memmap)
    assert layer.metadata["medt_volume"].data is layer.data


def test_labels_that_memory_cannot_hold_stay_in_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.uint8), np.eye(4)), tmp_path / "liver_labels.nii")
    monkeypatch.setattr(readers, "physical_memory", lambda: 100)
    ((data, _, kind),) = read_layers(tmp_path / "liver_labels.nii")
    assert kind == "labels"
    assert isinstance(data, np.memmap)


def test_labels_numbered_in_the_millions_open_at_once(tmp_path: Path) -> None:
    data = np.zeros((2, 3, 4), np.uint32)
    data[0, 1, 2] = 4_000_000_000
    names = [Label(4_000_000_000, "lesion", (1.0, 0.0, 0.0))]
    write_labels(data, Volume.from_array(data), tmp_path / "far.seg.nrrd", names=names)
    ((_, options, kind),) = read_layers(tmp_path / "far.seg.nrrd")
    assert kind == "labels"
    assert options["features"] == {"index": [0, 4_000_000_000], "name": ["background", "lesion"]}
    assert options["colormap"][4_000_000_000] == (1.0, 0.0, 0.0, 1.0)


def test_many_time_points_are_one_layer_with_a_slider(make_napari_viewer, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 99, (4, 5, 6, 20)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([1, 2, 3, 1])), tmp_path / "time.nii")
    viewer = make_napari_viewer()
    (layer,) = viewer.open(tmp_path / "time.nii", plugin=PLUGIN)
    assert layer.data.shape == (20, 6, 5, 4)
    assert layer.axis_labels == ("frame", "z", "y", "x")
    np.testing.assert_array_equal(layer.data[7], values[..., 7].transpose(2, 1, 0)[:, ::-1, ::-1])


def test_slices_of_a_series_opened_one_by_one_are_remarked_on_once(
    make_napari_viewer, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari.utils.notifications import notification_manager

    told: list[str] = []
    monkeypatch.setattr(notification_manager, "records", [])
    notification_manager.notification_ready.connect(lambda notification: told.append(notification.message))
    viewer = make_napari_viewer()
    slices = sorted((shared_data / "totalsegmentator" / "dicom").iterdir())[:3]
    layers = viewer.open(slices, plugin=PLUGIN)
    assert [layer.data.shape for layer in layers] == [(1, 512, 512)] * 3
    assert [text for text in told if "Drop the folder itself" in text] == [
        "Single slices of the folder dicom were opened. Drop the folder itself to get its volume."
    ]


def test_a_session_without_its_image_says_what_to_open_first(make_napari_viewer, tmp_path: Path) -> None:
    path = tmp_path / "liver.medt"
    path.write_bytes(b"")
    viewer = make_napari_viewer()
    with pytest.raises(InvalidSession, match="Open the image it belongs to and the Prompt dock"):
        viewer.open(path, plugin=PLUGIN)
    assert list(viewer.layers) == []
