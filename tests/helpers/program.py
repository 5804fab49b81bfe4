"""The `medtransformer` program, run within this process: what it answers counts, not that a process can be started."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from pathlib import Path
from unittest import mock

from napari_medtransformer.cli.app import run


def call_program(
    *words: str | Path, folder: Path | None = None, columns: int = 100
) -> subprocess.CompletedProcess[str]:
    """What a command does in a folder, typed into a terminal of so many columns: exit code, stdout and stderr.

    Seconds shorter than a process of its own, which imports torch and transformers once more.
    """
    arguments = [str(word) for word in words]
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder or Path.cwd()),
        mock.patch.dict(os.environ, COLUMNS=str(columns)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = run(arguments)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
