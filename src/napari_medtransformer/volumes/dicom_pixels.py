"""The values of DICOM images: decoded by pydicom, or by GDCM for the compressions that pydicom leaves to others.

GDCM is given only what decoding needs, written anew: on damaged headers it takes gigabytes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from napari_medtransformer.errors import UnreadableFile, UnsupportedVolume
from napari_medtransformer.volumes.dicom_headers import Frame
from napari_medtransformer.volumes.guard import check_promise, decoding

_PIXEL_MODULE = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelData", "SOPClassUID", "SOPInstanceUID"),
)


def dicom_pixels(frames: list[Frame], path: Path) -> np.ndarray:
    """The values of all frames (slice, row, column), rescaled, in the smallest type that all share.

    MONOCHROME1 comes inverted, so that bright is high. Raises UnreadableFile that names the file at fault.
    """
    volume: np.ndarray | None = None
    decoded: tuple[Path, np.ndarray, int] | None = None
    for place, frame in enumerate(frames):
        if decoded is None or decoded[0] != frame.file:
            with decoding(frame.file):
                decoded = (frame.file, *_stored(frame))
        stored = decoded[1][frame.index]
        if stored.shape != frame.shape:
            raise UnreadableFile(f"{frame.file.name} is damaged: its header says {frame.shape}, it has {stored.shape}.")
        image = _rescaled(stored, *frame.rescale, decoded[2])
        if volume is None:
            volume = np.zeros((len(frames), *frame.shape), image.dtype)
        elif image.dtype != volume.dtype:
            volume = volume.astype(np.promote_types(volume.dtype, image.dtype), copy=False)
        volume[place] = image
    if volume is None:
        raise UnreadableFile(f"{path.name} holds no images.")
    return volume.astype(np.float32) if volume.dtype == np.float64 else volume


def _stored(frame: Frame) -> tuple[np.ndarray, int]:
    """All stored values of a file (frame, row, column), and how many bits they use."""
    import pydicom
    from pydicom.pixels import get_decoder
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    dataset = pydicom.dcmread(frame.file, force=True)
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:  # of a bare data set: as it was read
        implicit, little = dataset.original_encoding
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = syntax
    rows, columns = frame.shape
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise UnsupportedVolume(f"{frame.file.name} is a colour image; expected one value per pixel.")
    compressed = syntax is not None and syntax.is_compressed
    if not compressed:
        allocated = int(dataset.get("BitsAllocated") or 16)
        needed = rows * columns * frame.frames_in_file * allocated // 8
        deflated = syntax is not None and syntax.is_deflated
        check_promise(frame.file, needed, frame.file.stat().st_size, compressed=deflated)
    if compressed and not get_decoder(syntax).is_available:
        stored = _by_gdcm(dataset, syntax)
    else:
        stored = dataset.pixel_array
    stored = stored.reshape(-1, rows, columns)
    bits = int(dataset.get("BitsStored") or 8 * stored.dtype.itemsize)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        stored = ~stored if stored.dtype.kind == "i" else stored.dtype.type(2**bits - 1) - stored
    return stored, bits


def _rescaled(stored: np.ndarray, slope: float, intercept: float, bits: int) -> np.ndarray:
    """Stored values times slope plus intercept: unchanged, int16 or int32 where that is exact, else float32.

    The type follows from the bits in use and not from the values, so that all slices of a series agree.
    """
    if (slope, intercept) == (1.0, 0.0):
        return stored
    if stored.dtype.kind in "ui" and slope.is_integer() and intercept.is_integer():
        span = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if stored.dtype.kind == "i" else (0, 2**bits - 1)
        ends = [end * int(slope) + int(intercept) for end in span]
        for candidate in (np.int16, np.int32):
            if np.iinfo(candidate).min <= min(ends) and max(ends) <= np.iinfo(candidate).max:
                return (stored.astype(np.int64) * int(slope) + int(intercept)).astype(candidate)
    return (stored * np.float64(slope) + intercept).astype(np.float32)


def _by_gdcm(dataset: Any, syntax: str) -> np.ndarray:
    """The stored values of a compressed object through SimpleITK's GDCM."""
    import pydicom
    import SimpleITK as sitk

    bare = pydicom.Dataset()
    for keyword in _PIXEL_MODULE:
        if dataset.get(keyword) not in (None, ""):
            bare[keyword] = dataset[keyword]
    bare.PhotometricInterpretation = "MONOCHROME2"
    bare.SOPClassUID = bare.get("SOPClassUID") or dataset.file_meta.MediaStorageSOPClassUID
    bare.SOPInstanceUID = bare.get("SOPInstanceUID") or pydicom.uid.generate_uid()
    bare.file_meta = pydicom.dataset.FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = syntax
    with tempfile.TemporaryDirectory(prefix="medt-") as folder:
        file = Path(folder, "image.dcm")
        pydicom.dcmwrite(file, bare, enforce_file_format=True)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(file))
        warned = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ITK would print them
        try:
            return sitk.GetArrayFromImage(reader.Execute())
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(warned)
