"""Torch's compiler stays out of a process that does not ask for it, and triton keeps to the LLVM that it brings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOOKED_INTO = """
import sys
from napari_medtransformer import load_model, read_volume
from napari_medtransformer.inspection import inspect_slice
from napari_medtransformer.volumes.sample_data import sample_path
inspect_slice(load_model("medt-click-tiny"), read_volume(sample_path("hippocampus_003.nii.gz")), 0, 5)
assert "torch._dynamo" not in sys.modules
"""
IN_A_WINDOW = """
import sys
from pathlib import Path
import napari
viewer = napari.Viewer()
viewer.screenshot(flash=False)
if "libLLVM" not in Path("/proc/self/maps").read_text():
    sys.exit(77)
before = sys.getdlopenflags()
from napari_medtransformer import load_model
load_model("medt-click-tiny")
assert sys.getdlopenflags() == before
import triton
print(triton.flags & ~before)
"""
WITHOUT_A_WINDOW = """
import sys
from napari_medtransformer import load_model
load_model("medt-click-tiny")
assert "triton" not in sys.modules
"""


@pytest.fixture
def run(tmp_path: Path):
    """A function that runs Python where the package triton notes how its libraries would be loaded."""
    (tmp_path / "triton.py").write_text("import sys\nflags = sys.getdlopenflags()\n")
    path = f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"
    found = {**os.environ, "PYTHONPATH": path, "LIBGL_ALWAYS_SOFTWARE": "1"}
    return lambda code: subprocess.run([sys.executable, "-c", code], env=found, capture_output=True, text=True)


def test_looking_inside_does_not_bring_torchs_compiler(run) -> None:
    done = run(LOOKED_INTO)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="where a library finds symbols first is Linux's")
def test_beside_a_window_drawn_in_software_triton_is_loaded_with_symbols_of_its_own(run) -> None:
    done = run(IN_A_WINDOW)
    if done.returncode == 77:
        pytest.skip("the window is not drawn by Mesa's renderer in software")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == os.RTLD_DEEPBIND


def test_without_such_a_window_triton_is_left_alone(run) -> None:
    done = run(WITHOUT_A_WINDOW)
    assert done.returncode == 0, done.stderr
