"""The napari writer: layers are saved from a real viewer on the grid of the file they were drawn on."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_medtransformer.errors import CannotWrite
from napari_medtransformer.plugin.layers import grid_kwargs
from napari_medtransformer.plugin.writers import write_labels_layer
from napari_medtransformer.volumes import read_labels
from napari_medtransformer.volumes.sample_data import sample_path

PLUGIN = "napari-medtransformer"
CT = "example_ct.nii.gz"


@pytest.fixture(params=["RAS", "LPS", "permuted"])
def ct_file(request, tmp_path: Path) -> Path:
    """The sample CT with its axes stored in another order."""
    image = nib.load(sample_path(CT))
    codes = {"RAS": "RAS", "LPS": "LPS", "permuted": "PSR"}[request.param]
    transform = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    path = tmp_path / f"{request.param}.nii.gz"
    nib.save(image.as_reoriented(transform), path)
    return path


def test_labels_painted_in_the_viewer_are_saved_where_they_were_painted(
    make_napari_viewer, tmp_path: Path, ct_file: Path
) -> None:
    viewer = make_napari_viewer()
    (image,) = viewer.open(ct_file, plugin=PLUGIN)
    volume = image.metadata["medt_volume"]
    labels = viewer.add_labels(np.zeros(volume.shape, np.uint8), name="organs", **grid_kwargs(volume))
    labels.data_setitem((np.array([70]), np.array([40]), np.array([90])), 5)
    saved = labels.save(str(tmp_path / "organs.nii.gz"), plugin=PLUGIN)
    assert saved == [str(tmp_path / "organs.nii.gz")]
    before, after = nib.load(ct_file), nib.load(saved[0])
    assert after.shape == before.shape
    assert np.array_equal(after.affine, before.affine)
    (index,) = np.argwhere(np.asanyarray(after.dataobj) == 5)
    np.testing.assert_allclose(
        nib.affines.apply_affine(after.affine, index), volume.mm_from_zyx((70, 40, 90)), atol=1e-9
    )


def test_a_labels_layer_made_by_naparis_button_finds_its_volume(make_napari_viewer, tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    viewer.open(sample_path(CT), plugin=PLUGIN)
    viewer._new_labels()
    layer = viewer.layers[-1]
    layer.data_setitem((np.array([1]), np.array([2]), np.array([3])), 4)
    (saved,) = layer.save(str(tmp_path / "new.nii.gz"), plugin=PLUGIN)
    assert np.array_equal(np.argwhere(read_labels(saved).data == 4), [(1, 2, 3)])


def test_labels_opened_alone_are_painted_on_and_saved_to_their_own_file(make_napari_viewer, tmp_path: Path) -> None:
    path = tmp_path / "liver_labels.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.diag([-1, -1, 2, 1])), path)
    viewer = make_napari_viewer()
    (layer,) = viewer.open(path, plugin=PLUGIN)
    layer.paint((1, 2, 3), 7)
    assert layer.save(str(path), plugin=PLUGIN) == [str(path)]
    assert read_labels(path).data[1, 2, 3] == 7


def test_an_image_layer_is_saved_as_a_heatmap_with_its_heads_last(make_napari_viewer, tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    (image,) = viewer.open(sample_path(CT), plugin=PLUGIN)
    heads = np.random.default_rng(0).random((2, *image.data.shape), np.float32)
    kwargs = grid_kwargs(image.metadata["medt_volume"])
    layer = viewer.add_image(heads, metadata=kwargs["metadata"], scale=(1, *kwargs["scale"]))
    (saved,) = layer.save(str(tmp_path / "heads.nii.gz"), plugin=PLUGIN)
    assert nib.load(saved).shape == (*nib.load(sample_path(CT)).shape, 2)


def test_labels_of_no_known_volume_are_refused_with_the_way_out(make_napari_viewer, tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    viewer.open(sample_path(CT), plugin=PLUGIN)
    layer = viewer.add_labels(np.zeros((3, 4, 5), np.uint8), name="stray")
    with pytest.raises(CannotWrite, match=r"'stray' was not written.*Open the image"):
        write_labels_layer(str(tmp_path / "stray.nii.gz"), *layer.as_layer_data_tuple()[:2])
    assert not list(tmp_path.iterdir())
