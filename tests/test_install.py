"""The wheel and the editable install both work: manifest, sample data, bundled weights and program are in them."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import napari_medtransformer as nmt

pytestmark = pytest.mark.slow

# Prints where the package and a sample file are found and how many commands napari sees, without `sources` on the path.
FIND = """
import sys
sources = {sources!r}
sys.path = [entry for entry in sys.path if entry != sources]
import npe2, napari_medtransformer
from napari_medtransformer.volumes.sample_data import sample_path
manager = npe2.PluginManager()
manager.discover()
manifest = manager.get_manifest("napari-medtransformer")
print(napari_medtransformer.__file__)
print(sample_path("example_ct.nii.gz"))
print(len(manifest.contributions.commands))
"""


def run(*words: str | Path, **options) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=240, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, repository)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was installed, alone."""
    target = tmp_path_factory.mktemp("site")
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel)
    return target


def test_the_wheel_carries_manifest_licences_samples_and_weights(wheel: Path, repository: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    bundled = {card.weights for card in nmt.list_models() if isinstance(card.weights, str)}
    samples = {path.name for path in (repository / "sample_data").iterdir()}
    assert {"LICENSES.md", "example_ct.nii.gz"} <= samples
    assert names >= {
        "napari_medtransformer/napari.yaml",
        "napari_medtransformer/py.typed",
        *(f"napari_medtransformer/sample_data/{name}" for name in samples),
        *(f"napari_medtransformer/models/bundled/{name}" for name in bundled),
    }
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {
        "napari_medtransformer",
        next(name for name in names if ".dist-info/" in name).split("/")[0],
    }


def test_the_wheel_is_small_enough_for_a_package_index(wheel: Path):
    assert wheel.stat().st_size < 100e6  # PyPI's limit per file


def test_the_source_archive_carries_the_tests_and_the_samples(built: Path):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.split("/", 1)[1] for name in opened.getnames() if "/" in name}
    assert names >= {"sample_data/example_ct.nii.gz", "tests/test_install.py", "LICENSE", "pyproject.toml"}


def test_napari_finds_the_plugin_in_an_installed_wheel(installed: Path, repository: Path, tmp_path: Path):
    code = FIND.format(sources=str(repository / "src"))
    lines = run(sys.executable, "-c", code, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)}).splitlines()
    package, sample, commands = lines
    for found in (package, sample):
        assert Path(found).is_relative_to(installed)
    assert int(commands) > 0


def test_napari_finds_the_plugin_in_the_checkout(repository: Path, tmp_path: Path):
    lines = run(sys.executable, "-c", FIND.format(sources=""), cwd=tmp_path).splitlines()
    package, sample, commands = lines
    assert Path(package) == repository / "src" / "napari_medtransformer" / "__init__.py"
    assert Path(sample) == repository / "sample_data" / "example_ct.nii.gz"
    assert int(commands) > 0
