"""What `medtransformer inspect` draws and counts beyond one site: shares per label, matrix, rollout, positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_medtransformer.cli.reading import check_grid, read_label_input

if TYPE_CHECKING:
    import numpy as np

    from napari_medtransformer.attention.probe import ProbedModel
    from napari_medtransformer.attention.sites import AttentionSite
    from napari_medtransformer.inspection.queries import Answer, Inspection, Query
    from napari_medtransformer.models.base import PromptableModel, Prompts
    from napari_medtransformer.volumes import Volume

LabelsOption = Annotated[
    Path | None,
    typer.Option(
        "--labels", metavar="FILE", help="Labels of the same image, for --shares and --ask-label.", show_default=False
    ),
]
AskLabel = Annotated[
    int | None,
    typer.Option(
        "--ask-label",
        metavar="N",
        help="Let a whole label ask instead of the voxel, in --shares, --matrix and --rollout.",
        show_default=False,
    ),
]
SharesOption = Annotated[
    Path | None,
    typer.Option(
        "--shares",
        metavar="FILE.csv",
        help="How the attention of every head is shared out among labels; of --site, or of all.",
        show_default=False,
    ),
]
MatrixOption = Annotated[
    Path | None,
    typer.Option("--matrix", metavar="FILE", help="Draw depth × heads: .png, .svg or .pdf.", show_default=False),
]
RolloutOption = Annotated[
    Path | None,
    typer.Option("--rollout", metavar="FILE", help="Draw attention rollout: .png, .svg or .pdf.", show_default=False),
]
PositionsOption = Annotated[
    Path | None,
    typer.Option(
        "--positions",
        metavar="FILE",
        help="Draw the model's first positional encoding: .png, .svg or .pdf.",
        show_default=False,
    ),
]


@dataclass(frozen=True, eq=False)
class Extras:
    """What was asked for beyond one site, checked. labels: (z, y, x) integers on the image's grid."""

    labels: np.ndarray | None
    ask_label: int | None
    shares: Path | None
    matrix: Path | None
    rollout: Path | None
    positions: Path | None

    @property
    def wanted(self) -> bool:
        """Whether anything was asked for; then every site is recorded."""
        return any(path is not None for path in (self.shares, self.matrix, self.rollout, self.positions))


def check_extras(
    volume: Volume,
    labels: Path | None,
    ask_label: int | None,
    shares: Path | None,
    matrix: Path | None,
    rollout: Path | None,
    positions: Path | None,
    *,
    others: Sequence[Path | None] = (),
    on_slice: tuple[int, int] | None = None,
) -> Extras:
    """The same with the labels read. others: what else is written. on_slice: (axis, index) of the slice that a 2D model
    sees.

    Raises CannotWrite, InvalidOption, UnreadableFile and UnsupportedVolume.
    """
    from napari_medtransformer.errors import CannotWrite, InvalidOption, UnsupportedVolume
    from napari_medtransformer.files import file_to_write
    from napari_medtransformer.inspection.figure import figure_path

    files = [path.resolve() for path in (*others, shares, matrix, rollout, positions) if path is not None]
    twice = next((path for path in files if files.count(path) > 1), None)
    if twice is not None:
        raise CannotWrite(f"{twice.name} was given for two results; give each a name of its own.")
    for figure in (matrix, rollout, positions):
        if figure is not None:
            figure_path(figure)
    if shares is not None:
        if shares.suffix.lower() != ".csv":
            raise CannotWrite(f"{shares.name or shares} is no table of shares; use a name that ends in .csv.")
        file_to_write(shares)
    if labels is None and (shares is not None or ask_label is not None):
        raise UnsupportedVolume("--shares and --ask-label are about labels; give their file with --labels.")
    if ask_label is not None and shares is None and matrix is None and rollout is None:
        raise InvalidOption("--ask-label says who asks in --shares, --matrix and --rollout; give one of them.")
    if labels is not None and shares is None and ask_label is None:
        raise InvalidOption("--labels are for --shares and --ask-label; give one of them, or leave --labels out.")
    read = None if labels is None else read_label_input(labels)
    if read is not None and labels is not None:
        check_grid(read, volume, labels)
        if ask_label is not None:
            seen = read.data if on_slice is None else read.data.take(on_slice[1], on_slice[0])
            if not (seen == ask_label).any():
                where = "" if on_slice is None else f" on slice {on_slice[1]} of axis {on_slice[0]} of (z, y, x)"
                raise InvalidOption(f"no voxel of {labels.name} is labelled {ask_label}{where}; choose another label.")
    return Extras(None if read is None else read.data, ask_label, shares, matrix, rollout, positions)


def check_site(model: ProbedModel, site: str, token: int | None, *, drawn: bool) -> None:
    """Refuse a site that the model does not have, or that cannot answer as it is asked, before anything runs.

    drawn: whether maps of it are wanted. Raises UnknownSite and InvalidOption.
    """
    from napari_medtransformer.attention.probe import AttentionProbe
    from napari_medtransformer.errors import InvalidOption, UnknownSite

    AttentionProbe(model, [site])  # a probe refuses an unknown name before it is entered
    specs = {spec.name: spec for spec in model.attention_sites()}
    if token is not None and specs[site].queries.patch is not None:
        raise InvalidOption(f"in {site} the image asks, not the prompt tokens; leave --token out.")
    if drawn and specs[site].keys.patch is None:
        drawable = [name for name, spec in specs.items() if spec.keys.patch is not None]
        raise UnknownSite(
            f"site {site!r} attends to prompt tokens, which have no place in the image; draw one of "
            f"{', '.join(drawable)}."
        )


def check_token(model: PromptableModel, prompts: Prompts, token: int) -> None:
    """Refuse a prompt token that the decoder will not have. Raises QueryOutOfGrid."""
    from napari_medtransformer.errors import QueryOutOfGrid

    known = model.prompt_tokens(prompts)  # none where a family cannot tell before it runs
    if known and not 0 <= token < len(known):
        names = ", ".join(f"{number} {one.name}" for number, one in enumerate(known))
        raise QueryOutOfGrid(f"there is no prompt token {token}; there are: {names}.")


def write_extras(
    extras: Extras, inspection: Inspection, query_zyx: tuple[float, float, float], site: AttentionSite | None
) -> dict[str, Any]:
    """Write what was asked for; what `--json` tells about it. site: None for all, in the table of shares."""
    from napari_medtransformer.inspection.answering import ask
    from napari_medtransformer.inspection.export import answer_figure, answer_shares, write_table
    from napari_medtransformer.inspection.figure import write_figure
    from napari_medtransformer.inspection.gallery import draw_matrix, draw_positions
    from napari_medtransformer.inspection.matrix import head_matrix
    from napari_medtransformer.inspection.position_views import (
        CHANNELS,
        MOSAIC,
        position_view,
        shown_encodings,
        views_of,
    )
    from napari_medtransformer.inspection.queries import ROLLOUT

    told: dict[str, Any] = {}
    query = _query(extras, inspection, query_zyx)
    if extras.shares is not None or extras.matrix is not None:
        answers = _answers(inspection, query)
    if extras.shares is not None and extras.labels is not None:
        table: list[list[str]] = []
        for answer in answers:
            if site is None or answer.site == site.name:
                rows = answer_shares(inspection, answer, extras.labels, {})
                table += rows if not table else rows[1:]
        told["shares"] = write_table(table, extras.shares)
    if extras.matrix is not None:
        card = inspection.model.card.name
        text = (
            f"{card}, asked by {answers[0].asked}: every head of every site. Frames and numbers: entropy of the "
            "attention in nats. Each map is coloured from 0 to its own maximum."
        )
        figure = draw_matrix(inspection, answers, head_matrix(answers, "entropy"), text)
        told["matrix"] = write_figure(figure, extras.matrix)
    if extras.rollout is not None:
        drawn = answer_figure(inspection, ask(inspection, ROLLOUT, query), smooth=True)
        told["rollout"] = write_figure(drawn, extras.rollout)
    if extras.positions is not None:
        encoding = shown_encodings(inspection)[0]
        place: tuple[float, ...] = inspection.plane.in_slice(query_zyx)
        if answer_is_solid(inspection):
            place = query_zyx
        titles = [title for title in views_of(encoding) if title in (MOSAIC, CHANNELS)] or views_of(encoding)[:1]
        views = [(title, position_view(inspection, encoding, title, place)) for title in titles]
        figure = draw_positions(views, encoding, inspection.model.card.name)
        told["positions"] = write_figure(figure, extras.positions)
    return told


def answer_is_solid(inspection: Inspection) -> bool:
    """Whether answers are maps of the volume, not of a slice: the model sees three axes."""
    from napari_medtransformer.inspection.windows import VolumeInspection

    return isinstance(inspection, VolumeInspection) and inspection.is_solid


def _answers(inspection: Inspection, query: Query) -> list[Answer]:
    """What every site answers; a label asks an automatic model in all windows that hold it."""
    from napari_medtransformer.inspection.matrix import matrix_steps
    from napari_medtransformer.inspection.queries import RegionQuery, encoder_sites
    from napari_medtransformer.inspection.volume_queries import ask_everywhere_steps
    from napari_medtransformer.inspection.windows import VolumeInspection
    from napari_medtransformer.progress import run_to_end

    if isinstance(inspection, VolumeInspection) and isinstance(query, RegionQuery):
        names = [site.name for site in encoder_sites(inspection)]
        return run_to_end(ask_everywhere_steps(inspection, names, query))
    return run_to_end(matrix_steps(inspection, query))


def _query(extras: Extras, inspection: Inspection, query_zyx: tuple[float, float, float]) -> Query:
    from napari_medtransformer.inspection.queries import RegionQuery, VoxelQuery

    if extras.ask_label is None or extras.labels is None:
        return VoxelQuery(query_zyx)
    labels = extras.labels if answer_is_solid(inspection) else inspection.on_slice(extras.labels)
    return RegionQuery(f"label {extras.ask_label}", labels == extras.ask_label)
