"""`medtransformer demo`: napari on the sample CT, by hand or by itself with screenshots."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    headless: Annotated[
        bool, typer.Option("--headless", help="Do the tour by itself and leave, instead of waiting for you.")
    ] = False,
    screenshots: Annotated[
        Path | None, typer.Option("--screenshots", metavar="DIR", help="Where screenshots of the tour go.")
    ] = None,
) -> None:
    """Open napari on the sample CT with both docks: click an organ, look at the heads."""
    from napari_medtransformer.plugin.demo import run_demo

    run_demo(headless=headless, screenshots=screenshots)
