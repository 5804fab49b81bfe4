"""Load a promptable model for a command, with a progress bar for a download."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from napari_medtransformer.errors import UnsupportedModel
from napari_medtransformer.models import ModelCard, load_model
from napari_medtransformer.progress import Progress

if TYPE_CHECKING:
    from napari_medtransformer.models.base import PromptableModel


def load(card: ModelCard, weights: str | None, device: str, dtype: str = "auto") -> PromptableModel:
    """The model of `card`. Raises what load_model raises, and UnsupportedModel for one that takes no prompts."""
    if card.task != "promptable":
        raise UnsupportedModel(f"{card.name} takes no clicks, it segments by itself; choose a promptable model.")
    with download_bar(card.name) as on_progress:
        return load_model(card, weights, device, dtype=dtype, on_progress=on_progress)


@contextmanager
def download_bar(name: str) -> Iterator[Callable[[Progress], None]]:
    """A callback for a download's Progress in bytes, drawn on stderr if that is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"fetching {name}", total=None, visible=False)

        def on_progress(step: Progress) -> None:
            bar.update(task, completed=step.done, total=step.total, visible=True)

        yield on_progress
