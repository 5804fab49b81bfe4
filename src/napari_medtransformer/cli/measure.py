"""`medtransformer measure`: names and millilitres of labels, and an image's values inside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_medtransformer.cli.options import AsJson, Frame, Series
from napari_medtransformer.cli.reading import check_grid, read_input, read_label_input
from napari_medtransformer.errors import UnsupportedVolume

if TYPE_CHECKING:
    from napari_medtransformer.volumes import LabelStatistics, Volume

_OF_THE_IMAGE = ("mean", "std", "low", "high")


def measure(
    labels_path: Annotated[
        Path, typer.Argument(metavar="LABELS", help="A label file: NIfTI, NRRD, MHA, DICOM-SEG.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="Where the table goes: .csv or .json; else it is shown.",
            show_default=False,
        ),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image",
            metavar="IN",
            help="The image that the labels lie on: adds mean, standard deviation, lowest and highest value.",
            show_default=False,
        ),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(
            "--names",
            metavar="TABLE",
            help="Names of the labels: .csv with number and name, or .json; else those in LABELS.",
            show_default=False,
        ),
    ] = None,
    series: Series = None,
    frame: Frame = None,
    labels_frame: Annotated[
        int | None,
        typer.Option("--labels-frame", metavar="N", help="Which frame of 4D LABELS, from 0.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure every label: name, millilitres, the image's values."""
    from napari_medtransformer.cli.messages import say, say_json
    from napari_medtransformer.volumes import (
        label_statistics,
        read_label_names,
        read_label_table,
        write_statistics,
    )
    from napari_medtransformer.volumes.label_table import table_path

    if image is None and (series is not None or frame is not None):
        raise UnsupportedVolume(
            "--series and --frame choose in an image; give it with --image, or choose in LABELS by --labels-frame."
        )
    if output is not None:
        table_path(output)  # better now than after the work
    labels = read_label_input(labels_path, labels_frame, "--labels-frame")
    known = read_label_table(names) if names is not None else read_label_names(labels_path)
    volume = labels if image is None else read_input(image, series, frame)
    check_grid(labels, volume, labels_path)
    found = label_statistics(labels.data, volume, known)
    columns = None if image is not None else ("voxels", "volume_ml")
    if output is not None:
        written = write_statistics(found, output, columns)
    if as_json:
        say_json([_as_row(one, with_values=image is not None) for one in found])
    elif output is not None:
        total = sum(one.volume_ml for one in found)
        say(f"{written}: {len(found)} label{'s' * (len(found) != 1)}, {total:.1f} ml together")
    else:
        _print(found, volume if image is not None else None)


def _as_row(one: LabelStatistics, *, with_values: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "number": one.label.number,
        "name": one.label.name,
        "voxels": one.voxels,
        "volume_ml": one.volume_ml,
    }
    return row | ({column: getattr(one, column) for column in _OF_THE_IMAGE} if with_values else {})


def _print(found: list[LabelStatistics], image: Volume | None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from napari_medtransformer.cli.messages import console

    unit = "" if image is None else "\n(HU)" if image.modality == "CT" else "\n"
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("label", justify="right")
    table.add_column("name", overflow="fold")
    for heading in ("voxels", "volume\n(ml)", *(() if image is None else (f"{c}{unit}" for c in _OF_THE_IMAGE))):
        table.add_column(heading, justify="right")
    for one in found:
        values = [] if image is None else [f"{getattr(one, column):.5g}" for column in _OF_THE_IMAGE]
        table.add_row(str(one.label.number), one.label.name, str(one.voxels), f"{one.volume_ml:.2f}", *values)
    console().print(table)
