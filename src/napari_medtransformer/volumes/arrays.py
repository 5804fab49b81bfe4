"""Files that know no patient: NumPy arrays and pictures. Taken as upright, and said to be."""

from __future__ import annotations

import math
import warnings
import zipfile
from pathlib import Path

import numpy as np

from napari_medtransformer.errors import UnsupportedVolume
from napari_medtransformer.volumes import geometry
from napari_medtransformer.volumes.file_values import values_in_file
from napari_medtransformer.volumes.guard import GZIP_MOST, check_promise, decoding
from napari_medtransformer.volumes.volume import Decoded, FileGrid

# Pictures of more pixels than this are refused before they are unpacked (Pillow's own limit is 0.18 gigapixels).
_MOST_PIXELS = 2**31
# ITU-R BT.601, the luma of red, green and blue.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def read_numpy(path: Path) -> Decoded:
    """A .npy, mapped, or the only array of an .npz (or the one called data, image or volume), as (z, y, x) or (y, x).

    An .npz may hold `spacing` (dz, dy, dx in mm) or `affine` (4, 4), zyx1 to RAS mm, beside it; without, voxels are
    taken as 1 mm and that is said by a warning.
    """
    spacing, affine = None, None
    with decoding(path):
        if path.name.lower().endswith(".npy"):
            array = _mapped(path)
        else:
            array, spacing, affine = _from_archive(path)
    if array.ndim == 2:
        array = array[np.newaxis]
    if array.ndim != 3 or 0 in array.shape:
        raise UnsupportedVolume(f"{path.name} has shape {array.shape}; expected (z, y, x) or (y, x), none empty.")
    if array.dtype.kind not in "buif":
        raise UnsupportedVolume(f"{path.name} holds {array.dtype} values; expected integers or real numbers.")
    if affine is None:
        if spacing is None:
            warnings.warn(
                f"{path.name} says nothing about the patient: taken as (z, y, x) = upward, backward, leftward, 1 mm.",
                stacklevel=4,
            )
        affine = geometry.upright_affine(array.shape, (1, 1, 1) if spacing is None else spacing)
    z, y, x = array.shape
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return Decoded(native, FileGrid(path, "numpy", (z, y, x), affine, (z, y, x)))


def _mapped(path: Path) -> np.ndarray:
    """A .npy as a map; a large one as a LazyArray."""
    array: np.memmap = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim != 3 or array.dtype.kind not in "buif":
        return array
    fortran = not array.flags.c_contiguous
    return values_in_file(path, array.dtype, array.offset, array.shape, first_fastest=fortran)


def _from_archive(path: Path) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """The array of an .npz and what it says about its place."""
    held = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        promised = sum(member.file_size for member in archive.infolist())
    check_promise(path, promised, held, compressed=True)
    with np.load(path, allow_pickle=False) as archive:
        names = [name for name in archive.files if name not in ("spacing", "affine")]
        chosen = next((name for name in ("data", "image", "volume") if name in names), None)
        if chosen is None and len(names) == 1:
            chosen = names[0]
        if chosen is None:
            raise UnsupportedVolume(f"{path.name} holds {', '.join(names) or 'no arrays'}; name one of them data.")
        spacing = np.asarray(archive["spacing"], float) if "spacing" in archive.files else None
        affine = np.asarray(archive["affine"], float) if "affine" in archive.files else None
        if spacing is not None and (spacing.shape != (3,) or not (spacing > 0).all()):
            raise UnsupportedVolume(f"{path.name} has spacing {spacing.tolist()}; expected three millimetres above 0.")
        return archive[chosen], spacing, affine


def read_picture(path: Path) -> Decoded:
    """A PNG, JPEG or TIFF as one slice (several pages of a TIFF as slices), file order (column, row, page).

    Colours become their luminance, with a warning unless red, green and blue are equal everywhere. Pixels are 1 mm.
    """
    with decoding(path):
        is_tiff = path.name.lower().endswith((".tif", ".tiff"))
        array, colours, others = _tiff(path) if is_tiff else (*_picture(path), 0)
    if others:
        warnings.warn(f"{path.name} also holds {others} images of another shape, which are left out.", stacklevel=4)
    if colours:
        array = _grey(array, path)
    if array.ndim == 2:
        array = array[np.newaxis]
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "buif":
        raise UnsupportedVolume(f"{path.name} has shape {array.shape} of {array.dtype}; expected (page, row, column).")
    warnings.warn(f"{path.name} says nothing about the patient: its pixels are taken as 1 mm.", stacklevel=4)
    pages, rows, columns = array.shape
    affine = geometry.upright_affine(array.shape, (1, 1, 1))[:, [2, 1, 0, 3]]
    shape = (columns, rows, pages)
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return Decoded(native.transpose(2, 1, 0), FileGrid(path, "image", shape, affine, shape))


def _picture(path: Path) -> tuple[np.ndarray, bool]:
    """(row, column) or (row, column, colour), and whether it has colours."""
    from PIL import Image

    with Image.open(path, formats=("PNG", "JPEG")) as picture:
        if math.prod(picture.size) > min(_MOST_PIXELS, path.stat().st_size * 8 * GZIP_MOST):
            raise UnsupportedVolume(f"{path.name} promises {picture.size} pixels, more than its size allows.")
        if picture.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV", "PA"):
            return np.asarray(picture.convert("RGB")), True  # a palette's numbers are no intensities
        array = np.asarray(picture.getchannel("L") if picture.mode == "LA" else picture)
        return array, array.ndim == 3


def _tiff(path: Path) -> tuple[np.ndarray, bool, int]:
    """(row, column), (page, row, column), either with colours last; whether it has colours; images left out.

    Pages that were written one by one count as series of one page to tifffile: together they are a stack.
    """
    import tifffile

    with tifffile.TiffFile(path) as opened:
        first = opened.series[0]
        stack = [
            one for one in opened.series if (one.shape, one.dtype, one.axes) == (first.shape, first.dtype, first.axes)
        ]
        others = len(opened.series) - len(stack)
        needed = len(stack) * math.prod(first.shape) * first.dtype.itemsize
        compressed = first.keyframe.compression != 1
        check_promise(path, needed, path.stat().st_size, compressed=compressed)
        arrays = [one.asarray(maxworkers=1) for one in stack]
        array = arrays[0] if len(arrays) == 1 else np.stack(arrays)
        kind, palette = first.keyframe.photometric, first.keyframe.colormap
    if kind == tifffile.PHOTOMETRIC.PALETTE and palette is not None:
        return np.moveaxis(palette[:, array], 0, -1), True, others  # a palette's numbers are no intensities
    if kind == tifffile.PHOTOMETRIC.MINISWHITE and array.dtype.kind == "u":
        array = np.iinfo(array.dtype).max - array
    # Planes of three or four "samples" one behind the other are stacks that were written without saying so.
    return array, first.axes.endswith("S") and array.shape[-1] in (3, 4), others


def _grey(array: np.ndarray, path: Path) -> np.ndarray:
    """Colours (..., 3 or 4) as one value."""
    red, green, blue = (array[..., i] for i in range(3))
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return red
    warnings.warn(f"{path.name} is in colour; its luminance is used.", stacklevel=5)
    return array[..., :3].astype(np.float32) @ _LUMA
