"""A session in 3D: slices encoded ahead, and objects followed from slice to slice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from napari_medtransformer.errors import InvalidPrompt, UnsupportedModel
from napari_medtransformer.given import flag, record, whole, wholes
from napari_medtransformer.progress import Progress, Result, Steps
from napari_medtransformer.prompting.prompts import SliceKey
from napari_medtransformer.prompting.propagation import Propagation, Seed, follow, spans_to_follow
from napari_medtransformer.prompting.session_core import SessionCore
from napari_medtransformer.prompting.slice_model import SliceModel
from napari_medtransformer.prompting.state import SliceState


def nearest_first(index: int, count: int, reach: int | None = None) -> list[int]:
    """Slice numbers from `index` outwards, as far as `reach`: 5, 6, 4, 7, 3 … within 0..count - 1."""
    reach = count if reach is None else reach
    return sorted(range(max(0, index - reach), min(count, index + reach + 1)), key=lambda i: (abs(i - index), -i))


class FollowSteps(SessionCore):
    """Prefetch and propagation."""

    def prefetch(self, axis: int, indices: Iterable[int]) -> Iterator[Progress]:
        """Encode slices ahead, in the order given, in any thread; those outside the volume are left out.

        A model that answers in 3D encodes no slices: there is nothing to be done ahead.
        """
        slices = self._slices
        if not isinstance(slices, SliceModel):
            return
        axis = _axis(axis)
        wanted = [index for index in wholes(indices, "slices", InvalidPrompt) if 0 <= index < self.volume.shape[axis]]
        for done, index in enumerate(wanted):
            yield Progress(done, len(wanted), f"encoding slice {index}")
            slices.prepare(axis, index)
        yield Progress(len(wanted), len(wanted), "slices are encoded")

    def prefetch_around(self, axis: int, index: int, reach: int | None = None) -> Iterator[Progress]:
        """Encode the slice at `index`, then its neighbours outwards, as far as `reach` slices or memory holds them."""
        count = self.volume.shape[_axis(axis)]
        index = whole(index, "a slice's index", InvalidPrompt)
        reach = count if reach is None else whole(reach, "how many slices around are encoded", InvalidPrompt, least=0)
        order = nearest_first(index, count, reach)
        for step in self.prefetch(axis, order):
            yield step
            if not self._slices.embeddings.fits(step.done + 1):
                yield Progress(step.done, step.done, "memory for encoded slices is used up")
                return

    def is_encoded(self, axis: int, index: int) -> bool:
        """Whether a slice is encoded and in memory."""
        place = _axis(axis), whole(index, "a slice's index", InvalidPrompt)
        return not self.in_3d and place in self._slices.embeddings

    def propagation_steps(
        self, object_id: int = 1, axis: int | None = None, afresh: bool = False
    ) -> Steps[Propagation]:
        """Follow an object from its prompted slices to the others. Changes nothing; may run in any thread.

        axis: across which slices; None takes the one with the most prompted slices. afresh: all of it, not only what
        depends on slices whose prompts changed since the last time. Partials are PropagatedSlice.
        Raises InvalidPrompt if the object has no prompts there, UnsupportedModel for a model that answers in 3D.
        """
        slices = self._slices
        if not isinstance(slices, SliceModel):
            raise UnsupportedModel(
                f"{slices.model.card.name} finds objects in 3D by itself, there is nothing to propagate; "
                "choose a model that works on slices to follow an object with it."
            )
        object_id = whole(object_id, "an object's number", InvalidPrompt)
        axis = self._busiest_axis(object_id, prompted=True) if axis is None else _axis(axis)
        afresh = flag(afresh, "whether all is followed afresh", InvalidPrompt)
        seeds = self._seeds(object_id, axis)
        if not seeds:
            raise InvalidPrompt(f"object {object_id} has no prompts to propagate from; click on it first.")
        before = {} if afresh else self.state.followed.get((object_id, axis), {})
        spans = spans_to_follow(seeds, before, self.volume.shape[axis])
        return follow(slices, object_id, axis, seeds, spans)

    def accept_propagation(self, propagation: Propagation) -> bool:
        """Take in a propagation, as one step; False, and nothing changes, if the object's prompts changed since."""
        record(propagation, Propagation, "a Propagation, as propagation_steps yields one", InvalidPrompt)
        object_id, axis = propagation.object_id, propagation.axis
        if self._seeds(object_id, axis) != propagation.seeds:
            return False
        on_axis = self.state.of_object(object_id, axis)
        changed = self.state.step + 1
        changes = {
            key: replace(there, propagated=None, edited=there.edited if there.prompts else None)
            for key, there in on_axis.items()
            if any(key.index in span for span in propagation.spans)
        }
        for index, mask in propagation.masks.items():
            key = SliceKey(object_id, axis, index)
            there = changes.get(key, on_axis.get(key, SliceState()))
            changes[key] = replace(there, propagated=mask, changed=changed)
        for outcome in propagation.predicted:
            self._timeline.record(outcome)
        digests = {index: seed.digest() for index, seed in propagation.seeds.items()}
        state = self.state.with_object(object_id).with_slices(changes)
        self._timeline.push(replace(state, followed={**state.followed, (object_id, axis): digests}))
        return True

    def propagate(self, object_id: int = 1, axis: int | None = None, afresh: bool = False) -> Steps[Propagation]:
        """As propagation_steps, and the masks are in the session, as one step, when the Result is yielded."""
        steps = self.propagation_steps(object_id, axis, afresh)

        def accepting() -> Steps[Propagation]:
            for step in steps:
                if isinstance(step, Result):
                    self.accept_propagation(step.value)
                yield step

        return accepting()

    def _seeds(self, object_id: int, axis: int) -> dict[int, Seed]:
        """The prompted slices of an object, by index, ascending."""
        on_axis = self.state.of_object(object_id, axis).items()
        seeds = {}
        for key, there in on_axis:
            if there.prompts:
                # What another model made of the prompts is kept as it is.
                kept = there.edited if there.model == self._timeline.model else self._timeline.slice_mask(key)
                seeds[key.index] = Seed(there.given(key), there.candidate if kept is None else None, kept, there.model)
        return dict(sorted(seeds.items()))


def _axis(axis: int) -> int:
    return whole(axis, "the axis across slices", InvalidPrompt, least=0, most=2)
