"""The napari reader: cheap to ask, upright in millimetres in a real viewer, and silent about other people's files."""

from __future__ import annotations

import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from npe2 import PluginManager

from napari_medtransformer.errors import UnreadableFile
from napari_medtransformer.plugin.layers import VOLUME_KEY
from napari_medtransformer.plugin.readers import get_reader, names_labels, read_layers
from napari_medtransformer.volumes import Volume, read_volume
from napari_medtransformer.volumes.sample_data import sample_path

PLUGIN = "napari-medtransformer"
CT = "example_ct.nii.gz"
ORGANS = "example_seg_fast_force_split.nii.gz"


@pytest.mark.parametrize(
    "path", ["notes.txt", "", [], None, 3, [None], ["ct.nii", "notes.txt"], "ct.nii.txt", Path("x") / "y.doc"]
)
def test_get_reader_leaves_other_files_alone_and_never_raises(path) -> None:
    assert get_reader(path) is None


@pytest.mark.parametrize("path", ["ct.nii", "CT.NII.GZ", Path("a.hdr"), ["a.nii", "b.nii.gz"]])
def test_get_reader_takes_volumes_by_name_without_opening_them(path) -> None:
    assert get_reader(path) is read_layers


def test_a_missing_file_is_an_error_of_our_tree_and_not_a_traceback_of_nibabel(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="there is no file"):
        read_layers(tmp_path / "nothing.nii")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("example_seg.nii.gz", True),
        ("t2_seg-manual.nii.gz", True),
        ("case3-label.nii", True),
        ("liver_mask.nii", True),
        ("labelsTr/hippocampus_003.nii.gz", True),
        ("example_ct.nii.gz", False),
        ("segovia.nii", False),
        ("t2_unmasked_image.nii", False),
    ],
)
def test_label_files_are_told_by_their_names(name: str, labels: bool) -> None:
    assert names_labels(Path(name)) is labels


def test_a_file_named_labels_with_fractions_is_shown_as_the_image_it_is(tmp_path: Path) -> None:
    path = tmp_path / "probability_mask.nii"
    nib.save(nib.Nifti1Image(np.linspace(0, 1, 27, dtype=np.float32).reshape(3, 3, 3), np.eye(4)), path)
    assert read_layers(path)[0][2] == "image"


def test_the_manifest_offers_our_reader_for_nifti() -> None:
    manager = PluginManager()
    manager.discover()
    assert f"{PLUGIN}.read" in [reader.command for reader in manager.iter_compatible_readers(["a.nii.gz"])]


def test_a_ct_opens_in_the_viewer_upright_in_millimetres_and_windowed(make_napari_viewer) -> None:
    viewer = make_napari_viewer()
    (layer,) = viewer.open(sample_path(CT), plugin=PLUGIN)
    volume = read_volume(sample_path(CT))
    assert isinstance(layer.metadata[VOLUME_KEY], Volume)
    assert tuple(layer.scale) == volume.spacing == (3, 3, 3)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    assert tuple(layer.contrast_limits) == (-160, 240)
    # World coordinates are S, P, L in mm.
    right, anterior, superior = volume.mm_from_zyx((50, 40, 30))
    np.testing.assert_allclose(layer.data_to_world((50, 40, 30)), (superior, -anterior, -right), atol=1e-9)


def test_organs_open_as_labels_exactly_on_the_ct(make_napari_viewer) -> None:
    viewer = make_napari_viewer()
    image, labels = viewer.open([sample_path(CT), sample_path(ORGANS)], plugin=PLUGIN)
    assert labels._type_string == "labels"
    assert labels.data.shape == image.data.shape
    np.testing.assert_array_equal(labels.extent.world, image.extent.world)


def test_a_layer_type_asked_for_is_obeyed(make_napari_viewer) -> None:
    viewer = make_napari_viewer()
    (layer,) = viewer.open(sample_path(ORGANS), plugin=PLUGIN, layer_type="image")
    assert layer._type_string == "image"
    assert VOLUME_KEY in layer.metadata


def test_an_oblique_volume_opens_on_its_own_grid_without_a_warning(make_napari_viewer, shared_data: Path) -> None:
    viewer = make_napari_viewer()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*[Nn]on-orthogonal.*")
        (layer,) = viewer.open(shared_data / "torchio_brain" / "t2.nii.gz", plugin=PLUGIN)
        for plane in range(3):
            viewer.dims.order = tuple(np.roll((0, 1, 2), plane))
    assert layer.metadata[VOLUME_KEY].is_oblique
    np.testing.assert_allclose(layer.scale, (5.5, 0.75, 0.75), rtol=1e-5)
    assert not layer.rotate.any() or np.array_equal(layer.rotate, np.eye(3))
