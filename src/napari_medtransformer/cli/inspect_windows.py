"""`medtransformer inspect` with an automatic model: its windows that hold the voxel, stitched, in three axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_medtransformer.cli.inspect_more import Extras
    from napari_medtransformer.inspection.heads import HeadReport
    from napari_medtransformer.inspection.queries import Answer
    from napari_medtransformer.inspection.windows import VolumeInspection
    from napari_medtransformer.models import ModelCard
    from napari_medtransformer.models.base import AutomaticModel
    from napari_medtransformer.volumes import Volume


def check_output(output: Path | None, token: int | None) -> None:
    """Refuse what only a model that answers prompts can give. Raises CannotWrite and UnknownSite."""
    from napari_medtransformer.errors import CannotWrite, UnknownSite

    if token is not None:
        raise UnknownSite("an automatic model has no prompt tokens; leave --token out.")
    if output is not None and output.name.lower().endswith(".npz"):
        raise CannotWrite(
            "rows of an automatic model belong to one of several windows; write the stitched heatmaps (.nii.gz) or the "
            "table (.csv, .json)."
        )


def load_automatic(card: ModelCard, weights: str | None, device: str, dtype: str) -> AutomaticModel:
    """The automatic model of a card, with a bar for a download. Raises what load_model raises."""
    from napari_medtransformer.cli.loading import download_bar
    from napari_medtransformer.models import load_model

    with download_bar(card.name) as on_progress:
        # the registry's signature names what most callers want; this card is of the other kind
        loaded: Any = load_model(card, weights, device, dtype=dtype, on_progress=on_progress)
    model: AutomaticModel = loaded
    return model


def inspect_automatic(
    model: AutomaticModel, volume: Volume, query_zyx: tuple[float, float, float], axis: int, sites: Sequence[str] | None
) -> tuple[VolumeInspection, list[HeadReport]]:
    """Run the windows that hold the voxel, and tell what every head of every site does there."""
    from napari_medtransformer.inspection.answering import ask
    from napari_medtransformer.inspection.queries import VoxelQuery
    from napari_medtransformer.inspection.windows import inspect_windows
    from napari_medtransformer.segmentation.window_plan import plan_windows

    inspection = inspect_windows(plan_windows(model, volume, plane=axis), query_zyx, axis, sites=sites)
    reports: list[HeadReport] = []
    for site in inspection.sites:
        reports += _reports(inspection, ask(inspection, site.name, VoxelQuery(query_zyx)))
    return inspection, reports


def _reports(inspection: VolumeInspection, answer: Answer) -> list[HeadReport]:
    from napari_medtransformer.inspection.heads import HeadReport

    found, whole = [], answer.whole
    for name in answer.heads:
        head = int(name)
        values = whole.values[head]
        peak = answer.peak(name)
        top = peak if peak is None or len(peak) == 3 else inspection.plane.in_volume((peak[0], peak[1]))
        distance = float(answer.distance_mm[head])
        found.append(
            HeadReport(
                site=answer.site,
                kind=answer.kind,
                head=head,
                row_sum=float(values.sum() + whole.prefix_mass[head] + whole.padding_mass[head]),
                entropy=float(answer.entropy_nats[head]),
                distance_mm=distance if distance == distance else None,  # nan: no distance
                top_zyx=None if top is None else (top[0], top[1], top[2]),
                top_share=float(values.max()),
            )
        )
    return found


def write_automatic(
    inspection: VolumeInspection,
    site: str,
    query_zyx: tuple[float, float, float],
    reports: list[HeadReport],
    output: Path | None,
    figure: Path | None,
    extras: Extras,
    *,
    alone: bool,
) -> dict[str, Any]:
    """Write what was asked for: maps on the volume's grid or the table, a figure of the slice, and the extras.

    site: whose maps and figure. alone: whether the table of shares is of that site, too, not of all.
    """
    from napari_medtransformer.cli.inspect_more import write_extras
    from napari_medtransformer.cli.inspect_table import write_table
    from napari_medtransformer.inspection.answering import ask
    from napari_medtransformer.inspection.export import answer_figure, answer_volume
    from napari_medtransformer.inspection.figure import write_figure
    from napari_medtransformer.inspection.queries import VoxelQuery
    from napari_medtransformer.volumes import write_heatmap

    answer = ask(inspection, site, VoxelQuery(query_zyx))
    if output is not None and output.name.lower().endswith((".csv", ".json")):
        write_table(reports, inspection, output)
    elif output is not None:
        write_heatmap(answer_volume(inspection, answer), inspection.volume, output)
    if figure is not None:
        write_figure(answer_figure(inspection, answer), figure)
    return {
        "label": inspection.label,
        **write_extras(extras, inspection, query_zyx, inspection.site(site) if alone else None),
    }
