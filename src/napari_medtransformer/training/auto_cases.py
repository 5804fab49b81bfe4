"""A folder of labelled volumes as training cases: found, checked, brought to one voxel size, split."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_medtransformer.errors import UnreadableFile, UnsupportedVolume
from napari_medtransformer.models.scaling import Scaling
from napari_medtransformer.volumes.reading import read_volume
from napari_medtransformer.volumes.volume import Volume

# Every fifth case of the sorted ids, beginning with the fifth, is for validation and never trained on.
FOLD = 5
_IMAGES, _LABELS = "images", "labels"
# Of volumes; where one ends in another, the longer one is meant.
_SUFFIXES = (
    *(".nii.gz", ".nii", ".nrrd", ".mha", ".dcm"),
    *(".seg.nrrd", ".nhdr", ".mhd", ".hdr", ".hdr.gz", ".dicom", ".ima", ".npy", ".npz"),
    *(".zarr", ".ome.zarr", ".tif", ".tiff", ".ome.tif", ".ome.tiff"),
)
_LABELLED_SAMPLE = 20_000
_SPACING_TOLERANCE = 0.02  # relative: below that, resampling would only blur


@dataclass(frozen=True)
class CaseFiles:
    """Where one labelled case lies. name: its id, shared by image and labels."""

    name: str
    image: Path
    labels: Path


@dataclass(frozen=True, eq=False)
class AutoCase:
    """One labelled volume, ready to be cropped: (z, y, x) at the training's voxel size, in memory or mapped.

    image: float32, normalised. classes: uint8, 0 background. darkest: the image's least value. labelled: (n, 3) voxels
    of some class, all of them or an even sample.
    """

    name: str
    image: np.ndarray
    classes: np.ndarray
    darkest: float
    labelled: np.ndarray

    @classmethod
    def of(cls, name: str, image: np.ndarray, classes: np.ndarray) -> AutoCase:
        """A case of an image and its classes."""
        labelled = np.flatnonzero(classes)
        labelled = labelled[:: max(1, labelled.size // _LABELLED_SAMPLE)]
        voxels = np.stack(np.unravel_index(labelled, classes.shape), axis=-1)
        return cls(name, image, classes, float(image.min()), voxels)


def find_cases(folder: Path, at_least: int = FOLD) -> list[CaseFiles]:
    """The labelled cases of a folder with images/ and labels/, sorted by id.

    A label belongs to the image of the same name, whatever the format of either; a channel number such as _0000 at the
    end of an image's name is left out. Raises UnreadableFile if the folder is not as expected.
    """
    folder = Path(folder)
    wanted = (
        f"expected {_IMAGES}/ and {_LABELS}/ with files of the same names, such as images/a.nii.gz, labels/a.nii.gz"
    )
    for name in (_IMAGES, _LABELS):
        if not (folder / name).is_dir():
            what = "has no folder" if folder.is_dir() else "does not exist, nor its folder"
            raise UnreadableFile(f"{folder} {what} {name}; {wanted}.")
    images, labels = _by_name(folder / _IMAGES, channel_numbers=True), _by_name(folder / _LABELS)
    unlabelled = sorted(set(images) - set(labels))
    if unlabelled:
        raise UnreadableFile(
            f"{len(unlabelled)} of {len(images)} images in {folder / _IMAGES} have no labels, {unlabelled[0]} for one; "
            "add their labels or take them out."
        )
    if len(images) < at_least:
        raise UnreadableFile(
            f"{folder} holds {len(images)} labelled cases; at least {at_least} are needed, "
            f"every {FOLD}th of them for validation; "
            f"{wanted}."
        )
    return [CaseFiles(name, images[name], labels[name]) for name in sorted(images)]


def split_cases(files: Sequence[CaseFiles]) -> tuple[list[CaseFiles], list[CaseFiles]]:
    """Training and validation cases: every fifth by sorted id, beginning with the fifth, is for validation."""
    training = [case for i, case in enumerate(files) if i % FOLD != FOLD - 1]
    return training, [case for i, case in enumerate(files) if i % FOLD == FOLD - 1]


def fingerprint(files: Sequence[CaseFiles]) -> str:
    """16 hex digits that change with any case's name, size or date: whether a folder is still the one trained on."""
    known = [(c.name, *(f"{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in (c.image, c.labels))) for c in files]
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def read_pair(files: CaseFiles) -> tuple[Volume, np.ndarray]:
    """A case's volume and its labels on the same grid, (z, y, x) integers.

    Raises UnreadableFile or UnsupportedVolume, naming the file, if they cannot be used together.
    """
    volume = read_volume(files.image)
    label_volume = read_volume(files.labels)
    labels = np.asarray(label_volume.data)
    if volume.data.ndim != 3:
        raise UnsupportedVolume(f"{files.image.name} has {volume.data.ndim} axes; training takes volumes (z, y, x).")
    if labels.shape != volume.data.shape:
        raise UnsupportedVolume(
            f"{files.labels.name} has {labels.shape} voxels (z, y, x) and its image {volume.data.shape}; "
            "labels must lie on the image's grid: resample them."
        )
    # Tools round the affine when they write labels: a tenth of a voxel is not another place.
    corners = np.array([[*at, 1.0] for at in np.ndindex(2, 2, 2)]) * [*(np.array(labels.shape) - 1), 1.0]
    if np.abs(corners @ (label_volume.affine - volume.affine).T)[:, :3].max() > 0.1 * min(volume.spacing):
        raise UnsupportedVolume(
            f"{files.labels.name} lies elsewhere than its image: their affines differ. Resample it to the image's grid."
        )
    whole = labels if labels.dtype.kind in "iub" else np.rint(labels.astype(np.float64))
    if not np.array_equal(whole, labels) or int(whole.min()) < 0 or int(whole.max()) > 65535:
        raise UnsupportedVolume(
            f"{files.labels.name} holds {labels.min():g} to {labels.max():g}, not only whole numbers from 0 to 65535; "
            "labels are 0 for background and one number per structure."
        )
    return volume, whole.astype(np.uint16)


def prepare_case(
    volume: Volume, labels: np.ndarray, name: str, spacing_mm: Sequence[float], values: Sequence[int], scaling: Scaling
) -> AutoCase:
    """A case at the training's voxel size: image linearly interpolated, every class's share interpolated and compared.

    values: the label values in the order of the classes 1, 2, …; others become background.
    """
    image = scaling.learned(volume.data)(np.asarray(volume.data))[0]
    factors = [old / new for old, new in zip(volume.spacing, spacing_mm, strict=True)]
    if max(abs(math.log(f)) for f in factors) < _SPACING_TOLERANCE:
        classes = np.zeros(labels.shape, np.uint8)
        for i, value in enumerate(values):
            classes[labels == value] = i + 1
        return AutoCase.of(name, image, classes)
    image = ndimage.zoom(image, factors, order=1, grid_mode=True, mode="nearest")
    best = np.full(image.shape, 0.5, np.float32)
    classes = np.zeros(image.shape, np.uint8)
    for i, value in enumerate(values):
        share = ndimage.zoom((labels == value).astype(np.float32), factors, order=1, grid_mode=True, mode="nearest")
        classes[share >= best] = i + 1
        best = np.maximum(best, share)
    return AutoCase.of(name, image.astype(np.float32), classes)


def store_case(case: AutoCase, folder: Path) -> None:
    """Write a prepared case where `load_case` finds it; whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("classes", case.classes), ("image", case.image)):
        partial = folder / f"{case.name}.{kind}.part"
        with partial.open("wb") as stream:
            np.save(stream, array)
        partial.replace(folder / f"{case.name}.{kind}.npy")


def load_case(name: str, folder: Path) -> AutoCase | None:
    """A prepared case, mapped from its files; None if it is not there."""
    image, classes = folder / f"{name}.image.npy", folder / f"{name}.classes.npy"
    if not (image.is_file() and classes.is_file()):
        return None
    return AutoCase.of(name, np.load(image, mmap_mode="r"), np.load(classes, mmap_mode="r"))


def _by_name(folder: Path, *, channel_numbers: bool = False) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        suffix = max((s for s in _SUFFIXES if path.name.lower().endswith(s)), key=len, default="")
        if not suffix and not path.is_dir():  # a folder may be a DICOM series
            continue
        name = path.name[: len(path.name) - len(suffix)]
        if channel_numbers and name.endswith("_0000"):
            name = name.removesuffix("_0000")
        if name in found:
            raise UnreadableFile(f"{folder} has two files for {name}: {found[name].name} and {path.name}; keep one.")
        found[name] = path
    if not found:
        raise UnreadableFile(f"no volumes in {folder}; expected files such as {', '.join(_SUFFIXES[:5])}.")
    return found
