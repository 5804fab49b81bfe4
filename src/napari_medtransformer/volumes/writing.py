"""Write images, labels and heatmaps on the grid of the file they belong to, whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from napari_medtransformer.errors import CannotWrite
from napari_medtransformer.files import file_to_write, replacing
from napari_medtransformer.volumes.label_table import Label, LabelNames, as_labels, label_table
from napari_medtransformer.volumes.numbers import numbers
from napari_medtransformer.volumes.volume import Volume

WRITABLE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
# Formats of labels alone: 3D Slicer's segmentation and DICOM-SEG.
LABEL_SUFFIXES = (*WRITABLE_SUFFIXES, ".seg.nrrd", ".dcm")


def write_labels(
    labels: np.ndarray, volume: Volume, path: str | os.PathLike[str], *, names: LabelNames | None = None
) -> Path:
    """Write labels on the input's own grid: same shape, axis order and affine, bit for bit.

    labels: (z, y, x) integers or bool, as `volume.data`. Stored in the smallest unsigned type that holds them.
    path: .nii, .nii.gz, .nrrd, .seg.nrrd (3D Slicer), .mha, or .dcm (DICOM-SEG, for a volume read from DICOM); an
    existing file is replaced in one step, the image itself never; labels may replace the file they were read from.
    names: by label number, for the formats that keep names. Returns the path.
    Raises CannotWrite, or InvalidOption for what are no names, and then leaves no new file and no damaged one.
    """
    target = writable_path(path, volume)
    labels = numbers(labels, "what is to be written", CannotWrite)
    if labels.dtype.kind not in "bui":
        raise CannotWrite(f"labels of type {labels.dtype} cannot be written; expected integers.")
    if labels.shape != volume.shape:
        raise CannotWrite(f"labels of shape {labels.shape} do not fit the volume of shape {volume.shape} (z, y, x).")
    if labels.min() < 0:
        raise CannotWrite(f"labels must not be negative; the lowest is {labels.min()}.")
    as_labels(names)  # also for formats that keep no names
    if labels.max() > np.iinfo(np.uint32).max:
        raise CannotWrite(f"labels above {np.iinfo(np.uint32).max} cannot be written; the highest is {labels.max()}.")
    stored = volume.grid.to_file_order(labels).astype(np.min_scalar_type(int(labels.max())))
    table = None
    if target.name.lower().endswith((".seg.nrrd", ".dcm")):
        table = label_table((int(number) for number in np.unique(stored) if number), names)
    _write(stored, volume, target, table, labels=True)
    return target


def write_heatmap(heatmap: np.ndarray, volume: Volume, path: str | os.PathLike[str]) -> Path:
    """Write a heatmap on the input's own grid as float32; heads become the last axis of the file.

    heatmap: (z, y, x) or (heads, z, y, x). path: .nii, .nii.gz, .nrrd or .mha (heads as channels).
    Raises CannotWrite as write_labels does.
    """
    target = writable_path(path, volume, WRITABLE_SUFFIXES)
    heatmap = numbers(heatmap, "the heatmap", CannotWrite)
    if heatmap.ndim not in (3, 4) or heatmap.shape[-3:] != volume.shape:
        raise CannotWrite(
            f"a heatmap of shape {heatmap.shape} does not fit the volume of shape {volume.shape} (z, y, x); "
            f"expected that shape, or heads in front of it."
        )
    zyx_first = np.moveaxis(heatmap, 0, -1) if heatmap.ndim == 4 else heatmap
    stored = volume.grid.to_file_order(zyx_first).astype(np.float32)
    _write(stored, volume, target, None, labels=False)
    return target


def write_volume(volume: Volume, path: str | os.PathLike[str]) -> Path:
    """Write an image in its own type on its own grid: values, affine and, NIfTI to NIfTI, the header's geometry.

    path: .nii, .nii.gz, .nrrd or .mha. Returns the path. Raises CannotWrite as write_labels does, and
    UnsupportedVolume for an image that memory cannot hold.
    """
    target = writable_path(path, volume, WRITABLE_SUFFIXES)
    stored = np.asarray(volume.grid.to_file_order(volume.data))
    if stored.dtype.kind == "b" or stored.dtype == np.float16:
        stored = stored.astype(np.uint8 if stored.dtype.kind == "b" else np.float32)
    _write(stored, volume, target, None, labels=False)
    return target


def _write(stored: np.ndarray, volume: Volume, target: Path, table: list[Label] | None, *, labels: bool) -> None:
    """An array in file order in the format of the target's suffix."""
    name = target.name.lower()
    with replacing(target) as stream:
        if name.endswith((".nii", ".nii.gz")):
            from napari_medtransformer.volumes.nifti import write_nifti

            write_nifti(stored, volume.grid, stream, compressed=name.endswith(".gz"), labels=labels)
        elif name.endswith(".dcm"):
            from napari_medtransformer.volumes.dicom_seg import write_dicom_seg

            write_dicom_seg(stored, volume.grid, stream, table or [])
        else:
            from napari_medtransformer.volumes.metaimage import write_meta
            from napari_medtransformer.volumes.nrrd import write_nrrd

            if name.endswith(".nrrd"):
                write_nrrd(stored, volume.grid, stream, table)
            else:
                write_meta(stored, volume.grid, stream)


def writable_path(path: str | os.PathLike[str], volume: Volume, suffixes: tuple[str, ...] = LABEL_SUFFIXES) -> Path:
    """`path` if its name and folder allow writing what belongs to `volume`. Raises CannotWrite."""
    if not isinstance(volume, Volume):
        raise CannotWrite(f"files are written for a Volume, as read_volume gives, not for a {type(volume).__name__}.")
    target = file_to_write(path)
    if not target.name.lower().endswith(suffixes):
        raise CannotWrite(f"{target.name or target} has no suffix that can be written; use {', '.join(suffixes)}.")
    if suffixes is WRITABLE_SUFFIXES and target.name.lower().endswith(".seg.nrrd"):
        raise CannotWrite(f"{target.name} is the name of a file of labels; for anything else use .nrrd.")
    if target.name.lower().endswith(".dcm"):
        from napari_medtransformer.volumes.dicom_seg import check_dicom_seg

        check_dicom_seg(volume.grid)
    of_labels = suffixes is LABEL_SUFFIXES and volume.grid.labels
    if not of_labels and volume.source is not None and target.exists() and volume.source.path.exists():
        with suppress(OSError):
            if any(target.samefile(file) for file in (volume.source.path, *volume.source.files)):
                raise CannotWrite(f"{target} is the image itself and was left as it is. Choose another name.")
    return target
