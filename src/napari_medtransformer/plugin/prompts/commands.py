"""What can be done to prompts: give, move, take away, step back and forth, choose among the model's masks."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_medtransformer.plugin.notify import reported
from napari_medtransformer.prompting.prompts import PointPrompt, Prompt, SliceKey, Zyx

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController
    from napari_medtransformer.plugin.workspace import Workspace


class PromptCommands:
    """The current session's prompts. Belongs to a controller, which it holds weakly."""

    def __init__(self, controller: SessionController) -> None:
        self._controller = weakref.ref(controller)
        self.selected: frozenset[int] = frozenset()

    def turn_to(self, workspace: Workspace | None) -> bool:
        """Commands are for this volume's prompts from now on; whether they can be: its image may be gone."""
        controller = self._controller()
        return workspace is not None and controller is not None and controller.turn_to(workspace)

    def add(self, prompt: Prompt) -> None:
        """Give the session a prompt and predict; before the model is there, keep it for then."""
        controller = self._controller()
        workspace = controller.workspace
        if workspace is None:
            return
        with reported():
            if workspace.session is None:
                workspace.waiting.append(prompt)
            else:
                controller.model_window.settle()
                controller.prediction.follow(workspace.session, [workspace.session.add_prompt(prompt)])
        controller.showing.with_answer()

    def add_points(self, positions_zyx: Iterable[Zyx]) -> None:
        """Points were set with napari's own tool: they are prompts of the present sign and plane."""
        controller = self._controller()
        where = controller.view.shown_slice()
        for zyx in positions_zyx:
            object_id = controller.workspace.current_object
            self.add(PointPrompt(zyx, controller.positive, object_id, 0 if where is None else where[0]))

    def remove(self, prompt_ids: Iterable[int]) -> None:
        """Take prompts away and predict their slices anew."""
        controller = self._controller()
        session = controller.session
        if session is None:
            self._remove_waiting(frozenset(prompt_ids))
            return
        with reported():
            controller.prediction.follow(session, session.remove_prompts(prompt_ids))
        controller.showing.with_answer()

    def _remove_waiting(self, prompt_ids: frozenset[int]) -> None:
        """Those that wait for a model are numbered from below zero, as the workspace shows them."""
        workspace = self._controller().workspace
        if workspace is not None:
            numbered = enumerate(workspace.waiting, start=-len(workspace.waiting))
            workspace.waiting = [prompt for number, prompt in numbered if number not in prompt_ids]
            self._controller().after_change()

    def replace(self, changed: dict[int, Prompt]) -> None:
        """Put other prompts in the place of some, as when they were dragged elsewhere, and predict."""
        controller = self._controller()
        workspace, session = controller.workspace, controller.session
        if workspace is None:
            return
        if session is None:
            workspace.waiting = [changed.get(number, prompt) for number, prompt in workspace.shown_prompts.items()]
            controller.after_change()
            return
        with reported():
            for prompt_id, prompt in changed.items():
                controller.prediction.follow(session, [session.move_prompt(prompt_id, prompt)])
        controller.showing.with_answer()

    def move_points(self, positions: dict[int, tuple[float, float, float]]) -> None:
        """Points were dragged elsewhere. positions: (z, y, x) by prompt."""
        workspace = self._controller().workspace
        if workspace is not None:
            there = workspace.shown_prompts
            self.replace({i: replace(there[i], position_zyx=zyx) for i, zyx in positions.items()})

    def clear_slice(self) -> None:
        """Take away the current object's prompts on the slice that is shown."""
        controller = self._controller()
        key, session = controller.current_key, controller.session
        if key is not None and session is not None:
            self.remove([i for i, prompt in session.prompts.items() if prompt.key == key])

    def on_slice(self, key: SliceKey) -> tuple[Prompt, ...]:
        """An object's prompts on a slice, oldest first."""
        session = self._controller().session
        if session is None:
            return ()
        return tuple(prompt for prompt in session.prompts.values() if prompt.key == key)

    # Selection

    def select(self, prompt_ids: Iterable[int]) -> None:
        """Mark prompts on the canvas, to be moved or removed."""
        self.selected = frozenset(prompt_ids)
        self._controller().after_change()

    def remove_selected(self) -> None:
        """Take the marked prompts away."""
        controller = self._controller()
        there = () if controller.session is None else controller.session.prompts
        chosen = [i for i in sorted(self.selected) if i in there]
        self.selected = frozenset()
        if chosen:
            self.remove(chosen)

    # Undo, and the model's other masks

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        workspace = self._controller().workspace
        session = workspace.session if workspace is not None else None
        return session is not None and (session.can_undo or workspace.commits.can_undo(session.state))

    @property
    def can_redo(self) -> bool:
        """Whether a step that was taken back can be done again."""
        workspace = self._controller().workspace
        session = workspace.session if workspace is not None else None
        return session is not None and (session.can_redo or workspace.commits.can_redo(session))

    def undo(self) -> None:
        """One step back."""
        session = self._controller().session
        if session is not None and not self._controller().workspace.commits.undo(session):
            self._controller().prediction.follow(session, session.undo())
        self._walked()

    def redo(self) -> None:
        """One step forward again."""
        session = self._controller().session
        if session is not None and not self._controller().workspace.commits.redo(session):
            self._controller().prediction.follow(session, session.redo())
        self._walked()

    def cycle_mask(self) -> None:
        """Show the next of the model's masks for the current object on this slice."""
        controller = self._controller()
        key = controller.current_key
        if key is not None and controller.session.candidate_scores(key) is not None:
            controller.session.cycle_candidate(key)
            controller.after_change()

    def choose_mask(self, candidate: int) -> None:
        """Show one of the model's masks for the current object on this slice."""
        controller = self._controller()
        key = controller.current_key
        if key is not None:
            with reported():
                controller.session.choose_candidate(key, candidate)
            controller.after_change()

    def _walked(self) -> None:
        controller = self._controller()
        if controller.session is not None:
            controller.keep_current_object()
            controller.after_change()
