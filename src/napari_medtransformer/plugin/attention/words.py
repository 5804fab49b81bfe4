"""What the Attention dock tells in words and thumbnails, and how a choice of who asks becomes a query."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medtransformer.errors import QueryOutOfGrid
from napari_medtransformer.plugin.attention.head_grid import Tile
from napari_medtransformer.plugin.planes import PLANES

if TYPE_CHECKING:
    from napari_medtransformer.inspection import SliceInspection
    from napari_medtransformer.inspection.queries import Answer, Query
    from napari_medtransformer.plugin.attention.state import AttentionState

ROLLOUT = "rollout"


def query_line(state: AttentionState) -> str:
    """What asks: the voxel, where it is in the patient, its intensity."""
    controller = state.controller
    if state.query is None or controller.workspace is None:
        return "Nothing asked yet."
    volume, voxel = controller.workspace.volume, state.query.voxel
    x, y, z = volume.mm_from_zyx(voxel)
    unit = " HU" if volume.modality == "CT" else ""
    place = f"{PLANES[state.query.axis]} slice {voxel[state.query.axis]}"
    if state.asks != "voxel" and state.answer is not None:
        return f"{place} · {state.answer.asked}"
    called = getattr(state.inspection, "label", "")
    seen = f"\n{state.inspection.model.card.name} calls it {called}" if called else ""
    side = f"{_side(x, 'R', 'L')} {_side(y, 'A', 'P')} {_side(z, 'S', 'I')} mm"
    return f"{place} · {_voxel(voxel)}\n{side} · {volume.data[voxel]:.5g}{unit}{seen}"


def numbers_line(state: AttentionState) -> str:
    """The chosen map in numbers; empty while the newest answer is of another slice than what asks."""
    answer = state.answer
    if answer is None or not state.is_about_this_slice(state.seen):
        return ""
    told = [f"{answer.site} · {head_title(state.head, answer.site)}"]
    if state.head.isdigit():
        place = int(state.head)
        if np.isfinite(answer.entropy_nats[place]):
            keys = state.inspection.captured(answer.site).call.k_shape[2] if answer.site != ROLLOUT else 1
            told.append(f"entropy {answer.entropy_nats[place]:.2f} nats (even: {float(np.log(keys)):.2f})")
        if np.isfinite(answer.distance_mm[place]):
            told.append(f"mean distance {answer.distance_mm[place]:.0f} mm")
    share = target_share(state, state.head)
    if share is not None:
        even = float(state.target_mask().mean())
        told.append(f"{_share(share)} on {state.target_organ.name} ({share / even:.1f} times an even share)")
    told.append(f"peak {_share(_highest(answer, state.head))} {_peak_place(answer.peak(state.head), state.where)}")
    return " · ".join(told)


def _highest(answer: Answer, name: str) -> float:
    """The highest value of a map; of what all tokens give, as a share of that."""
    from napari_medtransformer.inspection.queries import EverythingQuery, one_map

    one = one_map(answer.whole, name)
    highest = float(one.values.max())
    if not isinstance(answer.query, EverythingQuery):
        return highest
    return highest / max(float(one.values.sum() + one.prefix_mass[0] + one.padding_mass[0]), 1e-12)


def _peak_place(peak: tuple[float, ...] | None, where: tuple[int, int]) -> str:
    if peak is None:
        return "in the padding"
    return f"at {_voxel([round(float(p)) for p in (peak if len(peak) == 3 else np.insert(peak, *where))])}"


def target_share(state: AttentionState, name: str) -> float | None:
    """The share of a map's attention on the organ that is looked at; None without one on this slice."""
    from napari_medtransformer.inspection.queries import one_map
    from napari_medtransformer.inspection.shares import share_inside

    mask = state.target_mask()
    if mask is None or state.answer is None:
        return None
    return float(share_inside(one_map(state.answer.whole, name), mask)[0])


def obstacle_of(state: AttentionState) -> str:
    """Why there is nothing to show, and what to do about it; empty if there is something."""
    controller = state.controller
    if state.inspected.obstacle:
        return state.inspected.obstacle
    if controller.workspace is None or (controller.model is None and not state.inspected.is_automatic):
        return controller.obstacle or "The model is loading…"
    if state.seen is None:
        busy = state.query is not None and controller.queue.pending
        return "Looking inside…" if busy else "Click a voxel: what every head attends to from there appears here."
    return ""


def tiles(state: AttentionState) -> list[Tile]:
    """The thumbnails, heads first."""
    answer = state.answer
    if answer is None:
        return []
    tiles = []
    for name in answer.names:
        title = tip = head_title(name, answer.site)
        if name.isdigit():
            entropy, distance = answer.entropy_nats[int(name)], answer.distance_mm[int(name)]
            if np.isfinite(entropy):
                title, tip = f"{name} · {entropy:.1f} nats", f"{tip}: entropy {entropy:.2f} nats"
            tip += f", on average {distance:.0f} mm away" if np.isfinite(distance) else ""
        tiles.append(Tile(name, title, tip, state.seen.pictures[name], mark_of(state)))
    return tiles


def mark_of(state: AttentionState) -> tuple[float, float] | None:
    """Where what asks lies in a thumbnail, (row, column) in [0, 1]."""
    answer, inspection = state.answer, state.inspection
    if answer is None or answer.mark_yx is None:
        return None
    y, x = ((c + 0.5) / n for c, n in zip(answer.mark_yx, inspection.image.shape, strict=True))
    return (1 - y, x) if state.upside_down else (y, x)


def query_maker(state: AttentionState) -> Callable[[SliceInspection], Query]:
    """How the worker makes the query once the slice is inspected; holds nothing of the window."""
    asks, position, wanted = state.asks, state.query.position_zyx, state.prompt_index
    organ = state.asking_organ
    region = state.organ_mask(organ) if asks == "organ" and organ is not None else None
    organ_name = "" if organ is None else organ.name

    def make(inspection: SliceInspection) -> Query:
        from napari_medtransformer.inspection import queries

        if asks == "prompt" and inspection.tokens:
            known = {query.index: query for query in queries.prompt_queries(inspection)}
            return known.get(wanted, queries.default_prompt_query(inspection))
        if asks == "organ" and organ is not None:
            if region is None:
                raise QueryOutOfGrid(f"{organ_name} has no pixel on this slice; choose another slice or organ.")
            return queries.RegionQuery(organ_name, region)
        if asks == "everything":
            return queries.EverythingQuery()
        if asks == "prefix":
            return queries.PrefixQuery()
        return queries.VoxelQuery(position)

    return make


def head_title(name: str, site: str = "") -> str:
    """A head or a summary of all as people call it. site: a rollout has no heads of its own."""
    if site == ROLLOUT:
        return "All heads"
    return f"Head {name}" if name.isdigit() else name.capitalize()


def _share(share: float) -> str:
    """In per cent; small ones with a decimal."""
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _side(mm: float, positive: str, negative: str) -> str:
    return f"{positive if mm >= 0 else negative} {abs(mm):.0f}"


def _voxel(zyx: Any) -> str:
    return "z {}, y {}, x {}".format(*zyx)
