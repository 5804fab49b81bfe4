"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_MODEL = "medt-click-tiny"

InputPath = Annotated[Path, typer.Argument(metavar="IN", help="The image to open.", show_default=False)]
Series = Annotated[
    str | None,
    typer.Option(
        "--series",
        metavar="N|UID",
        help="Which DICOM series of a folder, by its number in the list that the error gives, or its UID.",
        show_default=False,
    ),
]
Frame = Annotated[
    int | None,
    typer.Option("--frame", metavar="N", help="Which time point or channel of a 4D file, from 0.", show_default=False),
]
ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|FILE.json",
        help="A model that `medtransformer models` lists, or the card of one that you trained.",
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="PATH|random",
        help="A checkpoint to load instead of the model's own; `random` draws seeded ones.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="What the network's matrix products run in: auto, float32, bfloat16 or float16.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Millimetres = Annotated[
    bool,
    typer.Option("--mm", help="Coordinates are patient millimetres (RAS) instead of the file's own voxel indices."),
]
Axis = Annotated[
    str,
    typer.Option("--axis", metavar="0|1|2", help="The slice to work on: 0 axial, 1 coronal, 2 sagittal."),
]
