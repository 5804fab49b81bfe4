"""Volumes behind layers that other readers made, and where a position of the viewer lies in them."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_medtransformer.errors import UnsupportedVolume
from napari_medtransformer.plugin.layer_volume import labels_of_layer, slice_point, volume_of_layer, world_of_voxel
from napari_medtransformer.plugin.layers import image_layer
from napari_medtransformer.volumes import Volume


def test_the_volume_that_our_reader_attached_is_used_as_it_is() -> None:
    volume = Volume.from_array(np.zeros((3, 4, 5), np.int16), (2.0, 1.0, 1.0))
    data, options, _ = image_layer(volume)
    known = volume_of_layer(Image(data, **options))
    assert known.volume is volume
    assert known.assumed == ""


def test_a_plain_array_gets_its_spacing_from_the_layer_and_says_what_was_assumed() -> None:
    layer = Image(np.zeros((3, 4, 5)), scale=(2.0, 0.5, 0.5), units=("mm",) * 3, name="scan")
    known = volume_of_layer(layer)
    np.testing.assert_allclose(known.volume.spacing, (2.0, 0.5, 0.5))
    assert "scan says nothing about the patient" in known.assumed


def test_units_are_converted_to_millimetres() -> None:
    layer = Image(np.zeros((3, 4, 5)), scale=(2000.0, 500.0, 500.0), units=("um",) * 3)
    np.testing.assert_allclose(volume_of_layer(layer).volume.spacing, (2.0, 0.5, 0.5))


def test_pixels_are_taken_for_millimetres_and_that_is_said() -> None:
    known = volume_of_layer(Image(np.zeros((3, 4, 5)), scale=(2.0, 1.0, 1.0)))
    np.testing.assert_allclose(known.volume.spacing, (2.0, 1.0, 1.0))
    assert "= 1 mm" in known.assumed


def test_a_picture_becomes_a_volume_of_one_slice_and_its_labels_a_picture() -> None:
    layer = Image(np.arange(20.0).reshape(4, 5), scale=(0.5, 0.5), units=("mm",) * 2)
    volume = volume_of_layer(layer).volume
    assert volume.shape == (1, 4, 5)
    np.testing.assert_allclose(volume.spacing, (1.0, 0.5, 0.5))
    assert labels_of_layer(np.zeros(volume.shape, np.uint16), layer).shape == (4, 5)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Image(np.zeros((4, 5, 3)), rgb=True, name="photo"), "photo is a colour image"),
        (Image(np.zeros((2, 2, 3, 4, 5)), name="film"), r"film has 5 dimensions \(2, 2, 3, 4, 5\)"),
        (Labels(np.zeros((3, 4, 5), int), name="organs"), "organs is a Labels layer"),
    ],
)
def test_what_is_no_volume_is_refused_in_one_line(layer, message) -> None:
    with pytest.raises(UnsupportedVolume, match=message) as caught:
        volume_of_layer(layer)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_position_is_the_voxel_it_was_made_from_in_every_plane(axis) -> None:
    layer = Image(np.zeros((6, 7, 8)), scale=(3.0, 0.7, 0.9), translate=(-40.0, 11.0, 5.0))
    displayed = [a for a in range(3) if a != axis]
    point = slice_point(layer, world_of_voxel(layer, (4, 2, 5)), displayed, 3)
    assert point.axis == axis
    assert point.voxel == (4, 2, 5)


def test_between_slices_the_point_belongs_to_the_slice_that_is_shown() -> None:
    layer = Image(np.zeros((6, 7, 8)))
    assert slice_point(layer, (3.4, 2.3, 5.0), (1, 2), 3).position_zyx == (3.0, 2.3, 5.0)
    assert slice_point(layer, (3.6, 2.3, 5.0), (1, 2), 3).position_zyx == (4.0, 2.3, 5.0)


def test_a_viewer_with_more_dimensions_than_the_layer_uses_its_last_ones() -> None:
    layer = Image(np.zeros((6, 7, 8)))
    point = slice_point(layer, (99.0, 4.0, 2.0, 5.0), (2, 3), 4)
    assert (point.voxel, point.axis) == ((4, 2, 5), 0)


def test_a_layer_turned_by_its_affine_still_knows_which_of_its_axes_leaves_the_screen() -> None:
    swap_z_and_x = np.eye(4)[[2, 1, 0, 3]]
    layer = Image(np.zeros((6, 7, 8)), affine=swap_z_and_x)
    point = slice_point(layer, (5.0, 2.0, 4.0), (1, 2), 3)
    assert (point.voxel, point.axis) == ((4, 2, 5), 2)


def test_outside_the_image_there_is_no_point() -> None:
    layer = Image(np.zeros((6, 7, 8)))
    assert slice_point(layer, (3.0, -0.6, 2.0), (1, 2), 3) is None
    assert slice_point(layer, (3.0, -0.4, 2.0), (1, 2), 3) is not None
    assert slice_point(layer, (3.0, 2.0, 7.5), (1, 2), 3) is None
