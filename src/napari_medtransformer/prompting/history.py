"""What a session is at one moment, as an immutable record, and the line of such moments that undo walks along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from napari_medtransformer.errors import InvalidPrompt
from napari_medtransformer.prompting.masks import PackedMask
from napari_medtransformer.prompting.prompts import MAX_OBJECT_ID, Prompt, SliceKey

S = TypeVar("S")


@dataclass(frozen=True)
class SessionObject:
    """One object of a session; its number is its value in the labels."""

    object_id: int
    name: str = ""


@dataclass(frozen=True)
class SliceState:
    """One object on one slice.

    prompts: (prompt_id, prompt), oldest first. shown: the prompts whose prediction is shown until that of `prompts`
    is there. candidate: the mask a person chose, None for the best score. propagated: the mask that came from
    neighbouring slices, shown where there are no prompts. changed: the step of the last change; where slices of
    different planes cross, the later one wins.
    """

    prompts: tuple[tuple[int, Prompt], ...] = ()
    shown: tuple[Prompt, ...] = ()
    candidate: int | None = None
    propagated: PackedMask | None = None
    changed: int = 0

    @property
    def given(self) -> tuple[Prompt, ...]:
        """The prompts without their numbers: what a prediction is made from."""
        return tuple(prompt for _, prompt in self.prompts)


@dataclass(frozen=True)
class SessionState:
    """Everything undo can bring back. Never changed: every method returns a new state that shares the rest."""

    objects: tuple[SessionObject, ...] = ()
    slices: Mapping[SliceKey, SliceState] = field(default_factory=dict)
    next_prompt_id: int = 1
    step: int = 0

    def find(self, prompt_id: int) -> tuple[SliceKey, Prompt]:
        """Where a prompt is, and what. Raises InvalidPrompt if there is none of that number."""
        for key, there in self.slices.items():
            for number, prompt in there.prompts:
                if number == prompt_id:
                    return key, prompt
        raise InvalidPrompt(f"there is no prompt number {prompt_id}; it may have been removed or undone.")

    def with_prompt(self, prompt: Prompt, prompt_id: int, predicted: tuple[Prompt, ...]) -> SessionState:
        """With one more prompt. predicted: the prompts whose prediction is shown on that slice now."""
        there = self.slices.get(prompt.key, SliceState())
        changed = replace(
            there,
            prompts=(*there.prompts, (prompt_id, prompt)),
            shown=predicted,
            candidate=None,
            changed=self.step + 1,
        )
        state = self.with_object(prompt.key.object_id).with_slices({prompt.key: changed})
        return replace(state, next_prompt_id=max(self.next_prompt_id, prompt_id + 1))

    def replaced(self, prompt_id: int, prompt: Prompt, predicted: tuple[Prompt, ...]) -> SessionState:
        """With the prompt of that number replaced in its place, on the same slice."""
        there = self.slices[prompt.key]
        prompts = tuple((n, prompt if n == prompt_id else old) for n, old in there.prompts)
        return self.with_slices(
            {prompt.key: replace(there, prompts=prompts, shown=predicted, candidate=None, changed=self.step + 1)}
        )

    def without_prompt(self, prompt_id: int, predicted: tuple[Prompt, ...]) -> SessionState:
        """Without the prompt of that number; a slice that has nothing left is gone."""
        key, _ = self.find(prompt_id)
        there = self.slices[key]
        prompts = tuple((n, prompt) for n, prompt in there.prompts if n != prompt_id)
        shown = predicted if prompts else ()
        return self.with_slices(
            {key: replace(there, prompts=prompts, shown=shown, candidate=None, changed=self.step + 1)}
        )

    def with_object(self, object_id: int, name: str | None = None) -> SessionState:
        """With an object of that number on top, or with its new name if it is there."""
        if not 1 <= object_id <= MAX_OBJECT_ID:
            raise InvalidPrompt(f"an object's number lies in 1..{MAX_OBJECT_ID}, not {object_id}.")
        if all(one.object_id != object_id for one in self.objects):
            return replace(self, objects=(*self.objects, SessionObject(object_id, name or "")))
        if name is None:
            return self
        renamed = (SessionObject(object_id, name) if one.object_id == object_id else one for one in self.objects)
        return replace(self, objects=tuple(renamed))

    def without_slices_of(self, object_id: int) -> SessionState:
        """Without the prompts and masks of that object."""
        kept = {key: there for key, there in self.slices.items() if key.object_id != object_id}
        return replace(self, slices=kept)

    def with_slices(self, changes: Mapping[SliceKey, SliceState]) -> SessionState:
        """With those slices replaced; one without prompts and propagated mask is dropped."""
        slices = {**self.slices, **changes}
        for key, there in changes.items():
            if not there.prompts and there.propagated is None:
                del slices[key]
        return replace(self, slices=slices)


class History(Generic[S]):
    """A present, everything before it, and what was undone. Nothing is forgotten."""

    def __init__(self, start: S) -> None:
        self.present = start
        self._past: list[S] = []
        self._future: list[S] = []

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        """Whether a step was taken back and nothing was done since."""
        return bool(self._future)

    def push(self, state: S) -> None:
        """A new present; what was undone cannot be redone any more."""
        self._past.append(self.present)
        self._future.clear()
        self.present = state

    def undo(self) -> bool:
        """One step back; False at the beginning."""
        if not self._past:
            return False
        self._future.append(self.present)
        self.present = self._past.pop()
        return True

    def redo(self) -> bool:
        """One step forward again; False if nothing was undone."""
        if not self._future:
            return False
        self._past.append(self.present)
        self.present = self._future.pop()
        return True
