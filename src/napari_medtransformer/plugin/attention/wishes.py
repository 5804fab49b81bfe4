"""What the worker is to find for the Attention dock, and asking it: the wishes hold nothing of the window."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari_medtransformer.plugin.attention.words import query_maker
from napari_medtransformer.plugin.notify import report

if TYPE_CHECKING:
    from napari_medtransformer.plugin.attention.head_maps import Seen, Wish
    from napari_medtransformer.plugin.attention.state import AttentionState


def wish_of(state: AttentionState, *, pictured: bool = True) -> Wish | None:
    """What to find for the present query, None where nothing can be asked. pictured: with thumbnails.

    An automatic model always draws them: its answers take longer than they do.
    """
    from napari_medtransformer.plugin.attention.head_maps import SliceWish, WindowWish
    from napari_medtransformer.prompting.prompts import SliceKey

    controller, query, seen, style = state.controller, state.query, state.seen, state.style
    if query is None or controller.workspace is None:
        return None
    volume, axis, index = controller.workspace.volume, query.axis, query.voxel[query.axis]
    common: dict[str, Any] = {
        "volume": volume,
        "axis": axis,
        "make_query": query_maker(state),
        "site": state.site,
        "colour_map": style.colour_map,
        "percentile": style.percentile,
    }
    if state.inspected.is_automatic:
        model = state.inspected.model
        if model is None:
            return None
        known = None if seen is None else seen.inspection
        return WindowWish(
            about=(state.looked_at, axis, index, None), known=known, model=model, zyx=query.position_zyx, **common
        )
    session = controller.session
    if session is None or session.in_3d or controller.model is None:
        return None
    key = SliceKey(controller.workspace.current_object, axis, index)
    prompts = controller.prompting.on_slice(key)
    about = (state.looked_at, axis, index, prompts)
    same_slice = seen is not None and seen.about[:3] == about[:3]
    return SliceWish(
        about=about,
        known=seen.inspection if same_slice else None,
        same_prompts=same_slice and seen.about == about,
        model=controller.model,
        window=session.window,
        index=index,
        asked=session.asked_of_model(key),
        pictured=pictured,
        **common,
    )


def submit(state: AttentionState, wish: Wish, show: Callable[[Seen], None], on_end: Callable[[], None] | None) -> None:
    """Ask the worker. A slice is encoded, or windows run, unless they are known."""
    from napari_medtransformer.plugin.attention import head_maps

    queue, handlers = state.controller.queue, {"on_done": show, "on_error": report, "on_end": on_end}
    if isinstance(wish, head_maps.WindowWish):
        queue.submit_steps(lambda: head_maps.look_steps(wish), label="Looking inside…", key="attention", **handlers)
    else:
        queue.submit(lambda: head_maps.look(wish), label="", key="attention", **handlers)
