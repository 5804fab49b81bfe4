"""DICOM series made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid


def header(sop_class: str, series: str = "1.2.3.4") -> FileDataset:
    """A DICOM object with what every CT has, but for its pixels and its place."""
    instance = generate_uid()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, instance
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", series, "1.2.5"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Doe^Jane", "1", "", ""
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20200101", "120000", "1", ""
    ds.ReferringPhysicianName, ds.Manufacturer, ds.Modality = "", "none", "CT"
    ds.SeriesNumber, ds.SeriesDescription = 1, "thorax"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1000, "HU"
    return ds


@pytest.fixture
def dicom_series(tmp_path: Path) -> Callable[..., Path]:
    """Writes stored values (slice, row, column) as one file per slice and returns their folder.

    positions: one per slice, LPS mm. names: file names. change: called with (data set, slice) before it is saved.
    """

    def write(
        stored: np.ndarray,
        positions: Any = None,
        orientation: Any = (1, 0, 0, 0, 1, 0),
        spacing: Any = (0.5, 0.75),
        folder: str = "series",
        series: str = "1.2.3.4",
        names: Callable[[int], str] = "IM{:04d}".format,
        change: Callable[[Dataset, int], None] = lambda ds, place: None,
    ) -> Path:
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        if positions is None:
            positions = [(-10.0, -20.0, 30.0 + 2 * place) for place in range(len(stored))]
        for place, (image, position) in enumerate(zip(stored, positions)):
            ds = header(CTImageStorage, series)
            ds.InstanceNumber, ds.SliceThickness = place + 1, 2
            ds.Rows, ds.Columns = image.shape
            ds.ImagePositionPatient = [f"{p:.9f}" for p in position]  # at most 16 characters
            ds.ImageOrientationPatient = [f"{c:.12f}" for c in orientation]
            ds.PixelSpacing = list(spacing)
            ds.PixelData = image.astype("<i2").tobytes()
            change(ds, place)
            pydicom.dcmwrite(target / names(place), ds)
        return target

    return write


@pytest.fixture
def multiframe_ct(tmp_path: Path) -> Callable[..., Path]:
    """Writes stored values (slice, row, column) as one enhanced CT, its frames in the order given."""

    def write(stored: np.ndarray, order: Any = None, slopes: Any = None, name: str = "enhanced.dcm") -> Path:
        order = list(range(len(stored))) if order is None else order
        slopes = [2] * len(stored) if slopes is None else slopes
        ds = header(EnhancedCTImageStorage)
        del ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType
        ds.Rows, ds.Columns, ds.NumberOfFrames = *stored.shape[1:], len(stored)
        shared, measures, plane = Dataset(), Dataset(), Dataset()
        measures.PixelSpacing, measures.SliceThickness = [0.5, 0.75], 2
        plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([plane])
        ds.SharedFunctionalGroupsSequence = Sequence([shared])
        groups = []
        for place in order:
            group, position, values = Dataset(), Dataset(), Dataset()
            position.ImagePositionPatient = [-10, -20, 30 + 2 * place]
            values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slopes[place], -5, "HU"
            group.PlanePositionSequence = Sequence([position])
            group.PixelValueTransformationSequence = Sequence([values])
            groups.append(group)
        ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
        ds.PixelData = stored[order].astype("<i2").tobytes()
        pydicom.dcmwrite(tmp_path / name, ds)
        return tmp_path / name

    return write
