"""Heads switched off, what that does to the masks of a slice, and which heads matter: asked of the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_medtransformer.plugin.attention.subject import asked_by_object, subject_of
from napari_medtransformer.plugin.notify import report, warn
from napari_medtransformer.plugin.work import Job
from napari_medtransformer.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_medtransformer.attention.heatmap import Heatmap
    from napari_medtransformer.inspection.ablation import HeadEffect, ObjectEffect
    from napari_medtransformer.plugin.attention.state import AttentionState


class HeadSwitches(QObject):
    """What was changed in the model for a look, and its outcome. Answers for another slice or prompt are dropped."""

    changed = Signal()
    progressed = Signal(object)  # a Progress while heads are ranked, None when that has ended

    def __init__(self, state: AttentionState) -> None:
        super().__init__()
        self._state = state
        self.off: set[tuple[str, int]] = set()
        self.outcome: dict[int, ObjectEffect] = {}
        self.altered = ""  # what else was changed than heads, in words
        self.effects: list[HeadEffect] = []
        self.ranked = ""  # the object that was ranked for
        self.relevance: Heatmap | None = None
        self._job: Job | None = None
        self._made_for: Any = None
        state.changed.connect(self._follow)

    @property
    def running(self) -> bool:
        """Whether heads are being ranked."""
        return self._job is not None

    def heads(self) -> list[tuple[str, int]]:
        """Every site of the model, also those that cannot be drawn, and how many heads it has."""
        inspection = self._state.inspection
        if inspection is None:
            return []
        return [(spec.name, spec.heads) for spec in inspection.model.attention_sites()]

    # ------------------------------------------------------------------ switching

    def toggle(self, site: str, head: int) -> None:
        """Switch a head off, or on again, and predict anew."""
        self.off ^= {(site, head)}
        self._predict()

    def toggle_site(self, site: str) -> None:
        """Switch all heads of a site off; on again if they all are."""
        every = {(site, head) for head in range(dict(self.heads())[site])}
        self.off = self.off - every if every <= self.off else self.off | every
        self._predict()

    def all_on(self) -> None:
        """The model as it is."""
        self.off.clear()
        self.outcome, self.altered = {}, ""
        self.changed.emit()

    def _predict(self) -> None:
        if not self.off:
            self.all_on()
            return
        heads: dict[str, list[int]] = {}
        for site, head in sorted(self.off):
            heads.setdefault(site, []).append(head)
        self.altered = ""
        if self._state.inspected.is_automatic:
            from napari_medtransformer.inspection.volume_ablation import labels_without

            self.run(lambda inspection, _: labels_without(inspection, heads))
            return
        from napari_medtransformer.inspection.ablation import masks_without

        self.run(lambda inspection, prompts: masks_without(inspection, heads, prompts))

    def run(self, change: Callable[..., dict[int, ObjectEffect]], altered: str = "") -> None:
        """Have the worker predict every object of the slice under a change: `change(inspection, prompts)`."""
        state = self._state
        inspection, asked = state.inspection, asked_by_object(state)
        if inspection is None or not (asked or state.inspected.is_automatic):
            warn("There is no object on this slice: click one first, then change the model and see what happens to it.")
            self.off.clear()
            self.changed.emit()
            return
        key = self._made_for = self._key()

        def show(outcome: dict[int, ObjectEffect]) -> None:
            if key == self._key():
                self.outcome, self.altered, self._made_for = outcome, altered, key
                self.changed.emit()

        state.controller.queue.submit(
            lambda: change(inspection, {number: prompts() for number, prompts in asked.items()}),
            label="Predicting without…",
            key="attention ablation",
            on_done=show,
            on_error=report,
        )
        self.changed.emit()

    # ------------------------------------------------------------------ ranking

    def rank(self) -> None:
        """Switch off one head after another for the current object, in the background."""
        subject = None if self._job is not None else subject_of(self._state)
        if subject is None:
            return
        key = self._key()
        self.effects, self.ranked, self._made_for = [], subject.name, key

        def take(partial: list[HeadEffect]) -> None:
            if key == self._key():
                self.effects = self.effects + partial
                self.changed.emit()

        def ended() -> None:
            self._job = None
            self.progressed.emit(None)
            self.changed.emit()

        self.progressed.emit(Progress(0, None, "Starting…"))
        self._job = self._state.controller.queue.submit_steps(
            subject.rank,
            label="Switching heads off one by one…",
            on_progress=self.progressed.emit,
            on_partial=take,
            on_error=report,
            on_end=ended,
        )
        self.changed.emit()

    def cancel(self) -> None:
        """Stop ranking after the present head; what is known stays."""
        if self._job is not None:
            self._job.cancel()

    def find_relevance(self, on_found: Callable[[Heatmap], None]) -> None:
        """Weight attention by the current object's gradient, in the worker."""
        subject = subject_of(self._state)
        if subject is None:
            return
        self._state.controller.queue.submit(
            subject.relevance,
            label="Following gradients…",
            key="attention relevance",
            on_done=on_found,
            on_error=report,
        )

    # ------------------------------------------------------------------ inside

    def _key(self) -> Any:
        state = self._state
        session = state.controller.session
        inspection: Any = state.inspection
        if state.inspected.is_automatic and inspection is not None:
            return id(state.inspected.model), inspection.runs, inspection.label, state.where
        if session is None or state.where is None:
            return None
        here = [p for p in session.prompts.values() if (p.key.axis, p.key.index) == state.where]
        return state.looked_at, id(state.controller.model), state.where, tuple(here)

    def _follow(self) -> None:
        """Drop what was found for another slice, model or prompt."""
        if self._made_for is None or self._made_for == self._key():
            return
        self.cancel()
        self.off.clear()
        self.outcome, self.effects, self.altered, self._made_for = {}, [], "", None
        self.changed.emit()
