"""What a session is at one moment, as an immutable record, and the step between two such moments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from napari_medtransformer.errors import InvalidPrompt
from napari_medtransformer.prompting.masks import PackedMask
from napari_medtransformer.prompting.prompts import MAX_OBJECT_ID, MaskPrompt, Prompt, SliceKey

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


@dataclass(frozen=True)
class SliceState:
    """One object on one slice.

    prompts: (prompt_id, prompt), oldest first. base: the mask that was there before the first of them, which they
    correct. shown: the mask that is shown until the prediction of `prompts` is there. candidate: the mask a person
    chose, None for the best score. propagated: the mask that came from neighbouring slices, shown where there are no
    prompts. edited: the mask after smoothing and the like, shown before all others. model: which of the session's
    models predicts the prompts. changed: the step of the last change; where slices of different planes cross, the
    later one wins.
    """

    prompts: tuple[tuple[int, Prompt], ...] = ()
    base: PackedMask | None = None
    shown: PackedMask | None = None
    candidate: int | None = None
    propagated: PackedMask | None = None
    edited: PackedMask | None = None
    model: int = 0
    changed: int = 0

    def given(self, key: SliceKey) -> tuple[Prompt, ...]:
        """What a prediction is made from: the mask that is corrected, if any, and the prompts without their numbers."""
        prompts = tuple(prompt for _, prompt in self.prompts)
        if self.base is None or not prompts:
            return prompts
        return (MaskPrompt(self.base, key.index, key.object_id, key.axis), *prompts)

    @property
    def empty(self) -> bool:
        """Whether nothing is there that needs to be kept."""
        return not self.prompts and self.propagated is None and self.edited is None

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        masks = (self.base, self.shown, self.propagated, self.edited)
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
        for key, there in self.slices.items():
            for number, prompt in there.prompts:
                if number == prompt_id:
                    return key, prompt
        raise InvalidPrompt(f"there is no prompt number {prompt_id}; it may have been removed or undone.")

    def with_prompt(self, prompt: Prompt, prompt_id: int, shown: PackedMask | None, model: int) -> SessionState:
        """With one more prompt. shown: the mask on that slice now; a mask that no prompts made is corrected by it."""
        there = self.slices.get(prompt.key, SliceState())
        made_by_prompts = bool(there.prompts) and there.edited is None
        changed = replace(
            there,
            prompts=(*there.prompts, (prompt_id, prompt)),
            base=there.base if made_by_prompts else shown,
            shown=shown,
            candidate=None,
            edited=None,
            model=model,
            changed=self.step + 1,
        )
        state = self.with_object(prompt.key.object_id).with_slices({prompt.key: changed})
        return replace(state, next_prompt_id=max(self.next_prompt_id, prompt_id + 1))

    def replaced(self, prompt_id: int, prompt: Prompt, shown: PackedMask | None, model: int) -> SessionState:
        """With the prompt of that number replaced in its place, on the same slice."""
        there = self.slices[prompt.key]
        prompts = tuple((n, prompt if n == prompt_id else old) for n, old in there.prompts)
        return self._with_prompts(prompt.key, prompts, shown, model)

    def without_prompt(self, prompt_id: int, shown: PackedMask | None, model: int) -> SessionState:
        """Without the prompt of that number; a slice that has nothing left is gone."""
        key, _ = self.find(prompt_id)
        prompts = tuple((n, prompt) for n, prompt in self.slices[key].prompts if n != prompt_id)
        return self._with_prompts(key, prompts, shown, model)

    def _with_prompts(
        self, key: SliceKey, prompts: tuple[tuple[int, Prompt], ...], shown: PackedMask | None, model: int
    ) -> SessionState:
        there = self.slices[key]
        changed = replace(
            there,
            prompts=prompts,
            base=there.base if prompts else None,
            shown=shown if prompts else None,
            candidate=None,
            # Without prompts, what they corrected comes back.
            edited=None if prompts or there.base == there.propagated else there.base,
            model=model,
            changed=self.step + 1,
        )
        return self.with_slices({key: changed})

    def with_object(self, object_id: int, name: str | None = None) -> SessionState:
        """With an object of that number on top, or with its new name if it is there."""
        if not 1 <= object_id <= MAX_OBJECT_ID:
            raise InvalidPrompt(f"an object's number lies in 1..{MAX_OBJECT_ID}, not {object_id}.")
        if all(one.object_id != object_id for one in self.objects):
            return replace(self, objects=(*self.objects, SessionObject(object_id, name or "")))
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
