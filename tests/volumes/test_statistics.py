"""Millilitres and values of labels against scipy and by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from napari_medtransformer.errors import UnsupportedVolume
from napari_medtransformer.volumes import Volume, label_statistics, read_labels, read_volume, write_statistics
from napari_medtransformer.volumes.sample_data import sample_label_names, sample_path


def test_organs_of_the_sample_ct_measure_what_scipy_says() -> None:
    ct = read_volume(sample_path("example_ct.nii.gz"))
    labels = read_labels(sample_path("example_seg_fast_force_split.nii.gz")).data
    statistics = label_statistics(labels, ct, sample_label_names())
    numbers = [one.label.number for one in statistics]
    assert numbers == np.unique(labels)[1:].tolist()
    np.testing.assert_allclose([one.mean for one in statistics], ndimage.mean(ct.data, labels, numbers))
    np.testing.assert_allclose([one.std for one in statistics], ndimage.standard_deviation(ct.data, labels, numbers))
    assert [one.low for one in statistics] == ndimage.minimum(ct.data, labels, numbers).tolist()
    assert [one.high for one in statistics] == ndimage.maximum(ct.data, labels, numbers).tolist()
    liver = next(one for one in statistics if one.label.name == "liver")
    assert liver.volume_ml == pytest.approx(np.count_nonzero(labels == 5) * 0.027, rel=1e-6)
    assert 30 < liver.mean < 150


def test_a_sheared_voxel_has_the_volume_of_its_parallelepiped() -> None:
    affine = np.array([[0, 0.0, -2, 0], [0, -3, 1, 0], [5, 0, 0, 0], [0, 0, 0, 1]])
    (one,) = label_statistics(np.ones((2, 2, 2), np.uint8), Volume(np.zeros((2, 2, 2)), affine))
    assert one.volume_ml == pytest.approx(8 * 30 / 1000)


def test_no_labels_have_no_statistics_and_other_shapes_are_refused() -> None:
    volume = Volume.from_array(np.zeros((2, 2, 2)))
    assert label_statistics(np.zeros((2, 2, 2), np.uint8), volume) == []
    with pytest.raises(UnsupportedVolume, match="do not fit"):
        label_statistics(np.zeros((2, 2, 3), np.uint8), volume)


def test_statistics_are_written_as_a_table(tmp_path: Path) -> None:
    volume = Volume.from_array(np.arange(8.0).reshape(2, 2, 2), (1, 1, 1))
    labels = np.array([[[1, 1], [0, 0]], [[0, 0], [0, 3]]])
    path = write_statistics(label_statistics(labels, volume, {1: "first"}), tmp_path / "table.csv")
    rows = list(csv.DictReader(path.open()))
    assert [(row["number"], row["name"], row["voxels"], float(row["mean"])) for row in rows] == [
        ("1", "first", "2", 0.5),
        ("3", "label 3", "1", 7.0),
    ]
    assert float(rows[0]["volume_ml"]) == pytest.approx(0.002)
