"""`medtransformer click --cluster`: the same labels as without it, and an address where nobody is, said in one line."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import pytest
from dask_processes import DaskProcesses

from napari_medtransformer.cli.app import run


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a scheduler with one worker, processes of their own on loopback."""
    processes = DaskProcesses(tmp_path_factory.mktemp("dask"))
    processes.start_worker()
    yield processes.address
    processes.stop()


@pytest.fixture(scope="module")
def image(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few slices through liver and spleen, in a file of their own."""
    path = tmp_path_factory.mktemp("image") / "ct.nii.gz"
    nib.save(nib.load(repository / "sample_data" / "example_ct.nii.gz").slicer[:, :, 70:82], path)
    return path


@pytest.mark.slow
def test_the_workers_of_a_cluster_give_the_same_file_as_this_machine(
    image: Path, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = ["--point", "36,50,5", "--point", "41,60,5,0", "--box", "26,30,7,66,70,7", "--propagate", "--json"]
    told = {}
    for name, more in {"here": [], "there": ["--cluster", address]}.items():
        assert run(["click", str(image), "-o", str(tmp_path / f"{name}.nii.gz"), *prompts, *more]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        told[name] = json.loads(captured.out)
    assert told["here"]["place"] == "here"
    assert told["there"]["place"] == address
    assert told["there"]["voxels"] == told["here"]["voxels"] > 1000
    assert (tmp_path / "there.nii.gz").read_bytes() == (tmp_path / "here.nii.gz").read_bytes()


@pytest.mark.slow
def test_a_mistake_with_a_cluster_is_told_as_without_one(
    image: Path, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "labels.nii.gz"
    wrong = ["click", str(image), "-o", str(output), "--point", "36,50,99", "--cluster", address]
    assert run(wrong) == 2
    assert "lies outside ct.nii.gz" in capsys.readouterr().err
    assert not output.exists()


def test_a_cluster_that_does_not_answer_is_an_error_in_one_line(repository: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    image, output = repository / "sample_data" / "example_ct.nii.gz", tmp_path / "labels.nii.gz"
    command = [str(Path(sys.executable).with_name("medtransformer")), "click", str(image), "-o", str(output)]
    command += ["--point", "40,50,100", "--cluster", f"127.0.0.1:{port}"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert said.returncode == 2
    assert said.stderr.splitlines()[-1].startswith("error: ")
    assert f"no scheduler answers at tcp://127.0.0.1:{port}" in said.stderr.replace("\n", " ")
    assert "Traceback" not in said.stderr
    assert not output.exists()
