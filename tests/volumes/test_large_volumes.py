"""Volumes larger than is read: opened at once, in memory proportional to what is looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

_OPEN = """
import json, sys, time
from pathlib import Path
import numpy as np
from napari_medtransformer.volumes import apply_window, read_volume

def peak_mb():
    # Not getrusage: its maximum counts the parent, whose memory a child has until it starts its own program.
    status = Path("/proc/self/status").read_text().split("VmHWM:")[1]
    return int(status.split()[0]) / 1e3

started = time.perf_counter()
volume = read_volume(sys.argv[1])
window = volume.window
report = {"seconds": time.perf_counter() - started, "opened_mb": peak_mb(), "shape": volume.shape}
for z in np.linspace(0, volume.shape[0] - 1, 40).astype(int):
    apply_window(volume.data[z], window)
report["scrolled_mb"] = peak_mb()
apply_window(volume.data[:, :, 7], window)  # a sagittal plane crosses every page of the file
report["value"] = int(volume.data[tuple(volume.source.zyx_from_file_index((3, 5, 1900)))])
print(json.dumps(report))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a file with holes, and its memory in kilobytes")
@pytest.mark.slow
@pytest.mark.parametrize("flipped", [False, True])
def test_four_gigabytes_open_in_under_five_seconds_and_one_gigabyte(tmp_path: Path, flipped: bool) -> None:
    shape = (1024, 1024, 2048)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header.set_sform(np.diag([0.5, -0.5 if flipped else 0.5, 0.5, 1]), code=1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path = tmp_path / "large.nii"
    with path.open("wb") as file:
        file.write(header.binaryblock + bytes(4))
        file.truncate(352 + 2 * int(np.prod(shape)))
        file.seek(352 + 2 * (3 + 1024 * (5 + 1024 * 1900)))
        file.write(np.int16(777).tobytes())
    assert path.stat().st_size > 4e9
    run = subprocess.run([sys.executable, "-c", _OPEN, str(path)], capture_output=True, text=True, check=True)
    report = json.loads(run.stdout)
    assert report["shape"] == [2048, 1024, 1024]
    assert report["value"] == 777
    assert report["seconds"] < 5
    # "Resident" counts the pages of the file that are mapped; the system may take them back at any time.
    assert report["opened_mb"] < 1000
    assert report["scrolled_mb"] < 1000
