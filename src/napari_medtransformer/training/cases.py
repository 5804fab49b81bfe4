"""Labelled volumes for training: an image, its labels on the image's grid, and its tissue classes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from napari_medtransformer.errors import UnreadableFile, UnsupportedVolume
from napari_medtransformer.training.auto_cases import find_cases, read_pair
from napari_medtransformer.volumes.reading import read_volume
from napari_medtransformer.volumes.volume import Volume

TISSUE_CLASSES = 6
_IMAGES, _LABELS = "images", "labels"


@dataclass(frozen=True, eq=False)
class LabelledCase:
    """One labelled volume, everything (z, y, x) on one grid.

    image: float32, native intensities. labels: int16, 0 is background. tissues: uint8, 0 (darkest) to 5 by intensity,
    so that a synthetic contrast also has something to draw where nobody labelled. held_out: the first axial slice that
    is never trained on; slices from there on are validation.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray
    tissues: np.ndarray
    modality: str
    weight: float
    held_out: int
    axes: tuple[int, ...] = (0, 1, 2)

    @property
    def depth(self) -> int:
        return int(self.image.shape[0])


@dataclass(frozen=True)
class CaseSource:
    """Where a case comes from, relative to the data folder, and how often it is drawn."""

    image: str
    labels: str
    modality: str
    weight: float
    held_out_fraction: float = 0.0


# Sources and licences: the model card. The hippocampus cases are listed from their folder.
SHARED_SOURCES = (
    CaseSource(
        "totalsegmentator/example_ct.nii.gz", "totalsegmentator/example_seg_fast_force_split.nii.gz", "CT", 10.0
    ),
    CaseSource("totalsegmentator/example_ct_sm.nii.gz", "totalsegmentator/example_seg.nii.gz", "CT", 2.0),
    CaseSource("totalsegmentator/example_mr_sm.nii.gz", "totalsegmentator/example_seg_mr.nii.gz", "MR", 3.0, 0.2),
    CaseSource("sct/t1w.nii.gz", "sct/t1w_seg-manual.nii.gz", "MR", 0.4),
    CaseSource("sct/t2.nii.gz", "sct/t2_seg-manual_labeled.nii.gz", "MR", 0.4),
    CaseSource("sct/t2s_uncropped.nii.gz", "sct/t2s_uncropped_gmseg_manual.nii.gz", "MR", 0.4),
    CaseSource("sct/PAM50_small_t2.nii.gz", "sct/PAM50_small_levels.nii.gz", "MR", 0.6),
    CaseSource("torchio_brain/t2.nii.gz", "torchio_brain/t1_seg_gif.nii.gz", "MR", 2.0, 0.2),
    CaseSource("cit168/CIT168toMNI152-2009c_T1w_brain.nii.gz", "cit168/CIT168.nii.gz", "MR", 1.0),
)
HIPPOCAMPUS_WEIGHT = 2.0
# Where the sets of the shipped recipe come from; each is a folder of that name.
SHARED_ORIGINS = {
    "totalsegmentator": "github.com/wasserth/TotalSegmentator, tests/reference_files",
    "msd_hippocampus": "medicaldecathlon.com, Task04",
    "sct": "github.com/spinalcordtoolbox/sct_testing_data",
    "torchio_brain": "github.com/fepegar/torchio-data",
    "cit168": "the CIT168 atlas, osf.io/jkzwp",
}
# Probability (0 to 255) from which the CIT168 atlas's most probable region counts as labelled.
ATLAS_PROBABILITY = 64


def read_cases(folder: Path, *, all_planes: bool = False) -> Iterator[LabelledCase]:
    """The training cases of a folder: a user's images/ and labels/, or the sets of the shipped recipe.

    all_planes: as for `read_own_cases`. Raises UnreadableFile, with where each set comes from, if the folder holds
    neither.
    """
    if (folder / _IMAGES).is_dir() and (folder / _LABELS).is_dir():
        yield from read_own_cases(folder, all_planes=all_planes)
        return
    missing = [f"{name} ({origin})" for name, origin in SHARED_ORIGINS.items() if not (folder / name).is_dir()]
    if missing:
        raise UnreadableFile(
            f"{folder} holds neither {_IMAGES}/ and {_LABELS}/ with files of the same names nor the sets of the "
            f"shipped recipe: {', '.join(missing)} not found there."
        )
    yield from read_shared_cases(folder)


def read_own_cases(folder: Path, *, all_planes: bool = False) -> Iterator[LabelledCase]:
    """Cases of images/ and labels/ with files of the same names, in any format that can be read.

    all_planes: slices across the labelled ones show whole objects too, because nothing between them is unlabelled.
    Cases without a labelled voxel are left out with a warning. Raises UnreadableFile or UnsupportedVolume, naming the
    file, if images and labels do not belong together, or if no case has a label.
    """
    found, empty = find_cases(folder, at_least=1), []
    for files in found:
        volume, labels = read_pair(files)
        if not labels.any():
            empty.append(files.labels.name)
            continue
        image = np.asarray(volume.data, dtype=np.float32)
        yield LabelledCase(
            name=files.name,
            image=image,
            labels=labels.astype(np.int32),
            tissues=tissue_classes(image),
            modality=volume.modality,
            weight=1.0,
            held_out=image.shape[0],
            axes=(0, 1, 2) if all_planes else (drawn_plane(labels),),
        )
    if len(empty) == len(found):
        raise UnsupportedVolume(
            f"the labels in {folder / _LABELS} hold nothing but 0, the background; label some slices."
        )
    if empty:
        warnings.warn(f"left out, as nothing is labelled there: {', '.join(empty)}.", stacklevel=2)


def drawn_plane(labels: np.ndarray) -> int:
    """The axis along which someone labelled slice by slice: the one with gaps, else axial; labels: (z, y, x)."""
    gaps = []
    for axis in range(3):
        there = np.flatnonzero(labels.any(axis=tuple(a for a in range(3) if a != axis)))
        gaps.append(int(np.ptp(there)) + 1 - len(there) if len(there) else 0)
    return int(np.argmax(gaps))


def read_shared_cases(folder: Path) -> Iterator[LabelledCase]:
    """Every training case of the shipped recipe's data sets, in a fixed order."""
    for source in SHARED_SOURCES:
        yield read_case(folder / source.image, folder / source.labels, source)
    images = sorted((folder / "msd_hippocampus" / "images").glob("*.nii.gz"))
    if not images:
        raise UnreadableFile(f"no hippocampus images in {folder}/msd_hippocampus/images; expected *.nii.gz")
    chosen = [path for i, path in enumerate(images) if i % 5 != 4]
    for path in chosen:
        source = CaseSource(path.name, path.name, "MR", HIPPOCAMPUS_WEIGHT / len(chosen))
        yield read_case(path, folder / "msd_hippocampus" / "labels" / path.name, source)


def read_case(image_path: Path, labels_path: Path, source: CaseSource) -> LabelledCase:
    """Read an image and its labels; labels on another grid are resampled to the image's by their affines."""
    volume = read_volume(image_path)
    image = np.asarray(volume.data, dtype=np.float32)
    if source.labels.endswith("CIT168.nii.gz"):
        labels = _atlas_labels(labels_path, volume)
    else:
        label_volume = read_volume(labels_path)
        labels = _on_grid(np.asarray(label_volume.data), label_volume.affine, volume)
    depth = image.shape[0]
    return LabelledCase(
        name=Path(source.image).name.removesuffix(".nii.gz"),
        image=image,
        labels=labels,
        tissues=tissue_classes(image),
        modality=source.modality,
        weight=source.weight,
        held_out=depth - round(depth * source.held_out_fraction),
    )


def tissue_classes(image: np.ndarray) -> np.ndarray:
    """Classes of intensity, darkest first, (z, y, x) uint8: quantiles of what is not the darkest tenth of the range."""
    low, high = np.percentile(image, [1, 99])
    cut = low + 0.1 * (high - low)
    inside = image[image > cut]
    if inside.size == 0:
        return np.zeros(image.shape, np.uint8)
    edges = np.quantile(inside, np.linspace(0, 1, TISSUE_CLASSES)[1:-1])
    smooth = ndimage.gaussian_filter(image, 0.5)
    return np.digitize(smooth, np.concatenate([[cut], np.maximum.accumulate(edges)])).astype(np.uint8)


def _on_grid(labels: np.ndarray, affine: np.ndarray, volume: Volume) -> np.ndarray:
    shape = volume.data.shape
    if labels.shape == shape and np.allclose(affine, volume.affine, atol=1e-3):
        return np.rint(labels).astype(np.int16)
    to_labels = np.linalg.inv(affine) @ volume.affine
    moved = ndimage.affine_transform(
        np.rint(labels).astype(np.int16), to_labels[:3, :3], to_labels[:3, 3], output_shape=shape, order=0
    )
    return np.asarray(moved, dtype=np.int16)


def _atlas_labels(path: Path, volume: Volume) -> np.ndarray:
    """CIT168's labels are stored as colours: R is the most probable region's index, B its probability."""
    atlas = nib.load(path)
    colours = np.asanyarray(atlas.dataobj)
    region = np.where(colours["B"] >= ATLAS_PROBABILITY, colours["R"], 0).astype(np.int16)
    reversed_axes = np.eye(4)[[2, 1, 0, 3]]
    return _on_grid(region.transpose(2, 1, 0), atlas.affine @ reversed_axes, volume)
