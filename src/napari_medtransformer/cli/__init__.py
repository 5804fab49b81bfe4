"""The command line: `medtransformer`, one file per command. Nothing heavy is imported before a command runs."""

from napari_medtransformer.cli.app import main

__all__ = ["main"]
