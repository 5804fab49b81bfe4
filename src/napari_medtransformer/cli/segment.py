"""`medtransformer segment`: one volume or a folder of them, by an automatic model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_medtransformer.cli.options import AsJson, Device, Dtype, Frame, Series, WeightsOption
from napari_medtransformer.cli.reading import check_grid, read_input, read_label_input

if TYPE_CHECKING:
    from napari_medtransformer.segmentation.batch import BatchReport
    from napari_medtransformer.segmentation.work import Errand, Job

DEFAULT_AUTOMATIC = "medt-hippocampus"
_AXES = "zyx"


def segment(
    input_path: Annotated[
        Path, typer.Argument(metavar="FILE|FOLDER", help="A volume, or a folder of volumes.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUT", help="A file such as labels.nii.gz, or a folder for labels."),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|FILE.json",
            help="An automatic model that `medtransformer models` lists, or the card of one that you trained.",
        ),
    ] = DEFAULT_AUTOMATIC,
    series: Series = None,
    frame: Frame = None,
    weights: WeightsOption = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", metavar="ADDRESS", help="A dask scheduler; its workers see the same folders."),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Processes of this machine that share the work.")
    ] = 1,
    overlap: Annotated[float, typer.Option("--overlap", help="Share of a window that the next one covers too.")] = 0.25,
    mirror: Annotated[
        str,
        typer.Option(
            "--mirror",
            metavar="AXES",
            help="Also show windows mirrored, as in x; only along axes that the model was trained with.",
            show_default=False,
        ),
    ] = "",
    plane: Annotated[
        str, typer.Option("--plane", metavar="0|1|2|all", help="Which slices a 2D model sees; all votes.")
    ] = "0",
    whole: Annotated[bool, typer.Option("--whole", help="The whole volume as one window, if memory allows.")] = False,
    region: Annotated[
        str | None,
        typer.Option("--region", metavar="I0,J0,K0,I1,J1,K1", help="Label nothing outside this box, half-open."),
    ] = None,
    uncertainty: Annotated[
        Path | None,
        typer.Option("--uncertainty", metavar="FILE", help="Also write the entropy; a folder where IN is one."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", metavar="FILE", help="Labels to compare with: Dice, HD95, surface Dice."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Segment a volume, or every volume of a folder.

    Labels are written on each image's own grid. With a folder, what is finished is skipped when the command is given
    again, failures are listed in failures.csv and the rest goes on, and summary.csv holds the millilitres of every
    structure.
    """
    from napari_medtransformer.cli.messages import say_warning
    from napari_medtransformer.errors import CannotWrite, InvalidOption, UnsupportedModel
    from napari_medtransformer.models import find_card
    from napari_medtransformer.segmentation.cases import find_cases
    from napari_medtransformer.volumes.ome_zarr import is_ome_zarr
    from napari_medtransformer.volumes.reading import existing
    from napari_medtransformer.volumes.writing import LABEL_SUFFIXES

    card = find_card(model)
    if card.task != "automatic":
        raise UnsupportedModel(f"{card.name} waits for clicks; choose an automatic model, such as {DEFAULT_AUTOMATIC}")
    options = {
        "overlap": overlap,
        "mirror": _mirrored(mirror),
        "plane": _plane(plane),
        "whole": whole,
        "dtype": dtype,
        "uncertainty": uncertainty is not None,
    }
    if card.dimensions == 3 and options["plane"] != 0:
        raise InvalidOption(f"--plane is for 2D models; {card.name} sees three axes, so leave it out")
    source = existing(input_path)
    one_file = output.name.lower().endswith(LABEL_SUFFIXES) and not output.is_dir()
    many = source.is_dir() and not one_file and not is_ome_zarr(source)
    if many and (region or reference):
        raise InvalidOption("--region and --reference belong to one volume, and a folder was given")
    if not (many or one_file or output.is_dir()) and output.suffix:
        raise CannotWrite(
            f"{output.name} has no suffix that can be written; use {', '.join(LABEL_SUFFIXES)}, or a folder's name"
        )
    if uncertainty is not None:
        _check_distinct(output, "labels", uncertainty, "their uncertainty")
    if many and (series or frame is not None):
        raise InvalidOption("--series and --frame choose in one volume; of a folder every series is segmented")
    if not many:
        chosen = (series, frame)
        _one(
            card, source, chosen, output, one_file, weights, device, options, region, uncertainty, reference, cluster,
            as_json,
        )  # fmt: skip
        return

    from napari_medtransformer.files import folder_to_write
    from napari_medtransformer.models.devices import choose_device
    from napari_medtransformer.segmentation.work import Errand, job_for

    if cluster is None:
        choose_device(device)  # better now than in every case
    folder = folder_to_write(output)
    maps = None if uncertainty is None else folder_to_write(uncertainty)
    for given in (folder, maps):
        if given is not None and given.resolve() == source.resolve():
            raise CannotWrite(f"{given} holds the images; choose another folder for what is made of them")
    errands = [
        Errand(
            case,
            folder / f"{case.name}.nii.gz",
            None if maps is None else maps / f"{case.name}.nii.gz",
        )
        for case in find_cases(source, [one for one in (folder, maps) if one is not None])
    ]
    report = _run(errands, job_for(card, weights, device, options), folder, jobs, cluster)
    for done in report.done:
        for message in done.messages:
            say_warning(f"{done.name}: {message}")
    _tell_batch(report, folder, as_json)
    if report.failed:
        _end_with_failures(report, folder)


def _one(
    card: Any,
    source: Path,
    chosen: tuple[str | None, int | None],
    output: Path,
    one_file: bool,
    weights: str | None,
    device: str,
    options: dict[str, Any],
    region: str | None,
    uncertainty: Path | None,
    reference: Path | None,
    cluster: str | None,
    as_json: bool,
) -> None:
    """One volume: nothing but its labels is written."""
    from napari_medtransformer.cli.messages import run_with_progress, say, say_json, say_warning
    from napari_medtransformer.errors import CannotWrite
    from napari_medtransformer.files import folder_to_write
    from napari_medtransformer.segmentation.cases import single_case
    from napari_medtransformer.segmentation.work import (
        Errand,
        check_ours,
        elsewhere,
        errand_steps,
        is_ours,
        job_for,
        run_errand,
    )
    from napari_medtransformer.volumes.writing import WRITABLE_SUFFIXES, writable_path

    series, frame = chosen
    case = single_case(source, series=series, frame=frame)
    target = output if one_file else folder_to_write(output) / f"{case.name}.nii.gz"
    errand = Errand(case, target, uncertainty, reference)
    # better now than after the work
    if not one_file and target.exists():
        if not is_ours(errand):
            raise CannotWrite(
                f"{target} is there already and not from a batch; give its name after -o to replace it, or choose "
                "another folder"
            )
        check_ours(errand)
    if uncertainty is not None:
        _check_distinct(target, "labels", uncertainty, "their uncertainty")
    for path in (target, uncertainty):
        if reference is not None and path is not None:
            _check_distinct(reference, "the reference", path, "what is written")
    volume = read_input(source, series, frame)
    writable_path(target, volume)
    if uncertainty is not None:
        writable_path(uncertainty, volume, WRITABLE_SUFFIXES)
    if reference is not None:
        check_grid(read_label_input(reference), volume, reference)
    if region is not None:
        options["region"] = _region(region, volume)
    job = job_for(card, weights, device, options, recorded=False)
    if cluster is None:
        done = run_with_progress(errand_steps(job, errand), f"segmenting {case.name}")
    else:
        from napari_medtransformer.cluster import connect

        with connect(cluster) as there:
            done = there.call(run_errand, *elsewhere(job, errand))
        for message in done.messages:
            say_warning(message)
    summary: dict[str, Any] = {
        "input": str(source),
        "output": str(target),
        "model": card.name,
        "volumes_ml": done.volumes_ml,
        "messages": list(done.messages),
    }
    if reference is not None:
        summary["agreement"] = [
            {"name": s.label.name, "dice": s.dice, "hd95_mm": s.hd95_mm, "surface_dice": s.surface_dice}
            for s in done.scores
        ]
    if as_json:
        say_json(summary)
        return
    found = ", ".join(f"{name} {ml:.2f} ml" for name, ml in done.volumes_ml.items() if ml) or "nothing found"
    say(f"{target}: {found} ({card.name})")
    for score in done.scores:
        say(
            f"{score.label.name}: Dice {score.dice:.3f}, HD95 {score.hd95_mm:.2f} mm, "
            f"surface Dice {score.surface_dice:.3f} at 1 mm"
        )


def _check_distinct(one: Path, what: str, other: Path, other_what: str) -> None:
    from napari_medtransformer.errors import CannotWrite

    if one.resolve() == other.resolve():
        raise CannotWrite(f"{one} cannot be {what} and {other_what} at once; give two names")


def _run(errands: list[Errand], job: Job, folder: Path, jobs: int, cluster: str | None) -> BatchReport:
    """The batch, here or on a cluster; what is finished stays when the user interrupts."""
    from napari_medtransformer.cli.messages import Interrupted, run_with_progress
    from napari_medtransformer.cluster import connect
    from napari_medtransformer.segmentation.batch import batch_steps

    try:
        if cluster is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what matters is in the messages, told with their case
                return run_with_progress(batch_steps(errands, job, folder, jobs=jobs), "segmenting")
        with connect(cluster) as there:
            return run_with_progress(batch_steps(errands, job, folder, cluster=there), "segmenting")
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; finished labels stay in {folder}, and the same command goes on from there"
        ) from None


def _tell_batch(report: BatchReport, folder: Path, as_json: bool) -> None:
    from napari_medtransformer.cli.messages import say, say_json
    from napari_medtransformer.segmentation.batch import SUMMARY

    if as_json:
        say_json(
            {
                "folder": str(folder),
                "done": [
                    {
                        "case": one.name,
                        "input": one.input,
                        "output": one.output,
                        "volumes_ml": one.volumes_ml,
                        "done_before": one.skipped,
                        "messages": list(one.messages),
                    }
                    for one in report.done
                ],
                "failed": [{"case": one.name, "input": one.input, "error": one.error} for one in report.failed],
            }
        )
        return
    before = sum(one.skipped for one in report.done)
    again = f", {before} of them before" if before else ""
    say(f"{folder}: {len(report.done)} done{again}, {len(report.failed)} failed; {folder / SUMMARY}")


def _end_with_failures(report: BatchReport, folder: Path) -> None:
    from napari_medtransformer.cli.messages import say_error
    from napari_medtransformer.segmentation.batch import FAILURES

    total = len(report.done) + len(report.failed)
    first = report.failed[0]
    say_error(f"{len(report.failed)} of {total} cases failed, see {folder / FAILURES}; {first.name}: {first.error}")
    raise typer.Exit(2)


def _mirrored(text: str) -> tuple[int, ...]:
    from napari_medtransformer.errors import InvalidOption

    if not set(text) <= set(_AXES) or len(set(text)) != len(text):
        raise InvalidOption(f"--mirror {text!r} names no axes; write some of z, y and x, such as zy")
    return tuple(_AXES.index(letter) for letter in text)


def _plane(text: str) -> int | str:
    from napari_medtransformer.cli.coordinates import parse_axis

    return "all" if text == "all" else parse_axis(text, "--plane", ", or all")


def _region(text: str, volume: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A box in the file's own order as (start, stop) in (z, y, x), half-open."""
    import numpy as np

    from napari_medtransformer.errors import InvalidOption

    try:
        numbers = np.array([int(part) for part in text.split(",")]).reshape(2, 3)
    except ValueError:
        raise InvalidOption(f"--region {text!r} is no box; write whole numbers I0,J0,K0,I1,J1,K1") from None
    low, high = np.sort(numbers, axis=0)
    if np.any(low == high):
        raise InvalidOption(f"--region {text!r} is empty; boxes are half-open, so each stop lies beyond its start")
    if np.any(low < 0) or np.any(high > volume.grid.shape):
        i, j, k = volume.grid.shape
        raise InvalidOption(
            f"--region {text!r} leaves {volume.grid.path.name}, which reaches from 0,0,0 to {i},{j},{k}"
        )
    edges = np.sort(volume.grid.zyx_from_file_index(numbers - 0.5), axis=0) + 0.5
    start, stop = (tuple(round(float(c)) for c in corner) for corner in edges)
    return start, stop
