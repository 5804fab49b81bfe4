"""`medtransformer models`: which models there are, what is known about one, fetching weights, adding one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_medtransformer.cli.options import AsJson
from napari_medtransformer.models.words import size_in_words, weights_in_words

if TYPE_CHECKING:
    from napari_medtransformer.models import ModelCard

# The columns of `models list` that may be broken into lines, and the characters they need all the same.
_WRAPPED = {"trained on": 14, "licence": 24}

models_app = typer.Typer(invoke_without_command=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.", show_default=False)]


@models_app.callback()
def models(context: typer.Context, as_json: AsJson = False) -> None:
    """The models there are: list, info, fetch, add, remove."""
    if context.invoked_subcommand is None:
        list_models(as_json)


@models_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the models."""
    from napari_medtransformer import models
    from napari_medtransformer.cli.messages import say_json

    cards = models.list_models()
    if as_json:
        say_json([_as_dict(card) for card in cards])
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from napari_medtransformer.cli.messages import console
    from napari_medtransformer.models.download import is_on_disk

    columns = {
        "name": [card.name for card in cards],
        "task": [f"{card.task}, {card.dimensions}D" for card in cards],
        "weights": [weights_in_words(card).partition(":")[0] for card in cards],
        "here": ["yes" if is_on_disk(card) else "" for card in cards],
        "trained on": [", ".join((*card.modalities, *card.anatomy)) or "–" for card in cards],
        "licence": [card.licence for card in cards],
    }
    out = console()
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    shown = _columns_that_fit(columns, out.width)
    for heading in shown:
        table.add_column(heading, no_wrap=heading not in _WRAPPED)
    for row in zip(*(columns[heading] for heading in shown)):
        table.add_row(*row)
    out.print(table)


def _columns_that_fit(columns: Mapping[str, list[str]], width: int) -> list[str]:
    """The first headings whose columns fit side by side, at least one; `models info` tells the rest."""
    shown: list[str] = []
    for heading, cells in columns.items():
        # rich sets columns two spaces apart
        width -= min(max(len(text) for text in (heading, *cells)), _WRAPPED.get(heading, width)) + 2
        if shown and width < 0:
            break
        shown.append(heading)
    return shown


@models_app.command("info")
def info(name: Name, as_json: AsJson = False) -> None:
    """Show a model's card: its input, training data, licence, citation, where its weights come from and go."""
    from napari_medtransformer.cli.messages import say_json
    from napari_medtransformer.models import find_card

    card = find_card(name)
    if as_json:
        say_json(_as_dict(card))
        return
    from rich.table import Table

    from napari_medtransformer.cli.messages import console

    shape = " × ".join(str(n) for n in card.input.size)
    rows = {
        "name": card.name,
        "title": card.title,
        "family": " ".join(part for part in (card.family, card.architecture) if part),
        "task": f"{card.task}, {card.dimensions}D",
        "input": f"{shape}, {card.input.channels} channel{'s' * (card.input.channels > 1)}, {card.input.intensities}",
        "modalities": ", ".join(card.modalities) or "any",
        "anatomy": ", ".join(card.anatomy) or "any",
        "labels": ", ".join(f"{label.value} {label.name}" for label in card.labels),
        "weights": weights_in_words(card),
        **_where_weights_lie(card),
        "memory": "" if card.memory_bytes is None else size_in_words(card.memory_bytes),
        "licence": card.licence,
        "citation": card.citation,
        "about": card.description,
        "training": card.training,
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for what, text in rows.items():
        if text:
            table.add_row(what, text)
    console().print(table)


def _where_weights_lie(card: ModelCard) -> dict[str, str]:
    """Of weights that are fetched: their address, and the file and folder where they are looked for first."""
    from napari_medtransformer.models import WeightsSource
    from napari_medtransformer.models.download import cache_folder

    if not isinstance(card.weights, WeightsSource):
        return {}
    return {"address": card.weights.url, "file": card.weights.filename, "folder": str(cache_folder())}


@models_app.command("fetch")
def fetch(name: Name, as_json: AsJson = False) -> None:
    """Bring a model's weights onto this machine, for work offline."""
    from napari_medtransformer.cli.loading import download_bar
    from napari_medtransformer.cli.messages import Interrupted, say, say_json
    from napari_medtransformer.models import find_card
    from napari_medtransformer.models.weights import find_weights

    card = find_card(name)
    try:
        with download_bar(card.name) as on_progress:
            path = find_weights(card, None, on_progress)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command goes on where it stopped") from None
    if as_json:
        say_json({"name": card.name, "path": path})
    else:
        say(f"{card.name}: {path}")


@models_app.command("add")
def add(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="A checkpoint, or the .json card beside one.", show_default=False)
    ],
    name: Annotated[str, typer.Option("--name", help="What to call it; by default after the file.")] = "",
    like: Annotated[
        str,
        typer.Option("--like", metavar="NAME", help="The model whose architecture it has; by default found out."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Add a model of your own from a file; every session then has it."""
    from napari_medtransformer import models
    from napari_medtransformer.cli.messages import say, say_json
    from napari_medtransformer.models.own import card_of_file, remember

    base = models.find_card(like) if like else None
    card = card_of_file(path, models.list_models(), base=base, name=name)
    remember(card)
    if as_json:
        say_json(_as_dict(card))
    else:
        say(f"{card.name}: {card.description}")


@models_app.command("remove")
def remove(name: Name, as_json: AsJson = False) -> None:
    """Take a model that you added out of the list; its file stays."""
    from napari_medtransformer.cli.messages import say, say_json
    from napari_medtransformer.models.own import forget

    forget(name)
    if as_json:
        say_json({"name": name, "removed": True})
    else:
        say(f"{name} is no longer listed; its file was left where it is")


def _as_dict(card: ModelCard) -> dict[str, Any]:
    from napari_medtransformer.models.card_files import card_as_dict

    return card_as_dict(card)
