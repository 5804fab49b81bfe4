"""`medtransformer demo`: napari on the sample CT, by hand or by itself with screenshots."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from napari_medtransformer.cli.options import AsJson

QT_BINDINGS = ("PyQt6", "PySide6", "PyQt5")


def demo(
    headless: Annotated[
        bool, typer.Option("--headless", help="Do the tour by itself and leave, instead of waiting for you.")
    ] = False,
    screenshots: Annotated[
        Path | None, typer.Option("--screenshots", metavar="DIR", help="Where screenshots of the tour go.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Open napari on the sample CT: click an organ, look at the heads."""
    from napari_medtransformer.cli.messages import say, say_json
    from napari_medtransformer.errors import MedTransformerError
    from napari_medtransformer.files import folder_to_write

    if not _has_screen():
        raise MedTransformerError(
            "there is no screen: neither DISPLAY nor WAYLAND_DISPLAY is set. "
            "Run it under a virtual one: xvfb-run -a medtransformer demo --headless --screenshots DIR"
        )
    if not any(find_spec(binding) for binding in QT_BINDINGS):
        raise MedTransformerError("napari has no Qt binding here; pip install 'napari-medtransformer[app]'")
    if screenshots is not None:
        folder_to_write(screenshots)  # better now than after the tour
    from napari_medtransformer.plugin.demo import run_demo

    written = run_demo(headless=headless, screenshots=screenshots)
    if as_json:
        say_json({"screenshots": written})
    else:
        for path in written:
            say(str(path))


def _has_screen() -> bool:
    """Whether Qt would find a screen; without one it ends the process and says so in many lines."""
    if not sys.platform.startswith("linux") or "QT_QPA_PLATFORM" in os.environ:
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
