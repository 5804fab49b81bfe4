"""A user's mistake ends the program with exit code 2, one line on stderr and no file left behind."""

from __future__ import annotations

import gzip
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from program import call_program

PROGRAM = Path(sys.executable).with_name("medtransformer")


@pytest.fixture
def ct(repository: Path) -> Path:
    return repository / "sample_data" / "example_ct.nii.gz"


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return call_program(*words, folder=cwd, columns=60)


def run_process(
    *words: str | Path, cwd: Path, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """As run, but in a process of its own, which may be limited."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "60"}
    return subprocess.run(
        [PROGRAM, *map(str, words)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=before,
        check=False,
    )


def assert_one_line_error(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stdout == ""
    for word in says:
        assert word in lines[0]


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_missing_file_is_told_with_near_matches(tmp_path: Path, ct: Path):
    shutil.copy(ct, tmp_path / "liver_ct.nii.gz")
    done = run_process("click", "livr_ct.nii.gz", "-o", "out.nii.gz", "--point", "1,2,3", cwd=tmp_path)
    assert_one_line_error(done, "livr_ct.nii.gz", "Did you mean liver_ct.nii.gz")
    assert files_in(tmp_path) == {"liver_ct.nii.gz"}


def make_text(path: Path) -> None:
    path.write_text("this is no image\n" * 100)


def make_truncated(path: Path) -> None:
    whole = gzip.compress(nib.Nifti1Image(np.zeros((30, 30, 30), np.float32), np.eye(4)).to_bytes(), compresslevel=0)
    path.write_bytes(whole[: len(whole) // 2])


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("make", [make_text, make_truncated, make_empty])
def test_a_file_that_is_no_volume_is_named(tmp_path: Path, make: Callable[[Path], None]):
    make(tmp_path / "scan.nii.gz")
    done = run("click", "scan.nii.gz", "-o", "out.nii.gz", "--point", "1,2,3", cwd=tmp_path)
    assert_one_line_error(done, "scan.nii.gz")
    assert files_in(tmp_path) == {"scan.nii.gz"}


@pytest.mark.parametrize("shape", [(4, 5, 6, 2, 3), (4, 5, 6, 7)])
def test_wrong_dimensions_are_told_with_the_expected_ones(tmp_path: Path, shape: tuple[int, ...]):
    nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), np.eye(4)), tmp_path / "scan.nii")
    done = run("click", "scan.nii", "-o", "out.nii", "--point", "1,2,3", cwd=tmp_path)
    assert_one_line_error(done, "scan.nii", "dimension")
    assert files_in(tmp_path) == {"scan.nii"}


@pytest.mark.parametrize("point", ["122,50,50", "50,-1,50", "50,50,1e9"])
def test_a_point_outside_is_told_with_the_volumes_extent(tmp_path: Path, ct: Path, point: str):
    done = run("click", ct, "-o", "out.nii.gz", "--point", point, cwd=tmp_path)
    assert_one_line_error(done, "outside example_ct.nii.gz", "0,0,0 to 121,100,111")
    assert files_in(tmp_path) == set()


def test_an_unknown_model_is_told_with_near_matches(tmp_path: Path, ct: Path):
    done = run("click", ct, "-o", "out.nii.gz", "--point", "61,50,50", "--model", "sam-vitb", cwd=tmp_path)
    assert_one_line_error(done, "'sam-vitb'", "sam-vit-b")
    done = run("models", "info", "medt-clik-tiny", cwd=tmp_path)
    assert_one_line_error(done, "did you mean medt-click-tiny")
    assert files_in(tmp_path) == set()


@pytest.mark.parametrize("content", [None, b"", b"no weights at all" * 50, b"<!DOCTYPE html><html></html>"])
def test_unreadable_weights_are_told(tmp_path: Path, ct: Path, content: bytes | None):
    if content is not None:
        (tmp_path / "weights.safetensors").write_bytes(content)
    before = files_in(tmp_path)
    words = ("click", ct, "-o", "out.nii.gz", "--point", "61,50,50", "--weights", "weights.safetensors")
    assert_one_line_error(run(*words, cwd=tmp_path), "weights.safetensors")
    assert files_in(tmp_path) == before


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))


def test_labels_that_cannot_be_written_leave_nothing(tmp_path: Path, ct: Path):
    words = ("click", ct, "-o", "out.nii", "--point", "61,50,50", "--weights", "random")
    done = run_process(*words, cwd=tmp_path, before=limit_file_size)
    assert_one_line_error(done, "out.nii was not written")
    assert files_in(tmp_path) == set()


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, ct: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    # A file system of its own, as large as 16 pages, in a namespace that ends with the command.
    words = f"'{PROGRAM}' click '{ct}' -o '{disk}/out.nii' --point 61,50,50 --weights random; code=$?; ls -A '{disk}'"
    script = f"mount -t tmpfs -o size=64k none '{disk}' || exit 77; {words}; exit $code"
    try:
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no unshare here, so no small disk can be made")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    assert_one_line_error(done, "the disk is full")


def test_an_existing_output_survives_a_failed_run(tmp_path: Path, ct: Path):
    (tmp_path / "out.nii").write_bytes(b"an older result")
    words = ("click", ct, "-o", "out.nii", "--point", "61,50,50", "--weights", "random")
    done = run_process(*words, cwd=tmp_path, before=limit_file_size)
    assert_one_line_error(done)
    assert (tmp_path / "out.nii").read_bytes() == b"an older result"
    assert files_in(tmp_path) == {"out.nii"}


@pytest.mark.parametrize(
    ("output", "says"), [("out.xyz", ".nii"), ("missing/out.nii", "no folder"), ("", "a folder"), (".", "a folder")]
)
def test_an_output_that_cannot_be_is_told_before_the_work(tmp_path: Path, ct: Path, output: str, says: str):
    done = run("click", ct, "-o", output, "--point", "61,50,50", "--weights", "nowhere", cwd=tmp_path)
    assert_one_line_error(done, says)
    assert files_in(tmp_path) == set()


def test_the_image_itself_is_never_overwritten(tmp_path: Path, ct: Path):
    image = tmp_path / "ct.nii.gz"
    shutil.copy(ct, image)
    done = run("click", image, "-o", image, "--point", "61,50,50", cwd=tmp_path)
    assert_one_line_error(done, "is the image itself")
    assert image.read_bytes() == ct.read_bytes()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("click", "Missing argument 'IN'"),
        ("click ct.nii --point 1,2,3", "Missing option '--output'"),
        ("click ct.nii -o out.nii", "--point"),
        ("click ct.nii -o out.nii --point 1,2", "I,J,K"),
        ("click ct.nii -o out.nii --point 1,2,3,7", "1 for inside"),
        ("click ct.nii -o out.nii --point one,two,three", "I,J,K"),
        ("click ct.nii -o out.nii --box 1,2,3", "I0,J0,K0,I1,J1,K1"),
        ("click ct.nii -o out.nii --point 1,2,3 --axis 3", "axial"),
        ("click ct.nii -o out.nii --pont 1,2,3", "--pont"),
        ("clik", "'clik'"),
        ("models info", "Missing argument 'NAME'"),
        ("models info --jason x", "--jason"),
    ],
)
def test_a_malformed_command_line_is_one_line_too(tmp_path: Path, words: str, says: str):
    start = run_process if words == "clik" else run
    assert_one_line_error(start(*words.split(), cwd=tmp_path), says)
    assert files_in(tmp_path) == set()


def test_an_unknown_device_is_told(tmp_path: Path, ct: Path):
    done = run("click", ct, "-o", "out.nii", "--point", "61,50,50", "--device", "abacus", cwd=tmp_path)
    assert_one_line_error(done, "'abacus'", "cpu")


def test_a_demo_without_a_screen_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for variable in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(variable, raising=False)
    assert_one_line_error(run_process("demo", "--headless", cwd=tmp_path), "no screen", "xvfb-run")
