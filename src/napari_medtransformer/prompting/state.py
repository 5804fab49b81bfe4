"""What a session is at one moment, as an immutable record, and the step between two such moments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from napari_medtransformer.errors import InvalidPrompt
from napari_medtransformer.given import text, whole
from napari_medtransformer.prompting.masks import Packed, PackedBlock, PackedMask
from napari_medtransformer.prompting.prompts import (
    MAX_OBJECT_ID,
    BlockPrompt,
    Given,
    MaskPrompt,
    Prompt,
    SliceKey,
)

_SLICE_BYTES = 400  # of a slice's record without its masks


@dataclass(frozen=True)
class SessionObject:
    """One object of a session; its number is its value in the labels.

    class_name: what kind of thing it is, such as "lesion"; many objects may share one. colour: "#rrggbb", or "" for the
    automatic one.
    """

    object_id: int
    name: str = ""
    class_name: str = ""
    colour: str = ""

    def __post_init__(self) -> None:
        text(self.name, "an object's name", InvalidPrompt)
        text(self.class_name, "an object's class", InvalidPrompt)


@dataclass(frozen=True)
class SliceState:
    """One object on one slice, or what a model that answers in 3D was asked about it in the whole volume.

    prompts: (prompt_id, prompt), oldest first. base: the mask that was there before the first of them, which they
    correct. shown: the mask that is shown until the prediction of `prompts` is there. candidate: the mask a person
    chose, None for the best score. picked: how many prompts there were when a person last chose a mask and then went
    on, and that mask, which the later ones refine. propagated: the mask that came from neighbouring slices, shown where
    there are no prompts. edited: the mask after smoothing and the like, shown before all others. model: which of the
    session's models predicts the prompts. changed: the step of the last change; where slices of different planes cross,
    and where slices meet an answer in 3D, the later one wins.
    In 3D, base and shown are blocks, and what was propagated or edited lies on slices.
    """

    prompts: tuple[tuple[int, Prompt], ...] = ()
    base: Packed | None = None
    shown: Packed | None = None
    candidate: int | None = None
    picked: tuple[int, PackedMask] | None = None
    propagated: PackedMask | None = None
    edited: PackedMask | None = None
    model: int = 0
    changed: int = 0

    def given(self, key: SliceKey) -> tuple[Prompt, ...]:
        """What is asked on a slice: the prompts without their numbers, among masks that a person wants refined.

        The mask that all of them correct comes first, one that was picked before those that came after it.
        """
        prompts = tuple(prompt for _, prompt in self.prompts)
        if self.picked is not None:
            count, mask = self.picked
            asked = MaskPrompt(mask, key.index, key.object_id, key.axis)
            prompts = (*prompts[:count], asked, *prompts[count:])
        if not isinstance(self.base, PackedMask) or not prompts:
            return prompts
        return (MaskPrompt(self.base, key.index, key.object_id, key.axis), *prompts)

    def asked(self, key: SliceKey) -> tuple[Given, ...]:
        """What a prediction is made from, on a slice or in 3D."""
        given = self.given(key)
        if not isinstance(self.base, PackedBlock) or not given:
            return given
        return (BlockPrompt(self.base, key.object_id), *given)

    @property
    def empty(self) -> bool:
        """Whether nothing is there that needs to be kept."""
        return not self.prompts and self.propagated is None and self.edited is None

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        picked = None if self.picked is None else self.picked[1]
        masks = (self.base, self.shown, picked, self.propagated, self.edited)
        return _SLICE_BYTES + sum(mask.nbytes for mask in masks if mask is not None)


Followed = Mapping[tuple[int, int], Mapping[int, str]]
"""By object and axis: the prompted slices that it was last followed from, by index, as digests of their prompts."""


@dataclass(frozen=True)
class SessionState:
    """Everything undo can bring back. Never changed: every method returns a new state that shares the rest.

    objects: from the lowest to the one on top.
    """

    objects: tuple[SessionObject, ...] = ()
    slices: Mapping[SliceKey, SliceState] = field(default_factory=dict)
    followed: Followed = field(default_factory=dict)
    next_prompt_id: int = 1
    step: int = 0

    def find(self, prompt_id: int) -> tuple[SliceKey, Prompt]:
        """Where a prompt is, and what. Raises InvalidPrompt if there is none of that number."""
        prompt_id = whole(prompt_id, "a prompt's number", InvalidPrompt)
        for key, there in self.slices.items():
            for number, prompt in there.prompts:
                if number == prompt_id:
                    return key, prompt
        raise InvalidPrompt(f"there is no prompt number {prompt_id}; it may have been removed or undone.")

    def with_prompt(
        self, prompt: Prompt, prompt_id: int, key: SliceKey, shown: Packed | None, base: Packed | None, model: int
    ) -> SessionState:
        """With one more prompt on a slice or in 3D. shown: the mask there now. base: the mask that is corrected."""
        there = self.slices.get(key, SliceState())
        picked = None if there.edited is not None else there.picked
        if there.edited is None and there.candidate is not None and isinstance(shown, PackedMask):
            picked = len(there.prompts), shown
        changed = replace(
            there,
            prompts=(*there.prompts, (prompt_id, prompt)),
            base=base,
            shown=shown,
            candidate=None,
            picked=picked,
            edited=None,
            model=model,
            changed=self.step + 1,
        )
        state = self.with_object(key.object_id).with_slices({key: changed})
        return replace(state, next_prompt_id=max(self.next_prompt_id, prompt_id + 1))

    def replaced(self, prompt_id: int, prompt: Prompt, shown: Packed | None, model: int) -> SessionState:
        """With the prompt of that number replaced in its place, on the same slice or in 3D."""
        key, _ = self.find(prompt_id)
        prompts = tuple((n, prompt if n == prompt_id else old) for n, old in self.slices[key].prompts)
        return self._with_prompts(key, prompts, shown, model)

    def without_prompt(self, prompt_id: int, shown: Packed | None, model: int) -> SessionState:
        """Without the prompt of that number; a slice that has nothing left is gone."""
        key, _ = self.find(prompt_id)
        prompts = tuple((n, prompt) for n, prompt in self.slices[key].prompts if n != prompt_id)
        return self._with_prompts(key, prompts, shown, model)

    def _with_prompts(
        self, key: SliceKey, prompts: tuple[tuple[int, Prompt], ...], shown: Packed | None, model: int
    ) -> SessionState:
        there = self.slices[key]
        base = there.base if isinstance(there.base, PackedMask) else None  # a block's slices are there beneath it
        picked = there.picked
        if picked is not None and (prompts[: picked[0]] != there.prompts[: picked[0]] or len(prompts) == picked[0]):
            picked = None  # it was an answer to other prompts, or none is left that refines it
        changed = replace(
            there,
            prompts=prompts,
            base=there.base if prompts else None,
            shown=shown if prompts else None,
            candidate=None,
            picked=picked,
            # Without prompts, what they corrected comes back.
            edited=None if prompts or base == there.propagated else base,
            model=model,
            changed=self.step + 1,
        )
        return self.with_slices({key: changed})

    def with_object(self, object_id: int, name: str | None = None) -> SessionState:
        """With an object of that number on top, or with its new name if it is there."""
        object_id = whole(object_id, "an object's number", InvalidPrompt, least=1, most=MAX_OBJECT_ID)
        if all(one.object_id != object_id for one in self.objects):
            return replace(self, objects=(*self.objects, SessionObject(object_id, "" if name is None else name)))
        if name is None:
            return self
        renamed = (replace(one, name=name) if one.object_id == object_id else one for one in self.objects)
        return replace(self, objects=tuple(renamed))

    def without_slices_of(self, object_id: int) -> SessionState:
        """Without the prompts and masks of that object."""
        kept = {key: there for key, there in self.slices.items() if key.object_id != object_id}
        followed = {key: seeds for key, seeds in self.followed.items() if key[0] != object_id}
        return replace(self, slices=kept, followed=followed)

    def with_slices(self, changes: Mapping[SliceKey, SliceState]) -> SessionState:
        """With those slices replaced; one without prompts and masks is dropped."""
        slices = {**self.slices, **changes}
        for key, there in changes.items():
            if there.empty:
                del slices[key]
        return replace(self, slices=slices)

    def of_object(self, object_id: int, axis: int | None = None) -> dict[SliceKey, SliceState]:
        """The slices of an object, across one axis or all."""
        return {
            key: there
            for key, there in self.slices.items()
            if key.object_id == object_id and (axis is None or key.axis == axis)
        }


@dataclass(frozen=True)
class StateStep:
    """What one step changed: the slices, before and after (None: not there), and the small rest whole."""

    slices: tuple[tuple[SliceKey, SliceState | None, SliceState | None], ...]
    before: SessionState
    after: SessionState

    @staticmethod
    def difference(before: SessionState, after: SessionState) -> StateStep:
        """What leads from one state to the other and back."""
        keys: Iterable[SliceKey] = before.slices.keys() | after.slices.keys()
        pairs = ((key, before.slices.get(key), after.slices.get(key)) for key in keys)
        changed = tuple(sorted((p for p in pairs if p[1] is not p[2]), key=lambda pair: pair[0]))
        return StateStep(changed, replace(before, slices={}), replace(after, slices={}))

    @staticmethod
    def applied(state: SessionState, step: StateStep, forward: bool) -> SessionState:
        """The state after the step, or before it."""
        slices = dict(state.slices)
        for key, before, after in step.slices:
            there = after if forward else before
            if there is None:
                slices.pop(key, None)
            else:
                slices[key] = there
        return replace(step.after if forward else step.before, slices=slices)

    @staticmethod
    def size(step: StateStep) -> int:
        """About how many bytes the step takes."""
        sides = (side for pair in step.slices for side in pair[1:] if side is not None)
        return _SLICE_BYTES + sum(side.nbytes for side in sides)
