"""`medtransformer inspect`: what every attention head attends to from a voxel, as numbers, maps and a figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_medtransformer.cli.inspect_more import (
    AskLabel,
    LabelsOption,
    MatrixOption,
    PositionsOption,
    RolloutOption,
    SharesOption,
    check_extras,
    check_site,
    check_token,
    write_extras,
)
from napari_medtransformer.cli.inspect_table import TABLE_SUFFIXES, as_sites, file_index, print_table, write_table
from napari_medtransformer.cli.inspect_windows import (
    check_output,
    inspect_automatic,
    load_automatic,
    write_automatic,
)
from napari_medtransformer.cli.options import (
    DEFAULT_MODEL,
    AsJson,
    Axis,
    Device,
    Dtype,
    Frame,
    InputPath,
    Millimetres,
    ModelName,
    Series,
    WeightsOption,
)
from napari_medtransformer.cli.reading import read_input
from napari_medtransformer.errors import UnsupportedModel

if TYPE_CHECKING:
    from napari_medtransformer.attention.sites import AttentionSite
    from napari_medtransformer.inspection import SliceInspection
    from napari_medtransformer.inspection.heads import HeadReport
    from napari_medtransformer.inspection.queries import Inspection
    from napari_medtransformer.volumes import Volume

ROWS_SUFFIX = ".npz"
PLANES = ("axial", "coronal", "sagittal")


def inspect(
    input_path: InputPath,
    query: Annotated[
        str, typer.Option("--query", "-q", metavar="I,J,K", help="The voxel that asks.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="Where the result goes: .nii.gz, .nii, .nrrd or .mha the site's heatmaps on the image's grid, heads "
            "last; .npz the attention rows of every site, of models that answer clicks; .csv or .json the table.",
            show_default=False,
        ),
    ] = None,
    model: ModelName = DEFAULT_MODEL,
    site: Annotated[
        str | None,
        typer.Option(
            "--site", metavar="NAME", help="One attention site, such as encoder.2; else all.", show_default=False
        ),
    ] = None,
    token: Annotated[
        int | None,
        typer.Option(
            "--token", metavar="N", help="Where prompt tokens ask, one of them; else their mean.", show_default=False
        ),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", metavar="FILE", help="Draw every head on the anatomy: .png, .svg or .pdf."),
    ] = None,
    labels: LabelsOption = None,
    ask_label: AskLabel = None,
    shares: SharesOption = None,
    matrix: MatrixOption = None,
    rollout: RolloutOption = None,
    positions: PositionsOption = None,
    axis: Axis = "0",
    mm: Millimetres = False,
    series: Series = None,
    frame: Frame = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    weights: WeightsOption = None,
    as_json: AsJson = False,
) -> None:
    """Show what every attention head attends to from a voxel.

    A slice is looked at, of a 3D model the volume. The voxel is also the click with which the decoder runs; of an
    automatic model, the windows that hold it run. Coordinates are voxel indices in the file's own order, from 0.
    Heatmaps and figure are of --site, or of the encoder's last site.
    """
    from napari_medtransformer.cli.coordinates import parse_axis, parse_query, point_zyx
    from napari_medtransformer.inspection.figure import figure_path
    from napari_medtransformer.models import find_card
    from napari_medtransformer.prompting.prompts import nearest_voxel

    slice_axis = parse_axis(axis)
    typed = parse_query(query)
    card = find_card(model)
    volume = read_input(input_path, series, frame)
    query_zyx = point_zyx(typed, volume, mm=mm)
    write = None if output is None else _writer(output, volume)
    if card.task == "automatic":
        check_output(output, token)
    elif card.dimensions == 3:
        raise UnsupportedModel(f"{card.name} answers clicks in 3D; look inside it from Python, with AttentionProbe.")
    if figure is not None:
        figure_path(figure)
    at = nearest_voxel(query_zyx[slice_axis])
    extras = check_extras(
        volume,
        labels,
        ask_label,
        shares,
        matrix,
        rollout,
        positions,
        others=(output, figure),
        on_slice=None if card.dimensions == 3 else (slice_axis, at),
    )

    # torch is loaded only now, when every word of the user's makes sense.
    from napari_medtransformer.cli.loading import load
    from napari_medtransformer.inspection import inspect_slice
    from napari_medtransformer.inspection.heads import report_heads
    from napari_medtransformer.prompting.predictor import make_prompts
    from napari_medtransformer.volumes.writing import WRITABLE_SUFFIXES

    if card.task == "automatic":
        only = None if site is None or extras.wanted else [site]
        automatic = load_automatic(card, weights, device, dtype)
        if site is not None:
            check_site(automatic, site, None, drawn=False)
        windows, reports = inspect_automatic(automatic, volume, query_zyx, slice_axis, only)
        chosen = windows.site(site) if site is not None else _default_site(windows)
        told = write_automatic(windows, chosen.name, query_zyx, reports, output, figure, extras, alone=site is not None)
        reports = [report for report in reports if site is None or report.site == site]
        _tell(as_json, reports, windows, query_zyx, told, input_path, output, figure)
        return
    network = load(card, weights, device, dtype)
    image_shape = tuple(n for other, n in enumerate(volume.shape) if other != slice_axis)
    in_slice = tuple(c for other, c in enumerate(query_zyx) if other != slice_axis)
    prompts = make_prompts((image_shape[0], image_shape[1]), points=[(in_slice[0], in_slice[1])])
    if token is not None:
        check_token(network, prompts, token)
    if site is not None:
        maps = output is not None and output.name.lower().endswith(WRITABLE_SUFFIXES)
        check_site(network, site, token, drawn=maps or figure is not None)
    inspection = inspect_slice(
        network,
        volume,
        slice_axis,
        at,
        prompts=prompts,
        sites=None if site is None or extras.wanted else [site],
    )
    shown = inspection.probe.site(site) if site is not None else _default_site(inspection)
    reports = report_heads(inspection, query_zyx, sites=None if site is None else [shown], token=token)
    if write is not None:
        write(inspection, shown, query_zyx, token, reports)
    if figure is not None:
        _draw(inspection, shown, query_zyx, token, reports, figure, card.name)
    told = write_extras(extras, inspection, query_zyx, None if site is None else shown)
    _tell(as_json, reports, inspection, query_zyx, told, input_path, output, figure)


def _tell(
    as_json: bool,
    reports: list[HeadReport],
    inspection: Inspection,
    query_zyx: tuple[float, float, float],
    told: dict[str, Any],
    input_path: Path,
    output: Path | None,
    figure: Path | None,
) -> None:
    """What was found, as a table for people or as JSON."""
    from napari_medtransformer.cli.messages import say_json

    model, volume = inspection.model, inspection.volume
    if not as_json:
        print_table(reports, inspection, volume)
        return
    say_json(
        {
            "input": str(input_path),
            "output": output,
            "figure": figure,
            "model": model.card.name,
            "device": str(model.device),
            "query": file_index(query_zyx, volume),
            "axis": inspection.plane.axis,
            **told,
            "sites": as_sites(reports, inspection, volume),
        }
    )


Writer = Callable[
    ["SliceInspection", "AttentionSite", tuple[float, float, float], "int | None", "list[HeadReport]"], None
]


def _writer(output: Path, volume: Volume) -> Writer:
    """What writes the result to `output`, by its suffix. Raises CannotWrite if it cannot be."""
    from napari_medtransformer.errors import CannotWrite
    from napari_medtransformer.files import file_to_write
    from napari_medtransformer.volumes.writing import WRITABLE_SUFFIXES, writable_path

    name = output.name.lower()
    if name.endswith(WRITABLE_SUFFIXES):
        writable_path(output, volume, WRITABLE_SUFFIXES)
        return lambda inspection, site, query, token, _: _write_heatmap(inspection, site, query, token, output)
    if not name.endswith((ROWS_SUFFIX, *TABLE_SUFFIXES)):
        raise CannotWrite(
            f"{output.name or output} has no suffix that can be written; use "
            f"{', '.join(WRITABLE_SUFFIXES)} for heatmaps, {ROWS_SUFFIX} for rows, "
            f"{' or '.join(TABLE_SUFFIXES)} for the table."
        )
    file_to_write(output)
    if name.endswith(ROWS_SUFFIX):
        return lambda inspection, _, query, token, __: _write_rows(inspection, query, token, output)
    return lambda inspection, _, __, ___, reports: write_table(reports, inspection, output)


def _default_site(inspection: Inspection) -> AttentionSite:
    """The last site at which the image attends to itself, or the last with a place."""
    placed = [site for site in inspection.sites if site.key_grid.has_place]
    return next((site for site in reversed(placed) if site.kind in ("global", "window")), placed[-1])


def _write_heatmap(
    inspection: SliceInspection,
    site: AttentionSite,
    query_zyx: tuple[float, float, float],
    token: int | None,
    output: Path,
) -> None:
    from napari_medtransformer.inspection.heads import site_heatmap
    from napari_medtransformer.volumes import write_heatmap

    heatmap = site_heatmap(inspection, site, query_zyx, token)
    write_heatmap(heatmap.on_volume(smooth=False), inspection.volume, output)


def _write_rows(
    inspection: SliceInspection, query_zyx: tuple[float, float, float], token: int | None, output: Path
) -> None:
    import numpy as np

    from napari_medtransformer.files import replacing
    from napari_medtransformer.inspection.heads import site_rows

    arrays: dict[str, Any] = {}
    for site in inspection.sites:
        found = site_rows(inspection, site, query_zyx, token)
        arrays[f"{site.name}.rows"] = found.rows
        arrays[f"{site.name}.keys"] = found.keys
    with replacing(output) as stream:
        np.savez_compressed(stream, **arrays)


def _draw(
    inspection: SliceInspection,
    site: AttentionSite,
    query_zyx: tuple[float, float, float],
    token: int | None,
    reports: list[HeadReport],
    figure: Path,
    model: str,
) -> None:
    from napari_medtransformer.inspection.figure import draw_heads, write_figure
    from napari_medtransformer.inspection.heads import site_heatmap
    from napari_medtransformer.volumes import apply_window

    volume, plane = inspection.volume, inspection.plane
    heatmap = site_heatmap(inspection, site, query_zyx, token)
    titles = []
    for report in (report for report in reports if report.site == site.name):
        distance = "" if report.distance_mm is None else f", {report.distance_mm:.0f} mm"
        titles.append(f"head {report.head}: {report.entropy:.1f} nats{distance}, top {100 * report.top_share:.1f} %")
    where = ", ".join(f"{c:g}" for c in file_index(query_zyx, volume))
    asks = "the voxel" if site.query_grid.has_place else "the prompt tokens of a click at the voxel"
    size = " × ".join(f"{s * mm:.1f}" for s, mm in zip(site.key_grid.scale, inspection.spacing_mm))
    caption = (
        f"{model}, site {site.name} ({site.kind}, {site.heads} heads, {inspection.probe.kernel(site)}): what each head "
        f"attends to from {asks} ({where}) of {volume.grid.path.name}, marked with a cross on the {PLANES[plane.axis]} "
        f"slice. Each head is coloured from 0 to its own maximum; tokens measure {size} mm; window "
        f"{volume.window.low:g} to {volume.window.high:g}. Titles: entropy of the head's row, mean distance of what it "
        f"attends to, and the largest share that one token gets."
    )
    rows, columns = plane.axes
    drawn = draw_heads(
        apply_window(plane.of(volume.data), volume.window),
        heatmap.on_slice(smooth=False),
        spacing_mm=inspection.spacing_mm,
        query=plane.in_slice(query_zyx),
        titles=titles,
        caption=caption,
        letters=(volume.direction_letters[rows], volume.direction_letters[columns]),
        upside_down=plane.upside_down,
    )
    write_figure(drawn, figure)
