"""How OpenMP's threads wait for work: a setting of programs, not of the library, so only the two faces ask for it."""

from __future__ import annotations

import os
import sys


def wait_without_spinning() -> None:
    """Let idle OpenMP threads sleep, unless the user chose otherwise; without effect once torch is loaded.

    By default they spin. Beside a window that is being drawn, on two cores, one click then took 1.6 s instead of 0.1 s.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
