"""The command line: `medtransformer`, one file per command. Nothing heavy is imported before a command runs."""

from napari_medtransformer.cli.app import main
from napari_medtransformer.openmp import use_large_pages, wait_without_spinning

__all__ = ["main"]

wait_without_spinning()
use_large_pages()
