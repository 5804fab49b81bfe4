"""DICOM: which images of a folder or object make one volume, and what tells volumes of a series apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from napari_medtransformer.errors import UnsupportedVolume
from napari_medtransformer.volumes import read_volume
from napari_medtransformer.volumes.dicom import list_series

STORED = np.random.default_rng(0).integers(0, 2000, (6, 5, 4)).astype(np.int16)


def test_several_series_are_listed_and_chosen_by_place_or_uid(dicom_series) -> None:
    dicom_series(STORED, series="1.1")
    folder = dicom_series(STORED[:4] + 7, series="1.2", names="second{:d}".format)
    with pytest.raises(UnsupportedVolume, match=r"holds 2 series.*1: CT series 1 “thorax” \(6 × 5 × 4\); 2: .*\(4 ×"):
        read_volume(folder)
    assert read_volume(folder, series=1).shape == (6, 5, 4)
    assert read_volume(folder, series="1.2").shape == (4, 5, 4)
    with pytest.raises(UnsupportedVolume, match="has no series 3"):
        read_volume(folder, series=3)


def test_a_scout_in_the_series_is_kept_apart(dicom_series) -> None:
    dicom_series(STORED[:1], orientation=(1, 0, 0, 0, 0, -1), names="scout{:d}".format)
    folder = dicom_series(STORED)
    assert [len(series.frames) for series in list_series(folder)] == [6, 1]


def test_directions_that_jitter_in_their_last_digits_are_one(dicom_series) -> None:
    def jitter(ds, place: int) -> None:
        tilt = 0.0105 + (-1) ** place * 2e-6  # where rounding to three decimals would part them
        ds.ImageOrientationPatient = [1, 0, 0, 0, f"{np.sqrt(1 - tilt**2):.12f}", f"{tilt:.12f}"]

    (series,) = list_series(dicom_series(STORED, change=jitter))
    assert len(series.frames) == 6


def test_echoes_at_the_same_places_become_series_of_their_own(dicom_series) -> None:
    for echo in (10, 20):
        folder = dicom_series(
            STORED + echo,
            names=f"echo{echo}-{{:d}}".format,
            change=lambda ds, _, echo=echo: setattr(ds, "EchoTime", echo),
        )
    with pytest.raises(UnsupportedVolume, match="EchoTime 10.*EchoTime 20"):
        read_volume(folder)
    assert read_volume(folder, series=2).data.min() == STORED.min() + 20 - 1000


def test_slices_that_share_one_uid_are_all_there(dicom_series) -> None:
    def same(ds, _) -> None:
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.9"

    volume = read_volume(dicom_series(STORED, change=same))
    np.testing.assert_array_equal(volume.grid.to_file_order(volume.data).transpose(2, 1, 0), STORED - 1000.0)


def _phases(dicom_series, change, stored: np.ndarray = STORED) -> Path:
    """Four images at every place, 100 higher each, as files in an order of no meaning."""
    for phase in range(4):
        folder = dicom_series(
            stored + 100 * phase,
            names=lambda place, phase=phase: f"{(7 * place + 3 * phase) % 24:02d}-{phase}",
            change=lambda ds, place, phase=phase: change(ds, place, phase),
        )
    return folder


def _times_of_every_slice(ds, place: int, phase: int) -> None:
    ds.TriggerTime = 200.0 * phase + 7 * place
    ds.InstanceNumber = 4 * place + phase + 1


def _directions_without_a_name(ds, place: int, phase: int) -> None:
    ds.InstanceNumber = 6 * phase + place + 1
    ds.ContentTime = f"1200{phase:02d}.{place}"


def _echoes_with_two_parts_each(ds, place: int, phase: int) -> None:
    ds.EchoTime = (10, 20)[phase // 2]
    ds.ImageType = ["ORIGINAL", "PRIMARY", "MP"[phase % 2]]


@pytest.mark.parametrize("change", [_times_of_every_slice, _directions_without_a_name, _echoes_with_two_parts_each])
def test_images_at_the_same_places_are_parted_into_whole_volumes(dicom_series, change) -> None:
    folder = _phases(dicom_series, change)
    found = list_series(folder)
    assert [len(series.frames) for series in found] == [6] * 4
    volumes = [read_volume(folder, series=place) for place in range(1, 5)]
    lowest = sorted(volume.data.min() for volume in volumes)
    assert lowest == [STORED.min() - 1000 + 100 * phase for phase in range(4)]
    for volume in volumes:  # no slice of another phase among them
        plain = volume.grid.to_file_order(volume.data).transpose(2, 1, 0) - (STORED - 1000.0)
        assert np.ptp(plain) == 0


def test_a_film_of_one_slice_is_parted_by_its_times(dicom_series) -> None:
    folder = _phases(dicom_series, _times_of_every_slice, STORED[:1])
    assert [len(series.frames) for series in list_series(folder)] == [1] * 4


def test_an_echo_that_misses_a_slice_is_a_series_of_its_own(dicom_series) -> None:
    for echo, stored in ((10, STORED), (20, STORED[:5])):
        change = lambda ds, _, echo=echo: setattr(ds, "EchoTime", echo)  # noqa: E731
        folder = dicom_series(stored, names=f"echo{echo}-{{:d}}".format, change=change)
    assert sorted(len(series.frames) for series in list_series(folder)) == [5, 6]


def test_pixels_of_another_size_make_a_series_of_their_own(dicom_series) -> None:
    dicom_series(STORED)
    folder = dicom_series(STORED, spacing=(0.25, 0.25), names="fine{:d}".format)
    assert [len(series.frames) for series in list_series(folder)] == [6, 6]


@pytest.mark.parametrize(
    ("sequence", "keyword", "values"),
    [
        ("FrameContentSequence", "TemporalPositionIndex", (1, 2)),
        ("MRDiffusionSequence", "DiffusionBValue", (0.0, 800.0)),
        ("MREchoSequence", "EffectiveEchoTime", (10.0, 80.0)),
    ],
)
def test_volumes_in_one_multi_frame_object_are_told_apart(multiframe_ct, sequence, keyword, values) -> None:
    file = multiframe_ct(np.concatenate([STORED, STORED + 50]), slopes=[1] * 12)
    ds = pydicom.dcmread(file)
    for place, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        group.PlanePositionSequence[0].ImagePositionPatient = [-10, -20, 30 + 2 * (place % 6)]
        stated = pydicom.Dataset()
        setattr(stated, keyword, values[place // 6])
        setattr(group, sequence, [stated])
    ds.save_as(file)
    assert [len(series.frames) for series in list_series(file)] == [6, 6]
    one, two = (read_volume(file, series=place).data for place in (1, 2))
    np.testing.assert_array_equal(two - one, np.full(one.shape, 50))
