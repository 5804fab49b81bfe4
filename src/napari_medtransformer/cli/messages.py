"""What the program says: errors and warnings in one line each on stderr, results on stdout, progress on a terminal."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from napari_medtransformer.progress import Partial, Progress, Result, Steps

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

LINE_EVERY_S = 60.0
"""How often progress is told where there is no terminal."""
_UNWRAPPED = 10_000  # columns: more than any line of a table has
_PACKAGE = Path(__file__).resolve().parents[1]


class Interrupted(Exception):
    """Ctrl-C where there is more to say than that; ends the program with exit code 130."""


def one_line(text: str) -> str:
    """`text` with its line breaks made spaces."""
    return " ".join(part.strip() for part in text.splitlines() if part.strip())


def say_error(text: str) -> None:
    """One line `error: …` on stderr."""
    sys.stderr.write(f"error: {one_line(text)}\n")


def say_warning(text: str) -> None:
    """One line `warning: …` on stderr."""
    sys.stderr.write(f"warning: {one_line(text)}\n")


def say(text: str) -> None:
    """A line of the result on stdout."""
    sys.stdout.write(f"{text}\n")


def say_json(values: Mapping[str, Any] | list[Any]) -> None:
    """A result as JSON on stdout; numbers that JSON does not know, NaN and infinities, become null."""
    sys.stdout.write(json.dumps(_plain(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    """`value` made of what JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value if isinstance(value, str | int | None) else str(value)


def help_without_command(context: typer.Context) -> None:
    """Show a group's help where none of its commands was named, and end."""
    if context.invoked_subcommand is None:
        say(context.get_help())
        raise typer.Exit


def console() -> Console:
    """Where tables are printed: stdout, as wide as a terminal is, and as wide as they need in a pipe or file.

    What stands in a cell is text: brackets in a name are no markup.
    """
    from rich.console import Console

    made = Console(markup=False, highlight=False, emoji=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = _UNWRAPPED
    return made


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Show this package's own warnings as one line each; those of libraries are for their developers, so hide them."""

    def show(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
        if not issubclass(category, DeprecationWarning) and Path(filename).resolve().is_relative_to(_PACKAGE):
            say_warning(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield


def run_with_progress(steps: Steps[T], title: str) -> T:
    """Drive `steps` to their result with progress on stderr: a bar on a terminal, else a line every minute."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    lines = None if console.is_terminal else _ProgressLines(title)
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        for step in steps:
            match step:
                case Progress(done, total, message):
                    bar.update(task, completed=done, total=total, description=message or title)
                    if lines is not None:
                        lines.tell(step)
                case Partial():
                    pass
                case Result(value):
                    return value
    raise RuntimeError("the steps ended without a Result")


class _ProgressLines:
    """Progress for a file or a pipe, such as the log of a cluster's job."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._last = time.monotonic()
        self._began: tuple[int | None, int, float] | None = None  # total, steps done and time of what is counted

    def tell(self, progress: Progress) -> None:
        now = time.monotonic()
        if self._began is None or self._began[0] != progress.total:
            self._began = progress.total, progress.done, now
        if now - self._last < LINE_EVERY_S:
            return
        self._last = now
        _, first, since = self._began
        parts = [f"{self._title}: {progress.done}" + ("" if progress.total is None else f" of {progress.total}")]
        if progress.total is not None and progress.done > first:
            seconds = (now - since) / (progress.done - first) * (progress.total - progress.done)
            parts.append(f"{timedelta(seconds=round(seconds))} left")
        sys.stderr.write(one_line(" · ".join([*parts, *([progress.message] if progress.message else [])])) + "\n")
        sys.stderr.flush()
