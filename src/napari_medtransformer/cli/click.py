"""`medtransformer click`: segment one object from points and boxes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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

if TYPE_CHECKING:
    from napari_medtransformer.prompting import PromptSession


def click(
    input_path: InputPath,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="Where the labels go, such as labels.nii.gz.")
    ],
    model: ModelName = DEFAULT_MODEL,
    point: Annotated[
        list[str] | None,
        typer.Option(
            "--point",
            "-p",
            metavar="I,J,K[,0|1]",
            help="A click: 1 inside the object (default), 0 outside. Repeatable.",
        ),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option("--box", "-b", metavar="I0,J0,K0,I1,J1,K1", help="A box on one slice, half-open. Repeatable."),
    ] = None,
    axis: Axis = "0",
    propagate: Annotated[bool, typer.Option("--propagate", help="Follow the object from slice to slice.")] = False,
    mm: Millimetres = False,
    series: Series = None,
    frame: Frame = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    weights: WeightsOption = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster", metavar="ADDRESS", help="A dask scheduler whose workers answer, such as tcp://box:8786."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Segment an object from your points and boxes.

    It is written as label 1 on the image's own grid. Coordinates are voxel indices in the file's own order, counted
    from 0, as nibabel and ITK-SNAP show them.
    """
    from napari_medtransformer.cli.coordinates import box_zyx, parse_axis, parse_box, parse_point, point_zyx
    from napari_medtransformer.cli.messages import run_with_progress, say, say_json, say_warning
    from napari_medtransformer.errors import InvalidPrompt
    from napari_medtransformer.models import find_card
    from napari_medtransformer.volumes import write_labels
    from napari_medtransformer.volumes.writing import writable_path

    slice_axis = parse_axis(axis)
    points = [parse_point(text) for text in point or []]
    boxes = [parse_box(text) for text in box or []]
    if not points and not boxes:
        raise InvalidPrompt(
            "nothing says where the object is; give at least one --point I,J,K or --box I0,J0,K0,I1,J1,K1"
        )
    card = find_card(model)
    volume = read_input(input_path, series, frame)
    writable_path(output, volume)  # better now than after the work
    points_zyx = [(point_zyx(typed, volume, mm=mm), typed.positive) for typed in points]
    boxes_zyx = [box_zyx(typed, volume, slice_axis, mm=mm) for typed in boxes]

    # torch is loaded only now, when every word of the user's makes sense.
    from napari_medtransformer.cli.loading import load
    from napari_medtransformer.prompting import PromptSession

    network = load(card, weights, device, dtype)
    session = PromptSession(network, volume)
    with nullcontext() if cluster is None else _on_cluster(session, cluster):
        for start, stop in boxes_zyx:
            session.add_box(start, stop, object_id=1, axis=slice_axis)
        for position, positive in points_zyx:
            session.add_point(position, positive=positive, object_id=1, axis=slice_axis)
        if propagate:
            session.accept_propagation(run_with_progress(session.propagation_steps(object_id=1), "propagating"))
        place = session.place
    labels = session.labels
    voxels = int((labels == 1).sum())
    if voxels == 0:
        say_warning(f"{card.name} found nothing under these prompts; the labels are empty")
    written = write_labels(labels, volume, output)

    slices = sorted({int(index) for index in labels.nonzero()[slice_axis]})
    dz, dy, dx = volume.spacing
    summary: dict[str, Any] = {
        "input": str(input_path),
        "output": str(written),
        "model": card.name,
        "device": str(network.device),
        "place": place,
        "axis": slice_axis,
        "slices": slices,
        "voxels": voxels,
        "millilitres": voxels * dz * dy * dx / 1000,
    }
    if as_json:
        say_json(summary)
    else:
        many = f"{len(slices)} slices" if len(slices) != 1 else "1 slice"
        where = network.device if place == "here" else place
        say(f"{written}: {voxels} voxels on {many}, {summary['millilitres']:.1f} ml ({card.name}, {where})")


@contextmanager
def _on_cluster(session: PromptSession, address: str) -> Iterator[None]:
    """Have a cluster's workers answer inside; where it is lost, the session goes on here and says so.

    Raises ClusterUnreachable.
    """
    from napari_medtransformer.cli.messages import say_warning
    from napari_medtransformer.cluster import connect
    from napari_medtransformer.prompting.remote import RemoteModel

    with connect(address) as there:
        remote = RemoteModel(session.model, there, on_state=say_warning)
        session.use(remote)
        try:
            yield
        finally:
            session.use(None)
            remote.close()
