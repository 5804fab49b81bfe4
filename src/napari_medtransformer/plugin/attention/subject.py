"""What causes are looked for: the object that was clicked, or the label that an automatic model gives the voxel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_medtransformer.plugin.notify import warn
from napari_medtransformer.prompting.prompts import SliceKey

if TYPE_CHECKING:
    from napari_medtransformer.attention.heatmap import Heatmap
    from napari_medtransformer.inspection.ablation import HeadEffect
    from napari_medtransformer.models.base import Prompts
    from napari_medtransformer.plugin.attention.state import AttentionState
    from napari_medtransformer.progress import Steps


@dataclass(frozen=True)
class Subject:
    """What heads are ranked for and gradients start from. Both functions run in the worker."""

    name: str
    rank: Callable[[], Steps[list[HeadEffect]]]
    relevance: Callable[[], Heatmap]


def subject_of(state: AttentionState) -> Subject | None:
    """The present one; None, with a notification of what to do, where there is none."""
    inspection: Any = state.inspection  # of windows with an automatic model, else of a slice
    if state.inspected.is_automatic:
        if inspection is None or inspection.label == "background":
            what = (
                "Nothing was asked yet" if inspection is None else f"{inspection.model.card.name} calls it background"
            )
            warn(f"{what}: click a voxel inside a structure that the model names.")
            return None
        from napari_medtransformer.inspection.relevance import label_relevance
        from napari_medtransformer.inspection.volume_ablation import rank_heads_for_label

        return Subject(inspection.label, lambda: rank_heads_for_label(inspection), lambda: label_relevance(inspection))
    workspace, asked = state.controller.workspace, asked_by_object(state)
    if inspection is None or workspace is None or workspace.current_object not in asked:
        warn("The selected object has no prompt on the slice that was asked about: click it there first.")
        return None
    from napari_medtransformer.inspection.ablation import rank_heads
    from napari_medtransformer.inspection.relevance import mask_relevance

    prompts = asked[workspace.current_object]
    return Subject(
        object_name(state, workspace.current_object),
        lambda: rank_heads(inspection, prompts()),
        lambda: mask_relevance(inspection, prompts()),
    )


def asked_by_object(state: AttentionState) -> dict[int, Callable[[], Prompts]]:
    """For every object with prompts on the slice asked about, what gives them in the worker as the model takes them."""
    session = state.controller.session
    if state.inspection is None or session is None or state.where is None or state.inspected.is_automatic:
        return {}
    asked = {o.object_id: session.asked_of_model(SliceKey(o.object_id, *state.where)) for o in session.objects}
    return {number: prompts for number, prompts in asked.items() if prompts is not None}


def object_name(state: AttentionState, object_id: int) -> str:
    """What an object of the session, or a label of the automatic model, is called."""
    if state.inspected.model is not None:
        return next((x.name for x in state.inspected.model.card.labels if x.value == object_id), str(object_id))
    named = {o.object_id: o.name for o in state.controller.session.objects}
    return named.get(object_id) or f"object {object_id}"
