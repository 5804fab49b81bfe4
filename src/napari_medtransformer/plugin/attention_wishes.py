"""What the worker is to find for the Attention dock: made from the present choices, holding nothing of the window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_medtransformer.plugin.attention_words import query_maker
from napari_medtransformer.prompting.prompts import SliceKey

if TYPE_CHECKING:
    from napari_medtransformer.models.base import Prompts
    from napari_medtransformer.plugin.attention_state import AttentionState
    from napari_medtransformer.plugin.head_maps import WindowWish, Wish


def slice_wish(state: AttentionState) -> tuple[Wish, tuple[Any, ...]] | None:
    """What to find for the present query in the model that answers clicks, and the prompts it is about."""
    controller, query, session = state.controller, state.query, state.controller.session
    if session is None or session.in_3d or query is None or controller.model is None:
        return None
    from napari_medtransformer.plugin.head_maps import Wish
    from napari_medtransformer.prompting.model_prompts import model_prompts

    volume, prompts = controller.workspace.volume, controller.prompts_on(query)
    axis, index = query.axis, query.voxel[query.axis]
    rows, columns = (n for a, n in enumerate(volume.shape) if a != axis)
    given = model_prompts((rows, columns), prompts) if prompts else None
    style = state.style
    wish = Wish(
        controller.model, volume, session.window, axis, index, given, query_maker(state),
        state.site, style.colour_map, style.percentile,
    )  # fmt: skip
    return wish, prompts


def window_wish(state: AttentionState) -> WindowWish | None:
    """What to find for the present query in the windows of the automatic model that is looked into."""
    query, workspace, style, model = state.query, state.controller.workspace, state.style, state.inspected.model
    if query is None or workspace is None or model is None:
        return None
    from napari_medtransformer.plugin.head_maps import WindowWish

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
