"""NIfTI-1 and NIfTI-2: headers, arrays mapped or decompressed within bounds, and files on an input's own grid."""

from __future__ import annotations

import gzip
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from napari_medtransformer.errors import UnreadableFile, UnsupportedVolume
from napari_medtransformer.volumes.file_values import scaled_as_read, values_in_file
from napari_medtransformer.volumes.guard import GZIP_MOST, check_memory, one_line, size
from napari_medtransformer.volumes.lazy import as_array, lazy_of
from napari_medtransformer.volumes.volume import Decoded, FileGrid

_CHUNK_BYTES = 1 << 24
# Rests after the last voxel are read up to here, so that gzip's checksum is compared.
_TRAILING_BYTES = 1 << 20
_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}


def read_nifti(path: Path) -> Decoded:
    """The array of a NIfTI file as stored, scaled by the header's slope and intercept, and its grid.

    The array has the file's own dimensions; components, which lie along the fifth after a fourth of length 1 (ITK,
    ANTs), are made the fourth. Uncompressed files that need no scaling are mapped, not read; large ones
    are a LazyArray, scaled as they are read.
    Raises UnreadableFile (damaged) or UnsupportedVolume (a dimension or type that is no volume).
    """
    image = _open(path)
    header = image.header
    shape = tuple(int(n) for n in header.get_data_shape())
    i, j, k = (*shape, 1, 1, 1)[:3]
    affine = _affine_mm(image, path)
    grid = FileGrid(path, "nifti", (i, j, k), affine, shape, header.binaryblock)
    stored = _stored_array(image, path, shape)
    array = _scaled(stored, image.dataobj.slope, image.dataobj.inter, path)
    if len(shape) == 5 and shape[3] == 1:
        lazy = lazy_of(array)
        array = array[:, :, :, 0] if lazy is None else as_array(lazy.fixed(3, 0))
    return Decoded(array, grid)


def _open(path: Path) -> Any:
    """The nibabel image of `path`, header only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = nib.load(path, mmap="r")
    except (ImageFileError, HeaderDataError) as error:
        raise UnreadableFile(f"{path.name} is not a NIfTI file: {one_line(error)}. Was it renamed?") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnreadableFile(f"{path.name} is damaged: {one_line(error)}. Copy or download it again.") from error
    except (OSError, ValueError, TypeError, OverflowError, MemoryError, KeyError) as error:
        raise UnreadableFile(f"{path.name} has a header that makes no sense: {one_line(error)}.") from error
    if not isinstance(image, nib.Nifti1Pair):  # also the base of NIfTI-2
        kind = type(image).__name__
        raise UnreadableFile(f"{path.name} is not NIfTI but {kind}. Convert it to .nii.gz first.")
    return image


def _affine_mm(image: Any, path: Path) -> np.ndarray:
    """The affine that nibabel finds (sform, else qform, else the voxel sizes), in mm whatever the header's unit."""
    header = image.header
    affine = np.array(image.affine, dtype=np.float64)
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        warnings.warn(
            f"{path.name} states no orientation (sform and qform are unset); assumed the axes of nibabel: "
            f"{''.join(map(str, nib.aff2axcodes(affine)))}, centred.",
            stacklevel=2,
        )
    unit = "mm"
    with suppress(KeyError):  # a code outside the standard counts as unknown, which is mm by common use
        unit = header.get_xyzt_units()[0]
    affine[:3] *= _MILLIMETRES.get(unit, 1.0)
    return affine


def _stored_array(image: Any, path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The stored values, unscaled, in file order."""
    dtype = image.header.get_data_dtype()
    if dtype.names is not None:
        raise UnsupportedVolume(
            f"{path.name} holds {''.join(dtype.names)} colours; expected one value per voxel. "
            f"Split it into its channels first."
        )
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise UnsupportedVolume(f"{path.name} holds {dtype} values; expected integers or real numbers up to 64 bits.")
    if not shape or any(n < 1 for n in shape):
        raise UnsupportedVolume(f"{path.name} is empty: {' × '.join(map(str, shape)) or 'no'} voxels.")
    data_file = Path(image.file_map["image"].filename)
    offset = int(image.dataobj.offset)
    needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    try:
        compressed = _is_gzip(data_file)
        held = data_file.stat().st_size
        if offset < 0 or (needed + offset > held * (GZIP_MOST if compressed else 1)):
            raise UnreadableFile(
                f"{path.name} is truncated: its header promises {size(needed)} of voxels "
                f"({' × '.join(map(str, shape))} {dtype}), the file has {size(held)}{' compressed' * compressed}. "
                f"Copy or download it again."
            )
        if compressed:
            check_memory(path, needed)
            flat = _decompressed(data_file, offset, needed, path)
            stored = np.frombuffer(flat, dtype).reshape(shape, order="F")
        else:
            stored = values_in_file(data_file, dtype, offset, shape, first_fastest=True)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnreadableFile(f"{path.name} is damaged: {one_line(error)}. Copy or download it again.") from error
    except MemoryError as error:
        raise UnsupportedVolume(
            f"{path.name} needs {size(needed)} of memory, more than there is. Crop it, or store it as .nii."
        ) from error
    except OSError as error:
        raise UnreadableFile(f"{path.name} cannot be read: {one_line(error)}.") from error
    return stored if stored.dtype.isnative else stored.astype(dtype.newbyteorder("="))


def _decompressed(file: Path, offset: int, needed: int, path: Path) -> np.ndarray:
    """`needed` bytes from `offset` of a gzip file. Memory is touched only as far as the file really holds data."""
    buffer = np.empty(needed, np.uint8)
    view = buffer.data
    with gzip.open(file, "rb") as stream:
        stream.seek(offset)
        done = 0
        while done < needed:
            count = stream.readinto(view[done : done + _CHUNK_BYTES])
            if count == 0:
                raise UnreadableFile(
                    f"{path.name} is truncated: its header promises {size(needed)} of voxels, it holds {size(done)}. "
                    f"Copy or download it again."
                )
            done += count
        stream.read(_TRAILING_BYTES)
    return buffer


def _scaled(stored: np.ndarray, slope: float, intercept: float, path: Path) -> np.ndarray:
    """Stored values times slope plus intercept: int16 or int32 where that is exact, float32 otherwise."""
    slope, intercept = float(slope), float(intercept)
    if (slope, intercept) == (1.0, 0.0):
        return stored
    lazy = lazy_of(stored)
    if lazy is not None:
        # By what the type can hold: to look for the lowest and highest value would read the whole file.
        limits = np.iinfo(stored.dtype) if stored.dtype.kind in "ui" else None
        target = _scaled_type(stored.dtype, slope, intercept, () if limits is None else (limits.min, limits.max))
        return scaled_as_read(lazy, slope, intercept, target)
    ends = (stored.min(), stored.max()) if stored.dtype.kind in "ui" else ()
    target = _scaled_type(stored.dtype, slope, intercept, ends)
    check_memory(path, stored.size * target.itemsize)
    scaled = np.empty(stored.shape, target, order="F")
    for index in range(stored.shape[-1]):  # slab by slab: the float64 intermediate stays small
        slab = stored[..., index].astype(np.float64) * slope + intercept
        with np.errstate(over="ignore"):  # said below
            scaled[..., index] = slab
    if target.kind == "f" and np.isinf(scaled).any() and not np.isinf(stored).any():
        raise UnsupportedVolume(
            f"{path.name} overflows: its slope {slope:g} and intercept {intercept:g} leave the range of {target}. "
            f"Correct scl_slope and scl_inter first."
        )
    return scaled


def _scaled_type(dtype: np.dtype, slope: float, intercept: float, ends: tuple[int, ...]) -> np.dtype:
    """The type of scaled values. ends: the lowest and highest stored value of a type of whole numbers."""
    if dtype.kind in "ui" and slope.is_integer() and intercept.is_integer():
        scaled = [int(end) * int(slope) + int(intercept) for end in ends]
        for candidate in (np.int16, np.int32):
            limits = np.iinfo(candidate)
            if limits.min <= min(scaled) and max(scaled) <= limits.max:
                return np.dtype(candidate)
    elif dtype.itemsize == 8 and dtype.kind == "f":
        return np.dtype(np.float64)
    return np.dtype(np.float32)


def _is_gzip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def write_nifti(array: np.ndarray, grid: FileGrid, stream: BinaryIO, *, compressed: bool, labels: bool) -> None:
    """Write `array` to an open stream on the grid of an input file.

    array: file order (i, j, k) or (i, j, k, heads), already of the dtype to be stored. An input that was NIfTI gives
    its header: sform, qform, their codes and the units are written back bit for bit; anything else gets its affine.
    """
    if grid.format == "nifti":
        image = _image_with_header(array, grid, labels=labels)
    else:
        # Told, as nibabel refuses 64-bit integers that nobody asked for.
        image = nib.Nifti1Image(array, grid.affine_ijk, dtype=array.dtype)
        image.header.set_xyzt_units("mm")
        image.header.set_intent("label" if labels else "none")
        image.set_sform(grid.affine_ijk, code="scanner")
        image.set_qform(grid.affine_ijk, code="scanner", strip_shears=True)
    if not compressed:
        image.to_stream(stream)
        return
    # mtime 0 and no name: the same labels make the same file.
    with gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=6, mtime=0) as packed:
        image.to_stream(packed)


def _image_with_header(array: np.ndarray, grid: FileGrid, *, labels: bool) -> Any:
    """A nibabel image whose header is the input's but for what describes the values."""
    is_nifti2 = len(grid.header) == 540
    header_class, image_class = (
        (nib.Nifti2Header, nib.Nifti2Image) if is_nifti2 else (nib.Nifti1Header, nib.Nifti1Image)
    )
    header = header_class(grid.header, check=False)
    pixdim = header["pixdim"].copy()
    header["magic"] = header_class.single_magic  # the input may be a pair of .hdr and .img
    header.set_data_dtype(array.dtype)
    header["scl_slope"], header["scl_inter"] = np.nan, np.nan
    header["cal_min"], header["cal_max"] = 0, 0
    header.set_intent("label" if labels else "none")
    header["descrip"] = b""
    header["aux_file"] = b""
    # The file's own dimensions, such as (i, j, k, 1); of a file with frames, one of them is written.
    shape = grid.file_shape if array.size == np.prod(grid.file_shape, dtype=object) else array.shape
    # affine None: nibabel then leaves the header's own forms as they are.
    image = image_class(array.reshape(shape, order="F"), None, header)
    image.header["pixdim"] = pixdim
    return image
