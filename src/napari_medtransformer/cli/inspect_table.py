"""The table of `medtransformer inspect`: every head of every site, for people, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_medtransformer.inspection.heads import HeadReport
    from napari_medtransformer.inspection.queries import Inspection
    from napari_medtransformer.volumes import Volume

TABLE_SUFFIXES = (".csv", ".json")


def write_table(reports: list[HeadReport], inspection: Inspection, output: Path) -> None:
    """Write the table as .csv, or as .json. Raises CannotWrite."""
    from napari_medtransformer.files import replacing

    volume = inspection.volume
    if output.suffix.lower() == ".json":
        text = json.dumps(as_sites(reports, inspection, volume), indent=2) + "\n"
    else:
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(
            ["site", "kind", "head", "row_sum", "entropy_nats", "distance_mm", "top_i", "top_j", "top_k", "top_share"]
        )
        for report in reports:
            top = ["", "", ""] if report.top_zyx is None else file_index(report.top_zyx, volume)
            distance = "" if report.distance_mm is None else report.distance_mm
            writer.writerow(
                [
                    report.site,
                    report.kind,
                    report.head,
                    report.row_sum,
                    report.entropy,
                    distance,
                    *top,
                    report.top_share,
                ]
            )
        text = table.getvalue()
    with replacing(output) as stream:
        stream.write(text.encode())


def file_index(zyx: tuple[float, float, float], volume: Volume) -> list[float]:
    """(z, y, x) voxels as the file's own (i, j, k), to a thousandth."""
    from napari_medtransformer.cli.coordinates import as_file_index

    return [round(c, 3) for c in as_file_index(zyx, volume)]


def as_sites(reports: list[HeadReport], inspection: Inspection, volume: Volume) -> list[dict[str, Any]]:
    """The reports by site, coordinates in the file's own order."""
    sites = []
    reported = {report.site for report in reports}
    for site in (site for site in inspection.sites if site.name in reported):
        heads = []
        for report in (report for report in reports if report.site == site.name):
            values = asdict(report)
            for key in ("site", "kind", "top_zyx"):
                del values[key]
            values["top"] = None if report.top_zyx is None else file_index(report.top_zyx, volume)
            heads.append(values)
        sites.append(
            {
                "name": site.name,
                "kind": site.kind,
                "queries": list(site.query_grid.shape),
                "keys": list(site.key_grid.shape),
                "kernel": inspection.probe.kernel(site),
                "heads": heads,
            }
        )
    return sites


def print_table(reports: list[HeadReport], inspection: Inspection, volume: Volume) -> None:
    """Print the table for people."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from napari_medtransformer.cli.messages import console

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("site", no_wrap=True)
    table.add_column("head", justify="right")
    table.add_column("entropy\n(nats)", justify="right")
    table.add_column("distance\n(mm)", justify="right")
    table.add_column("attends most to\nvoxel (i, j, k)", justify="right")
    table.add_column("with\n(%)", justify="right")
    placed = {site.name: site.key_grid.has_place for site in inspection.sites}
    last = None
    for report in reports:
        if report.site != last and last is not None:
            table.add_section()
        name = report.site if report.kind in report.site else f"{report.site}, {report.kind}"
        if report.top_zyx is None:
            top = "padding" if placed[report.site] else "–"
        else:
            top = ", ".join(f"{c:.0f}" for c in file_index(report.top_zyx, volume))
        table.add_row(
            *(name if report.site != last else "", str(report.head)),
            f"{report.entropy:.2f}",
            "–" if report.distance_mm is None else f"{report.distance_mm:.0f}",
            top,
            f"{100 * report.top_share:.1f}",
        )
        last = report.site
    console().print(table)
