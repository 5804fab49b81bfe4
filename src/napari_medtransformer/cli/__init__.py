"""The command line: `medtransformer`, one file per command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from napari_medtransformer.openmp import use_large_pages, wait_briefly

__all__ = ["main"]

wait_briefly()
use_large_pages()

_INTERRUPTED = 130  # 128 + SIGINT, as shells say it


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program on `arguments`, by default the process's own, and exit."""
    try:
        # here, so that Ctrl-C in the first half second is told as any other
        from napari_medtransformer.cli.app import run

        code = run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        # Python would wait for threads in the middle of a network's layer, and then take its modules apart for a second
        with suppress(OSError):  # whoever read it has left
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
