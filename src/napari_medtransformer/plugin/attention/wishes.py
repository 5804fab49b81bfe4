"""What the worker is to find for the Attention dock, and asking it: the wishes hold nothing of the window."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari_medtransformer.plugin.attention.words import query_maker
from napari_medtransformer.plugin.notify import report
from napari_medtransformer.prompting.prompts import SliceKey

if TYPE_CHECKING:
    from napari_medtransformer.models.base import Prompts
    from napari_medtransformer.plugin.attention.head_maps import Seen, WindowWish, Wish
    from napari_medtransformer.plugin.attention.state import AttentionState

Show = Callable[["Seen", tuple[Any, ...]], None]
"""Takes what was found, and what it was found for: (model or session, axis, index, prompts)."""


def ask_slice(
    state: AttentionState,
    key: Any,
    seen_for: Any,
    show: Show,
    on_end: Callable[[], None] | None,
    *,
    pictured: bool,
) -> bool:
    """Ask the model that answers clicks; whether anything was asked. The slice is encoded unless it is known.

    key: what the present query is about. seen_for: what the newest answer is about. pictured: with thumbnails.
    """
    found = slice_wish(state, pictured)
    if found is None:
        return False
    from napari_medtransformer.plugin.attention import head_maps

    wish, prompts = found
    known = state.seen.inspection if state.seen is not None and (seen_for or ())[:3] == key else None
    same_prompts = known is not None and seen_for[3] == prompts
    state.controller.queue.submit(
        lambda: head_maps.look(wish, known, same_prompts),
        label="",
        key="attention",
        on_done=lambda seen: show(seen, (*key, prompts)),
        on_error=report,
        on_end=on_end,
    )
    return True


def ask_windows(state: AttentionState, key: Any, show: Show, on_end: Callable[[], None] | None) -> bool:
    """Ask the automatic model: its windows run unless they did; an organ asks in every window that holds it."""
    wish = window_wish(state)
    if wish is None:
        return False
    from napari_medtransformer.plugin.attention import head_maps

    known = None if state.seen is None else state.seen.inspection
    state.controller.queue.submit_steps(
        lambda: head_maps.look_steps(wish, known),
        label="Looking inside…",
        key="attention",
        on_done=lambda seen: show(seen, (*key, None)),
        on_error=report,
        on_end=on_end,
    )
    return True


def slice_wish(state: AttentionState, pictured: bool = True) -> tuple[Wish, tuple[Any, ...]] | None:
    """What to find for the present query in the model that answers clicks, and the prompts it is about."""
    controller, query, session = state.controller, state.query, state.controller.session
    if session is None or session.in_3d or query is None or controller.model is None:
        return None
    from napari_medtransformer.plugin.attention.head_maps import Wish
    from napari_medtransformer.prompting.model_prompts import model_prompts

    volume, prompts = controller.workspace.volume, controller.prompts_on(query)
    axis, index = query.axis, query.voxel[query.axis]
    rows, columns = (n for a, n in enumerate(volume.shape) if a != axis)
    given = model_prompts((rows, columns), prompts) if prompts else None
    style = state.style
    wish = Wish(
        controller.model, volume, session.window, axis, index, given, query_maker(state),
        state.site, style.colour_map, style.percentile, pictured,
    )  # fmt: skip
    return wish, prompts


def window_wish(state: AttentionState) -> WindowWish | None:
    """What to find for the present query in the windows of the automatic model that is looked into."""
    query, workspace, style, model = state.query, state.controller.workspace, state.style, state.inspected.model
    if query is None or workspace is None or model is None:
        return None
    from napari_medtransformer.plugin.attention.head_maps import WindowWish

    return WindowWish(
        model, workspace.volume, query.position_zyx, query.axis, query_maker(state),
        state.site, style.colour_map, style.percentile,
    )  # fmt: skip


def prompts_by_object(state: AttentionState) -> dict[int, Prompts]:
    """The prompts of every object on the slice asked about, as the model takes them."""
    controller, inspection = state.controller, state.inspection
    if inspection is None or controller.session is None or state.where is None or state.inspected.is_automatic:
        return {}
    from napari_medtransformer.prompting.model_prompts import model_prompts

    shape, found = inspection.image.shape, {}
    for item in controller.session.objects:
        key = SliceKey(item.object_id, *state.where)
        given = [p for p in controller.session.prompts.values() if p.key == key]
        if given:
            found[item.object_id] = model_prompts((shape[0], shape[1]), given)
    return found
