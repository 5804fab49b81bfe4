"""The napari writer: layers are saved from a real viewer on the grid of the file they were drawn on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Layer

from napari_medtransformer.errors import CannotWrite
from napari_medtransformer.plugin.layers import grid_kwargs, image_layer
from napari_medtransformer.plugin.writers import write_image_layer, write_labels_layer
from napari_medtransformer.volumes import Volume, read_labels, read_volume
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


def test_an_image_of_integers_keeps_its_type_and_values(make_napari_viewer, tmp_path: Path) -> None:
    values = np.full((4, 5, 6), 2**24 + 1, np.int32)  # which float32 does not know
    nib.save(nib.Nifti1Image(values, np.diag([-1, -1, 2, 1])), tmp_path / "big.nii.gz")
    viewer = make_napari_viewer()
    (layer,) = viewer.open(tmp_path / "big.nii.gz", plugin=PLUGIN)
    layer.data[1, 2, 3] = 7
    (saved,) = layer.save(str(tmp_path / "saved.nii.gz"), plugin=PLUGIN)
    image = nib.load(saved)
    assert image.get_data_dtype() == np.int32
    assert np.array_equal(read_volume(saved).data, layer.data)
    with pytest.raises(CannotWrite, match="is the image itself"):
        write_image_layer(str(tmp_path / "big.nii.gz"), *layer.as_layer_data_tuple()[:2])


def test_a_pyramid_is_saved_at_its_finest_level(make_napari_viewer, tmp_path: Path) -> None:
    values = np.arange(8 * 8 * 8, dtype=np.uint16).reshape(8, 8, 8)
    volume = replace(Volume.from_array(values), coarser=(values[::2, ::2, ::2],))
    viewer = make_napari_viewer()
    layer = viewer.add_layer(Layer.create(*image_layer(volume)))
    (saved,) = layer.save(str(tmp_path / "saved.nii.gz"), plugin=PLUGIN)
    assert np.array_equal(read_volume(saved).data, values)


def test_a_layer_of_many_frames_is_saved_whole_and_labels_of_one(make_napari_viewer, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 900, (4, 5, 6, 14)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([-1, -1, 2, 1])), tmp_path / "bold.nii.gz")
    viewer = make_napari_viewer()
    (layer,) = viewer.open(tmp_path / "bold.nii.gz", plugin=PLUGIN)
    (saved,) = layer.save(str(tmp_path / "saved.nii.gz"), plugin=PLUGIN)
    assert np.array_equal(nib.load(saved).get_fdata(), values)
    assert np.array_equal(nib.load(saved).affine, nib.load(tmp_path / "bold.nii.gz").affine)

    one = viewer.add_labels(np.ones((6, 5, 4), np.uint8), scale=layer.scale[1:], translate=layer.translate[1:])
    (saved,) = one.save(str(tmp_path / "one.nii.gz"), plugin=PLUGIN)
    assert np.array_equal(nib.load(saved).affine, nib.load(tmp_path / "bold.nii.gz").affine)
    every = viewer.add_labels(np.zeros(layer.data.shape, np.uint8), scale=layer.scale, translate=layer.translate)
    with pytest.raises(CannotWrite, match=r"it has 14 frames, a label file has one\. Right-click it"):
        write_labels_layer(str(tmp_path / "all.nii.gz"), *every.as_layer_data_tuple()[:2])


def test_labels_of_no_known_volume_are_refused_with_the_way_out(make_napari_viewer, tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    viewer.open(sample_path(CT), plugin=PLUGIN)
    layer = viewer.add_labels(np.zeros((3, 4, 5), np.uint8), name="stray")
    with pytest.raises(CannotWrite, match=r"'stray' was not written.*Open the image"):
        write_labels_layer(str(tmp_path / "stray.nii.gz"), *layer.as_layer_data_tuple()[:2])
    assert not list(tmp_path.iterdir())
