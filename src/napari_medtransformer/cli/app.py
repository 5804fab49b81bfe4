"""The `medtransformer` program: its commands, and how it ends.

Exit codes: 0 done; 2 a mistake that the user can correct, told in one line `error: …`; 1 a fault of the program;
130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated

import typer

from napari_medtransformer.cli.click import click
from napari_medtransformer.cli.convert import convert
from napari_medtransformer.cli.demo import demo
from napari_medtransformer.cli.inspect import inspect
from napari_medtransformer.cli.measure import measure
from napari_medtransformer.cli.messages import Interrupted, help_without_command, one_line, say_error, warnings_as_lines
from napari_medtransformer.cli.models import models_app
from napari_medtransformer.cli.segment import segment
from napari_medtransformer.cli.train import train_app
from napari_medtransformer.errors import MedTransformerError

_INTERRUPTED = 130  # 128 + SIGINT, as shells say it

app = typer.Typer(
    name="medtransformer",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's boxes clip names of options in narrow terminals
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(click)
app.command()(inspect)
app.command()(segment)
app.command()(convert)
app.command()(measure)
app.command()(demo)
app.add_typer(models_app, name="models")
app.add_typer(train_app, name="train")


def _version(wanted: bool) -> None:
    if wanted:
        from napari_medtransformer import __version__

        typer.echo(f"medtransformer {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Click on CT and MR volumes, segment them, and look inside the attention of pretrained transformers."""
    help_without_command(context)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; every error becomes one line on stderr."""
    # transformers and huggingface_hub log advice about files that a user here never chose.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if "--debug" in _before_the_command(arguments):
        return _call(arguments)
    try:
        code = _call(arguments)
        if code == _INTERRUPTED:  # typer's own word for Ctrl-C
            say_error("interrupted; what was not finished was not written")
        return code
    except Interrupted as error:
        say_error(str(error))
        return _INTERRUPTED
    except MedTransformerError as error:
        say_error(str(error))
        return 2
    except typer.TyperException as error:
        say_error(_usage_message(error))
        return 2
    except BrokenPipeError:
        # Whoever read our output has left; without this Python complains again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        say_error(
            f"{one_line(f'{type(error).__name__}: {error}')} (a fault of the program; "
            f"`medtransformer --debug …` shows where)"
        )
        return 1


def _call(arguments: Sequence[str]) -> int:
    with warnings_as_lines():
        code = app(list(arguments), prog_name="medtransformer", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _before_the_command(arguments: Sequence[str]) -> Sequence[str]:
    """The program's own options; the first word that is none is the command, and what follows belongs to it."""
    return list(takewhile(lambda word: word.startswith("-"), arguments))


def _usage_message(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    program = "medtransformer" if context is None else context.command_path
    message = one_line(error.format_message()).rstrip(".")
    return f"{message}; `{program} --help` lists what it takes"
