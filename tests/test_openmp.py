"""Both faces ask OpenMP's threads to sleep while they wait; the library does not, and a user's choice stands."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "chosen", "policy"),
    [
        ("napari_medtransformer.cli", None, "PASSIVE"),
        ("napari_medtransformer.plugin", None, "PASSIVE"),
        ("napari_medtransformer.plugin", "ACTIVE", "ACTIVE"),
        ("napari_medtransformer", None, "None"),
    ],
)
def test_programs_wait_without_spinning(module: str, chosen: str | None, policy: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if chosen is not None:
        environment["OMP_WAIT_POLICY"] = chosen
    code = f"import os, {module}; print(os.environ.get('OMP_WAIT_POLICY'))"
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == policy
