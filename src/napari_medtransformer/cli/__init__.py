"""The command line: `medtransformer`, one file per command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from napari_medtransformer.openmp import use_large_pages, wait_without_spinning

__all__ = ["main"]

wait_without_spinning()
use_large_pages()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program on `arguments`, by default the process's own, and exit."""
    try:
        # here, so that Ctrl-C in the first half second is told as any other
        from napari_medtransformer.cli.app import run

        code = run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        code = 130
    sys.exit(code)
