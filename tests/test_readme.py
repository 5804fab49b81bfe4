"""What the README tells people to type works on the sample CT."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from program import call_program

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(repository: Path, tmp_path: Path) -> Path:
    """A folder with the sample CT and a sample MR under the README's names for them."""
    shutil.copy(repository / "sample_data" / "example_ct.nii.gz", tmp_path / "ct.nii.gz")
    shutil.copy(repository / "sample_data" / "hippocampus_003.nii.gz", tmp_path / "brain.nii.gz")
    return tmp_path


def blocks(repository: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (repository / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def run(words: list[str], folder: Path) -> str:
    done = subprocess.run(
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
    return done.stdout


def test_the_python_of_the_readme_runs(repository: Path, folder: Path):
    code = "\n".join(blocks(repository, "python"))
    run([sys.executable, "-c", code + "\nassert heatmap.values.sum(axis=(1, 2)).round(4).max() <= 1"], folder)
    written, image = nib.load(folder / "liver.nii.gz"), nib.load(folder / "ct.nii.gz")
    assert written.shape == image.shape
    assert np.asarray(written.dataobj)[78, 58, 106] == 1


def test_the_commands_of_the_readme_run(repository: Path, folder: Path):
    lines = [line.split("  #")[0].strip() for block in blocks(repository, "sh") for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("medtransformer ")]
    assert {words[1] for words in commands} == {
        *("models", "click", "inspect", "segment", "convert", "measure", "train", "demo"),
    }
    for words in commands:
        if words[1] not in ("demo", "train"):  # they have tests of their own, with a window and with data
            done = call_program(*words[1:], folder=folder)
            assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
    assert Path(sys.executable).with_name("medtransformer").is_file()
    assert {path.name for path in folder.iterdir()} == {
        *("ct.nii.gz", "brain.nii.gz", "liver.nii.gz", "heads.png", "heads.nii.gz"),
        *("ct.nrrd", "liver.csv", "hippocampus.nii.gz"),
    }


def test_every_file_that_the_readme_links_to_is_there(repository: Path):
    text = (repository / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith(("http", "#"))]
    assert links
    assert [link for link in links if not (repository / link).exists()] == []


def test_every_target_that_the_readme_names_is_in_the_makefile(repository: Path):
    targets = set(re.findall(r"^([a-z]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z]+)", (repository / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert named
    assert named <= targets
