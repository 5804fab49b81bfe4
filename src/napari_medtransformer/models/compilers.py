"""Two compilers in one process: triton's, which comes with torch for CUDA, and that of a renderer in software."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path


def load_triton_apart() -> None:
    """Load triton with symbols of its own if it is installed, and LLVM is in this process already.

    A window that Mesa draws without a graphics card makes LLVM's symbols known to every library that comes later.
    triton has an LLVM of its own, of another version; it is loaded with torch's compiler, as by an import of MONAI,
    and without this the process ends there. Linux only: elsewhere libraries find their own symbols first.
    """
    if sys.platform != "linux" or "triton" in sys.modules or not _llvm_is_here():
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | getattr(os, "RTLD_DEEPBIND", 0))
    try:
        with suppress(Exception):  # not installed, or not whole: torch does without
            import_module("triton")
    finally:
        sys.setdlopenflags(flags)


def _llvm_is_here() -> bool:
    """Whether a library of LLVM is part of this process."""
    try:
        return "libLLVM" in Path("/proc/self/maps").read_text(errors="replace")
    except OSError:
        return False
