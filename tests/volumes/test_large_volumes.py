"""Volumes larger than is read: opened at once, scrolled in every plane, in memory proportional to what is looked at."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import zarr

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="a file with holes, and its memory in kilobytes")

_OPEN = """
import json, sys, time, warnings
from pathlib import Path
import numpy as np
from napari_medtransformer.volumes import apply_window, read_volume
warnings.simplefilter("ignore")

def peak_mb():
    # Not getrusage: its maximum counts the parent, whose memory a child has until it starts its own program.
    status = Path("/proc/self/status").read_text().split("VmHWM:")[1]
    return int(status.split()[0]) / 1e3

def read_mb():
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0]) / 1e6

imported_mb, imported_read = peak_mb(), read_mb()
started = time.process_time()  # of all threads: what else runs on the machine is not our haste
volume = read_volume(sys.argv[1])
window = volume.window
report = {"seconds": time.process_time() - started, "shape": volume.shape, "opened_mb": peak_mb(),
          "opening_read_mb": read_mb() - imported_read, "planes_read_mb": []}
for axis in range(3):
    before = read_mb()
    for index in np.linspace(0, volume.shape[axis] - 1, int(sys.argv[2])).astype(int):
        apply_window(np.take(volume.data, int(index), axis), window)
    report["planes_read_mb"].append((read_mb() - before) / int(sys.argv[2]))
report["grown_mb"] = peak_mb() - imported_mb
report["scrolled_mb"] = peak_mb()
voxel = tuple(json.loads(sys.argv[3]))
report["value"] = int(volume.data[voxel])
print(json.dumps(report))
"""


def open_and_scroll(path: Path, planes: int, voxel: tuple[int, ...]) -> dict:
    """What opening a volume and looking at some slices of each plane took, in a process of its own."""
    command = [sys.executable, "-c", _OPEN, str(path), str(planes), json.dumps([int(i) for i in voxel])]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def sparse_nifti(path: Path, shape: tuple[int, int, int], *, flipped: bool = False, slope: float = 1.0) -> Path:
    """A NIfTI of int16 zeros that takes no disk, with 777 at (i, j, k) = (3, 5, last - 100)."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header.set_sform(np.diag([0.5, -0.5 if flipped else 0.5, 0.5, 1]), code=1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    header["scl_slope"] = slope
    with path.open("wb") as file:
        file.write(header.binaryblock + bytes(4))
        file.truncate(352 + 2 * math.prod(shape))
        file.seek(352 + 2 * (3 + shape[0] * (5 + shape[1] * (shape[2] - 100))))
        file.write(np.int16(777).tobytes())
    return path


@linux_only
@pytest.mark.slow
def test_four_gigabytes_open_in_under_five_seconds_and_scroll_in_every_plane_in_little_memory(tmp_path: Path) -> None:
    path = sparse_nifti(tmp_path / "large.nii", (1024, 1024, 2048), flipped=True)
    assert path.stat().st_size > 4e9
    report = open_and_scroll(path, 1, (2048 - 100, 5, 1024 - 1 - 3))
    assert report["shape"] == [2048, 1024, 1024]
    assert report["value"] == 777
    assert report["seconds"] < 5
    # A sagittal plane crosses the whole file: it is read in pieces of which none is kept.
    assert report["scrolled_mb"] < 400
    axial, coronal, sagittal = report["planes_read_mb"]
    assert axial < 2.2  # 1024 × 1024 int16
    assert coronal < 4.4  # 2048 × 1024 int16
    assert sagittal < 4400  # its voxels lie 2 kB apart, less than a disk reads at once


@linux_only
def test_a_slope_is_applied_to_what_is_looked_at_only(tmp_path: Path) -> None:
    path = sparse_nifti(tmp_path / "scaled.nii", (512, 512, 600), slope=2.0)
    report = open_and_scroll(path, 1, (500, 512 - 1 - 5, 512 - 1 - 3))
    assert report["value"] == 2 * 777
    assert report["grown_mb"] < 250  # of 300 stored and 600 scaled; 67 are kept for the next slices


@linux_only
@pytest.mark.parametrize(
    ("suffix", "shape"), [("npy", (600, 512, 512)), ("mhd", (512, 512, 600)), ("nhdr", (512, 512, 600))]
)
def test_other_bare_files_are_read_as_they_are_looked_at(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    raw = tmp_path / ("large.npy" if suffix == "npy" else "large.raw")
    with raw.open("wb") as file:
        if suffix == "npy":
            np.lib.format.write_array_header_2_0(file, {"descr": "<i2", "fortran_order": False, "shape": shape})
        start = file.tell()
        file.truncate(start + 2 * math.prod(shape))
        file.seek(start + 2 * (3 + 512 * (5 + 512 * 400)))
        file.write(np.int16(777).tobytes())
    path = tmp_path / f"large.{suffix}"
    sizes = " ".join(map(str, shape))
    if suffix == "mhd":
        path.write_text(
            f"ObjectType = Image\nNDims = 3\nDimSize = {sizes}\nElementType = MET_SHORT\nElementDataFile = large.raw\n"
        )
    elif suffix == "nhdr":
        path.write_text(
            f"NRRD0004\ntype: int16\ndimension: 3\nsizes: {sizes}\nencoding: raw\nendian: little\n"
            "space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)\ndata file: large.raw\n\n"
        )
    report = open_and_scroll(path, 1, (400, 5, 3))
    assert report["value"] == 777
    assert report["grown_mb"] < 200  # of 315; 67 are kept for the next slices
    assert report["planes_read_mb"][0] < 1


def linked_zarr(path: Path, shape: tuple[int, int, int], chunk: int) -> tuple[Path, int]:
    """An OME-Zarr of random, uncompressed chunks with a coarser level, whose chunks are links to one on the disk."""
    block = np.random.default_rng(0).integers(0, 999, (chunk,) * 3).astype(np.uint16)
    group = zarr.open_group(path, mode="w", zarr_format=2)
    transforms = []
    for name, factor in (("0", 1), ("1", 4)):
        array = group.create_array(
            name, shape=[n // factor for n in shape], chunks=(chunk,) * 3, dtype="u2", compressors=None
        )
        array[:chunk, :chunk, :chunk] = block
        first = path / name / "0.0.0"
        for place in np.ndindex(*(math.ceil(n / factor / chunk) for n in shape)):
            if any(place):
                os.link(first, path / name / ".".join(map(str, place)))
        transforms.append({"path": name, "coordinateTransformations": [{"type": "scale", "scale": [factor] * 3}]})
    axes = [{"name": axis, "type": "space", "unit": "millimeter"} for axis in "zyx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": transforms}]
    return path, int(block[2, 5, 3])


@linux_only
def test_of_a_zarr_of_two_gigabytes_the_chunks_that_are_looked_at_are_read(tmp_path: Path) -> None:
    path, value = linked_zarr(tmp_path / "large.zarr", (1024, 1024, 1024), 128)
    assert sum(1 for _ in (path / "0").iterdir()) >= 512  # of 4.2 MB each
    report = open_and_scroll(path, 2, (128 * 3 + 2, 128 + 5, 128 * 6 + 3))
    assert report["value"] == value
    assert report["seconds"] < 5
    # To find a window, the chunks of 2^25 voxels are looked at; a plane crosses 64 chunks of 4.2 MB.
    assert report["opening_read_mb"] < 73
    assert max(report["planes_read_mb"]) < 64 * 4.2 + 3
    # A plane's chunks and the last ones kept, of 2150 MB.
    assert report["grown_mb"] < 600
