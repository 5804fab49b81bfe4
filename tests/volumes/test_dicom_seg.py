"""DICOM-SEG: other people's are read as labels, ours are read by highdicom and refer to their images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from napari_medtransformer.errors import CannotWrite, UnreadableFile, UnsupportedVolume
from napari_medtransformer.volumes import Label, read_label_names, read_labels, read_volume, write_labels
from napari_medtransformer.volumes.dicom_seg import property_code

hd = pytest.importorskip("highdicom")

STORED = np.random.default_rng(0).integers(0, 2000, (6, 5, 4)).astype(np.int16)
NAMES = [Label(2, "liver", (0.8, 0.4, 0.3)), Label(7, "kidney_right", (0.2, 0.4, 0.9))]


@pytest.fixture
def drawn(dicom_series):
    """A CT series and labels 2 and 7 on it."""
    volume = read_volume(dicom_series(STORED))
    labels = np.zeros(volume.shape, np.uint8)
    labels[1:4, 1:3, 1:3], labels[3:5, 4, 0:2] = 2, 7
    return volume, labels


def test_the_segmentations_of_dcmqi_lie_on_their_ct(shared_data: Path) -> None:
    folder = shared_data / "dcmqi_ct"
    ct, seg = read_volume(folder), read_labels(folder / "liver.dcm")
    np.testing.assert_allclose(seg.affine, ct.affine, atol=1e-5)  # its header rounds 235.199997 to 235.2
    assert seg.shape == ct.shape
    nrrd = read_labels(folder / "liver_seg.nrrd")
    assert np.array_equal(seg.data, nrrd.data)
    np.testing.assert_allclose(seg.affine, nrrd.affine, atol=1e-5)
    assert [label.name for label in read_label_names(folder / "liver.dcm")] == ["Liver"]
    assert 20 < np.median(ct.data[seg.data == 1]) < 200  # HU of liver


def test_overlapping_segments_are_said(shared_data: Path) -> None:
    path = shared_data / "dcmqi_ct" / "partial_overlaps.dcm"
    with pytest.warns(UserWarning, match="segments that overlap in [0-9]+ voxels"):
        labels = read_labels(path)
    planes = hd.seg.segread(path).get_volume(combine_segments=False)
    highest = (planes.array > 0) * np.arange(1, planes.array.shape[-1] + 1)
    assert np.array_equal(labels.data, _canonical(planes, highest.max(axis=-1)))


def _canonical(volume, array: np.ndarray) -> np.ndarray:
    """highdicom's (slice, row, column) of an axial series as (z, y, x) toward superior."""
    return array if volume.affine[2, 0] > 0 else array[::-1]


def test_what_we_write_highdicom_reads_identically(drawn, tmp_path: Path) -> None:
    volume, labels = drawn
    path = write_labels(labels, volume, tmp_path / "labels.dcm", names=NAMES)
    seg = hd.seg.segread(path)
    read = seg.get_volume(combine_segments=True)
    # Segments count from 1: liver 1, kidney 2. Only slices with segments have frames.
    expected = np.select([labels == 2, labels == 7], [1, 2])[1:5]
    assert np.array_equal(_canonical(read, read.array), expected)
    np.testing.assert_allclose(read.spacing, volume.spacing)
    assert [seg.get_segment_description(n).segment_label for n in (1, 2)] == ["liver", "kidney_right"]
    assert seg.get_segment_description(1).segmented_property_type.meaning == "Liver"


def test_what_we_write_we_read_with_numbers_names_and_place(drawn, tmp_path: Path) -> None:
    volume, labels = drawn
    path = write_labels(labels, volume, tmp_path / "labels.dcm", names=NAMES)
    back = read_labels(path)
    assert np.array_equal(back.data, labels[1:5])
    np.testing.assert_allclose(back.mm_from_zyx((0, 0, 0)), volume.mm_from_zyx((1, 0, 0)), atol=1e-6)
    for read, written in zip(read_label_names(path), NAMES):
        assert (read.number, read.name) == (written.number, written.name)
        np.testing.assert_allclose(read.color, written.color, atol=0.02)  # CIELab of 16 bits, there and back


def test_it_refers_to_its_images_and_is_well_formed(drawn, tmp_path: Path) -> None:
    volume, labels = drawn
    ds = pydicom.dcmread(write_labels(labels, volume, tmp_path / "labels.dcm", names=NAMES))
    assert ds.SOPClassUID == pydicom.uid.SegmentationStorage
    assert ds.StudyInstanceUID == "1.2.3"
    assert ds.FrameOfReferenceUID == "1.2.5"
    (series,) = ds.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.4"
    referred = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
    assert referred == {pydicom.dcmread(file).SOPInstanceUID for file in volume.source.files}
    modifier = ds.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence
    assert modifier[0].CodeMeaning == "Right"
    assert pydicom.dcmread(tmp_path / "labels.dcm").pixel_array.max() == 1


def test_labels_of_a_multi_frame_ct_are_written_too(multiframe_ct, tmp_path: Path) -> None:
    volume = read_volume(multiframe_ct(STORED, order=[3, 0, 5, 1, 4, 2]))
    labels = np.zeros(volume.shape, np.uint8)
    labels[0, 2, 1], labels[5, 1, 3] = 1, 1
    back = read_labels(write_labels(labels, volume, tmp_path / "labels.dcm"))
    for zyx in np.argwhere(back.data):
        place = volume.zyx_from_mm(back.mm_from_zyx(zyx))
        np.testing.assert_allclose(place, np.round(place), atol=1e-5)
        assert labels[tuple(np.round(place).astype(int))] == 1
    assert np.count_nonzero(back.data) == 2


def test_an_anonymised_series_is_written_with_a_warning(dicom_series, tmp_path: Path) -> None:
    def strip(ds, _) -> None:
        ds.SOPInstanceUID = ds.SeriesInstanceUID = ds.StudyInstanceUID = ds.SOPClassUID = ""

    volume = read_volume(dicom_series(STORED, change=strip))
    assert volume.shape == (6, 5, 4)
    with pytest.warns(UserWarning, match="stripped of its identifiers"):
        path = write_labels(np.ones(volume.shape, np.uint8), volume, tmp_path / "labels.dcm")
    assert read_labels(path).data.all()


def test_what_cannot_be_a_dicom_seg_is_said(drawn, tmp_path: Path) -> None:
    volume, labels = drawn
    with pytest.raises(CannotWrite, match="no labels to write"):
        write_labels(labels * 0, volume, tmp_path / "labels.dcm")
    for file in volume.source.files:
        file.unlink()
    with pytest.raises((CannotWrite, UnreadableFile)):
        write_labels(labels, volume, tmp_path / "labels.dcm")
    assert not (tmp_path / "labels.dcm").exists()


def test_a_segmentation_is_no_image_and_an_image_no_segmentation(drawn, tmp_path: Path) -> None:
    volume, labels = drawn
    path = write_labels(labels, volume, tmp_path / "labels.dcm")
    with pytest.raises(UnreadableFile, match="holds no DICOM images"):
        read_volume(path)
    with pytest.raises(UnsupportedVolume, match="no segmentation"):
        read_labels(volume.source.files[0])


def test_a_folder_that_holds_a_segmentation_alone_says_which_file_to_open(drawn, tmp_path: Path) -> None:
    volume, labels = drawn
    (tmp_path / "alone").mkdir()
    path = write_labels(labels, volume, tmp_path / "alone" / "liver.dcm")
    for given in (path, path.parent):
        with pytest.raises(UnreadableFile, match=r"only a segmentation\. Open the file liver\.dcm itself, as labels"):
            read_volume(given)


@pytest.mark.parametrize(
    ("name", "code", "side"),
    [
        ("liver", "10200004", None),
        ("kidney_right", "64033007", "24028007"),
        ("adrenal_gland_left", "23451007", "7771000"),
        ("vertebrae_L3", "51282000", None),
        ("my lesion 3", None, None),
    ],
)
def test_organs_are_coded_by_their_names(name: str, code: str | None, side: str | None) -> None:
    found, found_side = property_code(name)
    assert (found and found.value) == code
    assert (found_side and found_side.value) == side


def test_names_in_any_script_are_kept(drawn, tmp_path: Path) -> None:
    volume, labels = drawn
    path = write_labels(labels, volume, tmp_path / "named.dcm", names={2: "肝臓", 7: "печень"})
    assert [label.name for label in read_label_names(path)] == ["肝臓", "печень"]
    assert pydicom.dcmread(path).PatientName == "Doe^Jane"


def test_a_label_map_is_a_segmentation_too(drawn, tmp_path: Path) -> None:
    volume, labels = drawn
    frames = np.ascontiguousarray(volume.grid.to_file_order(labels).transpose(2, 1, 0))
    tissue = codes.SCT.Tissue
    made = hd.seg.Segmentation(
        source_images=[pydicom.dcmread(file) for file in volume.source.files],
        pixel_array=np.select([frames == 2, frames == 7], [1, 2]).astype(np.uint8),
        segmentation_type="LABELMAP",
        segment_descriptions=[
            hd.seg.SegmentDescription(place, name, tissue, tissue, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
            for place, name in ((1, "liver"), (2, "kidney"))
        ],
        series_instance_uid=hd.UID(),
        series_number=2,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="0",
    )
    path = tmp_path / "map.dcm"
    made.save_as(path)
    read = read_labels(path)
    first = round(float(read.mm_from_zyx((0, 0, 0))[2] - volume.mm_from_zyx((0, 0, 0))[2]) / 2)
    expected = np.select([labels == 2, labels == 7], [1, 2])
    np.testing.assert_array_equal(read.data, expected[first : first + len(read.data)])
    assert np.count_nonzero(read.data) == np.count_nonzero(labels)
    assert [(label.number, label.name) for label in read_label_names(path)] == [(1, "liver"), (2, "kidney")]
    shutil.copy(path, volume.source.path / "map.dcm")
    assert read_volume(volume.source.path).shape == volume.shape  # no image among images
