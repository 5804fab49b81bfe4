"""Importing the package and discovering the plugin stay light; the public names are there and documented."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

import napari_medtransformer as nmt

HEAVY = {"torch", "transformers", "monai", "PyQt5", "PyQt6", "PySide2", "PySide6", "qtpy", "napari"}


def imported_packages(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter imports while it runs `code`."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    names = re.findall(r"^import time:.*\|\s*([\w.]+)\s*$", done.stderr, flags=re.MULTILINE)
    assert "napari_medtransformer" in {name.split(".")[0] for name in names}
    return {name.split(".")[0] for name in names}


def test_importing_the_package_loads_neither_torch_nor_qt():
    assert imported_packages("import napari_medtransformer") & HEAVY == set()


def test_discovering_the_plugin_loads_neither_torch_nor_qt():
    code = (
        "import npe2; manager = npe2.PluginManager.instance(); manager.discover()\n"
        "manifest = manager.get_manifest('napari-medtransformer')\n"
        "assert manifest.contributions.readers and manifest.contributions.sample_data\n"
        "import napari_medtransformer"
    )
    assert imported_packages(code) & HEAVY == set()


def test_listing_models_and_reading_a_volume_load_no_torch(repository):
    code = (
        "import napari_medtransformer as nmt; nmt.list_models()\n"
        f"nmt.read_volume({str(repository / 'sample_data' / 'example_ct.nii.gz')!r})"
    )
    assert imported_packages(code) & HEAVY == set()


@pytest.mark.parametrize("name", sorted(set(nmt.__all__) - {"__version__"}))
def test_every_public_name_is_there_and_documented(name: str):
    assert inspect.getdoc(getattr(nmt, name))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'segmnet'"):
        nmt.segmnet  # noqa: B018


def test_public_names_are_listed_for_completion():
    assert set(nmt.__all__) <= set(dir(nmt))
