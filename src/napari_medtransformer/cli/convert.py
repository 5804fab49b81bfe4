"""`medtransformer convert`: an image or labels in another format, or on another grid."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_medtransformer.cli.options import AsJson, Frame, InputPath, Series
from napari_medtransformer.cli.reading import read_input, read_label_input
from napari_medtransformer.errors import CannotWrite, UnsupportedVolume

if TYPE_CHECKING:
    from napari_medtransformer.volumes import Volume


def convert(
    input_path: InputPath,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUT", help="Where it goes: .nii.gz, .nii, .nrrd or .mha."),
    ],
    series: Series = None,
    frame: Frame = None,
    resample: Annotated[
        str | None,
        typer.Option(
            "--resample",
            metavar="iso|MM",
            help="Onto cubic voxels, upright in the patient: of the smallest spacing there is, or of MM millimetres.",
            show_default=False,
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option("--like", metavar="FILE", help="Onto the grid of another file.", show_default=False),
    ] = None,
    labels: Annotated[
        bool,
        typer.Option(
            "--labels",
            help="IN holds labels: no value between two labels is made up, names are kept, and OUT may be .seg.nrrd, "
            "or .dcm with --like a DICOM image.",
        ),
    ] = False,
    interpolate: Annotated[
        bool, typer.Option("--interpolate", help="Fill missing or unevenly spaced DICOM slices by interpolation.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write an image or labels in another format, or on another grid.

    --series and --frame choose one series of a DICOM folder and one frame of a 4D file.
    """
    from napari_medtransformer.cli.messages import say, say_json
    from napari_medtransformer.files import file_to_write
    from napari_medtransformer.volumes import read_label_names, write_labels, write_volume
    from napari_medtransformer.volumes.reading import existing
    from napari_medtransformer.volumes.writing import LABEL_SUFFIXES, WRITABLE_SUFFIXES, writable_path

    if resample is not None and like is not None:
        raise UnsupportedVolume("--resample and --like name two grids; give one of them.")
    spacing = _spacing(resample)
    if labels and (series is not None or frame is not None or interpolate):
        raise UnsupportedVolume("--series, --frame and --interpolate are for images; leave them out with --labels.")
    source = existing(input_path)
    if file_to_write(output).exists() and output.samefile(source):
        raise CannotWrite(f"{output} is the image itself and was left as it is. Choose another name.")
    volume = read_label_input(input_path) if labels else read_input(input_path, series, frame, interpolate=interpolate)
    names = read_label_names(input_path) if labels else None
    target = None if like is None else read_input(like, frame=0)  # all frames lie on one grid
    # The result has no file behind it after resampling. Better now than after the work.
    written_on = target or (volume if resample is None else replace(volume, source=None))
    writable_path(output, written_on, LABEL_SUFFIXES if labels else WRITABLE_SUFFIXES)
    volume = _on_grid(volume, resample is not None, spacing, target, labels=labels)
    written = write_labels(volume.data, volume, output, names=names) if labels else write_volume(volume, output)
    if as_json:
        say_json(
            {
                "input": str(input_path),
                "output": str(written),
                "shape_zyx": list(volume.shape),
                "spacing_zyx_mm": list(volume.spacing),
                "modality": volume.modality,
                "type": str(volume.data.dtype),
            }
        )
    else:
        voxels, steps = (" × ".join(f"{n:.4g}" for n in numbers) for numbers in (volume.shape, volume.spacing))
        say(f"{written}: {voxels} voxels of {steps} mm (z, y, x), {volume.data.dtype}")


def _spacing(text: str | None) -> float | None:
    """Millimetres as typed; None for 'iso'. Raises UnsupportedVolume."""
    if text is None or text.lower() == "iso":
        return None
    try:
        spacing = float(text)
    except ValueError:
        spacing = math.nan
    if not (math.isfinite(spacing) and spacing > 0):
        raise UnsupportedVolume(f"--resample {text!r} is no spacing; write iso, or millimetres above 0 as in 1.5")
    return spacing


def _on_grid(volume: Volume, isotropic: bool, spacing: float | None, like: Volume | None, *, labels: bool) -> Volume:
    from napari_medtransformer.volumes import resample_isotropic, resample_onto

    if like is not None:
        return resample_onto(volume, like, labels=labels)
    return resample_isotropic(volume, spacing, labels=labels) if isotropic else volume
