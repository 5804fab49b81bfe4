"""DICOM segmentations: read as labels, written through highdicom with names, codes and references to their source.

DICOM PS3.3, A.51 (Segmentation IOD) and C.8.20.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from napari_medtransformer.errors import CannotWrite, UnreadableFile, UnsupportedVolume
from napari_medtransformer.volumes import geometry
from napari_medtransformer.volumes.dicom_headers import Frame, frames_of, instance_uid, is_segmentation
from napari_medtransformer.volumes.guard import decoding
from napari_medtransformer.volumes.label_table import Color, Label, label_color
from napari_medtransformer.volumes.volume import Decoded, FileGrid

# Names of organs whose word in SNOMED CT differs from the one in common use; the rest are looked up as they are.
_SNOMED_WORDS = {
    "thyroidgland": "Thyroid",
    "smallbowel": "SmallIntestine",
    "urinarybladder": "Bladder",
    "portalveinandsplenicvein": "PortalVein",
    "kidneycyst": "Cyst",
    "clavicula": "Clavicle",
    "hip": "HipBone",
    "skull": "Skull",
    "hippocampusanterior": "Hippocampus",
    "hippocampusposterior": "Hippocampus",
}
# Attributes that every object has to have, if only empty (type 2 of the patient and study modules).
_REQUIRED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
# How a segment written here remembers the number of its label.
_TRACKING = "napari-medtransformer label "
_SNOMED_STARTS = {"vertebrae": "Vertebra", "rib": "Rib", "lung": "Lung"}


def read_dicom_seg(path: Path) -> Decoded:
    """A DICOM-SEG as labels, file order (i, j, k) = (column, row, slice), on the grid that its frames span.

    A label is a segment's number. Segments that overlap cannot share one array: the higher number is kept, with a
    warning. Fractional segments count from one half. Raises UnreadableFile or UnsupportedVolume.
    """
    with decoding(path):
        import pydicom

        dataset = pydicom.dcmread(path)
        if not is_segmentation(dataset):
            raise UnsupportedVolume(f"{path.name} is a DICOM image, no segmentation. Open it as an image.")
        frames = frames_of(dataset, path)
        numbers = _segment_numbers(dataset, len(frames))
        stored = dataset.pixel_array.reshape(len(frames), *frames[0].shape)
        if dataset.get("SegmentationType") == "FRACTIONAL":
            stored = stored >= float(dataset.get("MaximumFractionalValue", 255)) / 2
            warnings.warn(f"{path.name} holds fractions; voxels of at least one half are kept.", stacklevel=4)
    affine_lps, slices = _grid(frames, path)
    rows, columns = frames[0].shape
    highest = int(stored.max(initial=0)) if numbers is None else max(numbers)
    labels = np.zeros((slices.max() + 1, rows, columns), np.min_scalar_type(highest))
    overlaps = 0
    for place in np.arange(len(frames)) if numbers is None else np.argsort(numbers, kind="stable"):
        target = labels[slices[place]]
        inside = stored[place] > 0
        overlaps += int(np.count_nonzero(target[inside]))
        target[inside] = stored[place][inside] if numbers is None else numbers[place]
    if overlaps:
        warnings.warn(
            f"{path.name} has segments that overlap in {overlaps} voxels; each shows the highest number there.",
            stacklevel=4,
        )
    shape = (columns, rows, len(labels))
    return Decoded(labels.transpose(2, 1, 0), FileGrid(path, "dicom", shape, geometry.ras_from_lps(affine_lps), shape))


def read_dicom_segments(path: Path) -> list[Label]:
    """The names and colours of a DICOM-SEG's segments."""
    with decoding(path):
        import pydicom

        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        segments = dataset.get("SegmentSequence") or []
        return [_label(segment) for segment in segments if int(segment.SegmentNumber)]  # 0: a label map's background


def check_dicom_seg(grid: FileGrid) -> None:
    """Whether a DICOM-SEG can be written of what lies on that grid. Raises CannotWrite as `write_dicom_seg` does."""
    if grid.format != "dicom" or not grid.files:
        raise CannotWrite(
            f"a DICOM-SEG refers to the DICOM series it belongs to, and {grid.path.name} is none (or came from a zip). "
            f"Save as .nii.gz or .seg.nrrd."
        )
    if find_spec("highdicom") is None:
        raise CannotWrite("writing a DICOM-SEG needs highdicom: pip install highdicom.")


def write_dicom_seg(array: np.ndarray, grid: FileGrid, stream: BinaryIO, labels: Sequence[Label]) -> None:
    """Write labels (i, j, k) as a binary DICOM-SEG that refers to the DICOM series they were drawn on.

    Raises CannotWrite if the volume did not come from DICOM files that are still there, or highdicom is missing.
    """
    check_dicom_seg(grid)
    if not labels:
        raise CannotWrite("there are no labels to write: a DICOM-SEG has at least one segment. Draw something first.")
    sources = _sources(grid)
    affine = geometry.ras_from_lps(grid.affine_ijk)
    frames = np.ascontiguousarray(array.transpose(2, 1, 0))  # slice, row, column
    # Segments are numbered from 1 without gaps (C.8.20.2); the label's own number goes into its tracking id.
    segments = np.zeros(int(frames.max()) + 1, np.min_scalar_type(len(labels)))
    for place, label in enumerate(labels, 1):
        if label.number < len(segments):
            segments[label.number] = place
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the form of names in the source headers, which are not ours to judge
            segmentation = _segmentation(sources, segments[frames], labels, affine)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise CannotWrite(
            f"the headers of {grid.path.name} allow no DICOM-SEG: {' '.join(str(error).split())}. Save as .nii.gz."
        ) from error
    segmentation.SpecificCharacterSet = "ISO_IR 192"  # names are in any language, whatever the source's were in
    segmentation.save_as(stream)


def _segmentation(sources: list[Any], frames: np.ndarray, labels: Sequence[Label], affine_lps: np.ndarray) -> Any:
    """The DICOM object. frames: (slice, row, column), segment numbers. affine_lps: (i, j, k) to LPS mm."""
    import highdicom as hd

    spacing = np.linalg.norm(affine_lps[:3, :3], axis=0)
    patient = hd.CoordinateSystemNames.PATIENT
    positions = [affine_lps[:3, 3] + place * affine_lps[:3, 2] for place in range(len(frames))]
    directions = [*(affine_lps[:3, 0] / spacing[0]), *(affine_lps[:3, 1] / spacing[1])]
    return hd.seg.Segmentation(
        source_images=sources,
        pixel_array=frames,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(place, label) for place, label in enumerate(labels, 1)],
        series_instance_uid=hd.UID(),
        series_number=1000,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="napari-medtransformer",
        manufacturer_model_name="napari-medtransformer",
        software_versions=_version(),
        device_serial_number="0",
        content_label="SEGMENTATION",
        plane_positions=[hd.PlanePositionSequence(patient, position) for position in positions],
        plane_orientation=hd.PlaneOrientationSequence(patient, directions),
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=(spacing[1], spacing[0]), slice_thickness=spacing[2], spacing_between_slices=spacing[2]
        ),
    )


def _sources(grid: FileGrid) -> list[Any]:
    """The headers of the source files, each once. Where an anonymiser emptied a UID, one is made of what is left."""
    import pydicom
    from pydicom.uid import generate_uid

    sources, filled = [], False
    for file in dict.fromkeys(grid.files):
        with decoding(file):
            source = pydicom.dcmread(file, stop_before_pixels=True)
        source.SOPInstanceUID = instance_uid(source) or generate_uid(entropy_srcs=[str(file)])
        source.SOPClassUID = source.get("SOPClassUID") or source.file_meta.MediaStorageSOPClassUID
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            if not source.get(keyword):
                filled = True
                setattr(source, keyword, generate_uid(entropy_srcs=[keyword, str(grid.path.resolve())]))
        for keyword in _REQUIRED:
            if keyword not in source:
                setattr(source, keyword, "")
        if not source.get("SpecificCharacterSet", "ISO_IR 100"):
            del source.SpecificCharacterSet  # empty, which no reader of names accepts
        sources.append(source)
    if filled:
        warnings.warn(
            f"{grid.path.name} was stripped of its identifiers: the DICOM-SEG carries made-up ones, and a viewer "
            f"cannot match it with the images.",
            stacklevel=5,
        )
    return sources


def _description(place: int, label: Label) -> Any:
    """One segment: its name, code, colour and origin."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    code, side = property_code(label.name)
    description = hd.seg.SegmentDescription(
        segment_number=place,
        segment_label=label.name[:64],
        segmented_property_category=codes.SCT.AnatomicalStructure if code else codes.SCT.Tissue,
        segmented_property_type=code or codes.SCT.Tissue,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="napari-medtransformer", family=codes.cid7162.ArtificialIntelligence, version=_version()
        ),
        tracking_uid=hd.UID(),
        tracking_id=f"{_TRACKING}{label.number}",
        display_color=hd.color.CIELabColor.from_rgb(*(round(part * 255) for part in label.color)),
    )
    if side is not None:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [hd.sr.CodedConcept.from_code(side)]
    return description


def property_code(name: str) -> tuple[Any | None, Any | None]:
    """The SNOMED CT code of an organ by its name, and of its side; None where there is none."""
    from pydicom.sr.codedict import codes

    words = [word for word in re.split(r"[^A-Za-z]+", name.lower()) if word]
    side = codes.SCT.Left if "left" in words else codes.SCT.Right if "right" in words else None
    organ = [word for word in words if word not in ("left", "right")]
    joined = "".join(organ)
    keyword = _SNOMED_WORDS.get(joined) or (_SNOMED_STARTS.get(organ[0]) if organ else None)
    keyword = keyword or "".join(word.capitalize() for word in organ)
    try:
        return (getattr(codes.SCT, keyword), side) if keyword else (None, None)
    except AttributeError:
        return None, None


def _segment_numbers(dataset: Any, count: int) -> list[int] | None:
    """The segment of every frame; None for a label map, whose values are the numbers."""
    if dataset.get("SegmentationType") == "LABELMAP":
        return None
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    own = {int(segment.SegmentNumber): _label_number(segment) for segment in dataset.get("SegmentSequence") or []}
    numbers = []
    for group in dataset.PerFrameFunctionalGroupsSequence:
        holder = group if "SegmentIdentificationSequence" in group else shared
        segment = int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        numbers.append(own.get(segment, segment))
    if len(numbers) != count or min(numbers) < 1:
        raise UnreadableFile("its frames do not say which segments they show")
    return numbers


def _grid(frames: list[Frame], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The affine from (i, j, k) to LPS mm, and the slice of every frame. Slices without segments have no frame."""
    first = frames[0]
    if first.orientation is None or first.spacing is None or any(frame.position is None for frame in frames):
        raise UnsupportedVolume(f"{path.name} states no positions in the patient; it cannot be placed on an image.")
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    normal = np.cross(row, column)
    positions = np.array([frame.position for frame in frames])
    along = positions @ normal
    places = np.unique(np.round(along, 3))
    gaps = np.diff(places)
    # Segments may skip slices: the finest gap is the distance of neighbours, unless the header knows a finer one.
    step = float(gaps.min()) if gaps.size else first.thickness or 1.0
    if (
        first.thickness
        and gaps.size
        and np.all(np.abs(gaps / first.thickness - np.round(gaps / first.thickness)) < 0.05)
    ):
        step = min(step, first.thickness)
    slices = np.round((along - along.min()) / step).astype(int)
    if gaps.size and np.abs((along - along.min()) / step - slices).max() > 0.05:
        raise UnsupportedVolume(f"{path.name} has unevenly spaced slices; it cannot be shown as a volume.")
    if slices.max() > 100_000:
        raise UnreadableFile(f"{path.name} is damaged: its slices lie {step:g} mm apart over {np.ptp(along):g} mm.")
    origin = positions[int(np.argmin(along))]
    far = positions[int(np.argmax(along))]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * first.spacing[1], column * first.spacing[0]
    affine[:3, 2] = (far - origin) / slices.max() if slices.max() else normal * step
    affine[:3, 3] = origin
    return affine, slices


def _label(segment: Any) -> Label:
    number = _label_number(segment)
    lab = segment.get("RecommendedDisplayCIELabValue")
    color = label_color(number) if lab is None else _rgb(lab)
    return Label(number, str(segment.get("SegmentLabel") or f"segment {number}"), color)


def _label_number(segment: Any) -> int:
    """The number of a segment's label: the one it was drawn with if it was written here, else its own."""
    tracking = str(segment.get("TrackingID") or "")
    number = tracking.removeprefix(_TRACKING)
    return int(number) if number != tracking and number.isdecimal() and int(number) else int(segment.SegmentNumber)


def _rgb(lab: Sequence[int]) -> Color:
    """DICOM's CIELab (PS3.3 C.10.7.1.1: 16 bits over 0..100 and -128..127) as red, green, blue."""
    from skimage.color import lab2rgb

    scaled = [lab[0] / 65535 * 100, lab[1] / 65535 * 255 - 128, lab[2] / 65535 * 255 - 128]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # colours out of the screen's gamut are clipped
        red, green, blue = (float(c) for c in np.clip(lab2rgb(np.array(scaled)), 0, 1))
    return red, green, blue


def _version() -> str:
    from importlib.metadata import version

    return version("napari-medtransformer")
