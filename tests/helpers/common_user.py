"""Being a user to whom the system refuses something, whoever runs the tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOBODY = 65534


@contextmanager
def common_user() -> Iterator[Path]:
    """A new folder; meanwhile a superuser's process has no more rights there than its owner. Linux."""
    folder = Path(tempfile.mkdtemp(prefix="medt-common-user-"))
    superuser = os.geteuid() == 0
    try:
        if superuser:
            os.chown(folder, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, 0)  # the last is what allows the way back
        yield folder
    finally:
        if superuser:
            os.setresuid(0, 0, 0)
        shutil.rmtree(folder)
