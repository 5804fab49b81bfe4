"""How torch's threads wait and where its arrays lie: settings of programs, not of the library, for the two faces."""

from __future__ import annotations

import os
import sys


def wait_without_spinning() -> None:
    """Let idle OpenMP threads sleep, unless the user chose otherwise; without effect once torch is loaded.

    By default they spin. Beside a window that is being drawn, on two cores, one click then took 1.6 s instead of 0.1 s.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def use_large_pages() -> None:
    """Let torch's arrays lie in large pages of memory where Linux has them, unless the user chose otherwise.

    Else every fresh array of a network costs a fault per 4 kB: a sixth of the time of a window of 96³ voxels. Without
    effect once torch is loaded.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
