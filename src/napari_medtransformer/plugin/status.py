"""The one line that says what is going on, or what to do next."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

from napari_medtransformer.models.words import weights_in_words
from napari_medtransformer.plugin.planes import PLANES
from napari_medtransformer.plugin.prompts.tools import Tool
from napari_medtransformer.prompting.prompts import (
    IN_3D,
    BoxPrompt,
    LassoPrompt,
    MaskPrompt,
    PointPrompt,
    ScribblePrompt,
    SliceKey,
)

if TYPE_CHECKING:
    from napari_medtransformer.models.card import ModelCard
    from napari_medtransformer.plugin.controller import SessionController

_KINDS = {
    PointPrompt: ("point",),
    BoxPrompt: ("box", "boxes"),
    ScribblePrompt: ("scribble",),
    LassoPrompt: ("lasso",),
    MaskPrompt: ("label", "labels"),
}
_HINTS = {
    Tool.PAN: "Choose a tool to give prompts; drag to move the view.",
    Tool.BOX: "Drag a box around a structure.",
    Tool.SCRIBBLE: "Paint over a part of the structure; with Shift, over what is not. Alt-drag moves the view.",
    Tool.LASSO: "Drag around the structure, or click its corners and double-click the last.",
    Tool.REFINE: "Click a label of another labels layer: the object takes it over, to be corrected by prompts.",
    Tool.EDIT: "Click a prompt to select it, drag it elsewhere, or remove it with Del.",
}
Mood = Literal["ready", "busy", "blocked"]


def status_line(controller: SessionController) -> tuple[Mood, str]:
    """What the Prompt dock says at its foot."""
    if controller.obstacle:
        return "blocked", controller.obstacle
    if controller.models.loading:
        if controller.models.fetching:
            return "busy", controller.models.fetching
        name = controller.models.card.name if controller.models.card is not None else "the model"
        return "busy", f"Loading {name}… Clicks are kept and answered when it is there."
    progress = controller.prediction.progress
    if progress is not None:
        far = f"{progress.done} of {progress.total} blocks"
        return "busy", f"Encoding {progress.message}: {far}. Prompts there are quick afterwards."
    if controller.busy or controller.prediction.asking:
        return "busy", controller.busy or "Predicting…"
    return "ready", _answer(controller) or _hint(controller)


def describe_card(card: ModelCard) -> str:
    """A model in one line."""
    size, unit = " × ".join(map(str, card.input.size)), "px" if card.dimensions == 2 else "voxels, in 3D"
    return f"{', '.join(card.modalities) or 'any image'} · {size} {unit} · {card.licence.split(';')[0]}"


def card_tooltip(card: ModelCard) -> str:
    """A model's card as rich text for a tooltip."""
    memory = f"{card.memory_bytes / 1e9:.1f} GB" if card.memory_bytes else "unknown"
    rows = {
        "Trained on": ", ".join((*card.modalities, *card.anatomy)) or "–",
        "Input": f"{' × '.join(map(str, card.input.size))} px, {card.input.intensities}",
        "Weights": weights_in_words(card),
        "Memory": memory,
        "Licence": card.licence,
        "Cite": card.citation,
    }
    table = "".join(f"<tr><td><b>{k}</b>&nbsp;&nbsp;</td><td>{v}</td></tr>" for k, v in rows.items())
    return f"<b>{card.title}</b><p>{card.description}</p><table>{table}</table>"


def duration_in_words(seconds: float) -> str:
    """Milliseconds below one second, tenths below ten, then whole seconds."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def overlap_in_words(score: float) -> str:
    """An overlap that a network expects, in percent: networks guess below none and above all, too."""
    return f"{min(max(score, 0.0), 1.0):.0%}"


def _answer(controller: SessionController) -> str:
    """What the model said about the current object on this slice."""
    key = controller.current_key
    if key is not None and controller.session.in_3d:
        key = SliceKey(key.object_id, IN_3D, 0)
    offered = controller.session.candidate_scores(key) if key is not None else None
    if offered is None:
        return ""
    scores, chosen = offered
    kinds = Counter(type(prompt) for prompt in controller.session.prompts_at(key))
    told = " + ".join(_count(kinds[kind], *words) for kind, words in _KINDS.items() if kinds[kind])
    score = f"expected overlap {overlap_in_words(scores[chosen])}"
    choice = f"mask {chosen + 1} of {len(scores)} (Tab)" if len(scores) > 1 else ""
    seconds = duration_in_words(controller.prediction.seconds) if controller.prediction.seconds is not None else ""
    place = "In 3D" if key.in_3d else f"{PLANES[key.axis]} slice {key.index}"
    return " · ".join(part for part in (place, told, choice, score, seconds) if part)


def _hint(controller: SessionController) -> str:
    waiting = controller.prediction.waiting()
    if waiting:
        return f"Prompts on {_count(waiting, 'slice')} wait for S."
    if controller.tool in _HINTS:
        return _HINTS[controller.tool]
    side = "inside" if controller.positive else "outside"
    other = "outside" if controller.positive else "inside"
    return f"Click {side} a structure; Shift-click {other} it to correct. Drag moves the view."


def _count(n: int, one: str, many: str = "") -> str:
    return "" if n == 0 else f"{n} {one if n == 1 else many or one + 's'}"
