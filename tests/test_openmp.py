"""Both faces settle how torch waits and where its arrays lie; the library does not, and a user's choice stands."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("variable, ours, other", [("OMP_WAIT_POLICY", "PASSIVE", "ACTIVE"),
                                                   ("THP_MEM_ALLOC_ENABLE", "1", "0")])  # fmt: skip
@pytest.mark.parametrize(
    "module, is_chosen, is_set",
    [
        ("napari_medtransformer.cli", False, True),
        ("napari_medtransformer.plugin", False, True),
        ("napari_medtransformer.plugin", True, False),
        ("napari_medtransformer", False, False),
    ],
)
def test_programs_wait_without_spinning_in_large_pages(
    variable: str, ours: str, other: str, module: str, is_chosen: bool, is_set: bool
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != variable}
    if is_chosen:
        environment[variable] = other
    code = f"import os, {module}; print(os.environ.get({variable!r}))"
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == (ours if is_set else other if is_chosen else "None")
