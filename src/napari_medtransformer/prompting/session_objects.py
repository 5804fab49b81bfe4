"""What is done to a session's objects as wholes: made, named, classed, coloured, ordered, cleared, removed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from napari_medtransformer.errors import InvalidPrompt, in_words
from napari_medtransformer.given import whole, wholes
from napari_medtransformer.prompting.session_core import SessionCore
from napari_medtransformer.prompting.state import SessionObject

_COLOUR = re.compile(r"#[0-9a-f]{6}")


class ObjectSteps(SessionCore):
    """Each call is one step of undo. All raise InvalidPrompt for an object that is not there."""

    def new_object(self, name: str = "", class_name: str = "") -> int:
        """Add an object on top; its number is one more than the highest there is."""
        object_id = 1 + max((one.object_id for one in self.objects), default=0)
        state = self.state.with_object(object_id, name)
        objects = tuple(replace(o, class_name=class_name) if o.object_id == object_id else o for o in state.objects)
        self._timeline.push(replace(state, objects=objects))
        return object_id

    def object(self, object_id: int) -> SessionObject:
        """The object of that number."""
        self._check_object(object_id)
        return next(one for one in self.objects if one.object_id == object_id)

    def rename_object(self, object_id: int, name: str) -> None:
        """Name an object."""
        self._replace(replace(self.object(object_id), name=name))

    def class_object(self, object_id: int, class_name: str) -> None:
        """Say what kind of thing an object is, such as "lesion"; "" for none."""
        self._replace(replace(self.object(object_id), class_name=class_name))

    def colour_object(self, object_id: int, colour: str) -> None:
        """Give an object a colour, "#rrggbb"; "" for the automatic one. Raises InvalidPrompt for what is none."""
        if not isinstance(colour, str) or (colour and not _COLOUR.fullmatch(colour.lower())):
            raise InvalidPrompt(f"a colour reads #rrggbb, such as #ff8800, not {in_words(colour)}.")
        self._replace(replace(self.object(object_id), colour=colour.lower()))

    def order_objects(self, object_ids: Sequence[int]) -> None:
        """Put the objects in another order, from the lowest to the one on top: where they overlap, the upper counts.

        object_ids: the number of every object, once. Raises InvalidPrompt otherwise.
        """
        order = wholes(object_ids, "an order's objects", InvalidPrompt)
        by_number = {one.object_id: one for one in self.objects}
        if sorted(order) != sorted(by_number):
            raise InvalidPrompt(f"an order names every object once: {sorted(by_number)}, not {in_words(order)}.")
        objects = tuple(by_number[number] for number in order)
        if objects != self.objects:
            self._timeline.push(replace(self.state, objects=objects))

    def move_object(self, object_id: int, by: int) -> None:
        """Move an object up (by 1, say) or down (-1) in the order, as far as there is room."""
        by = whole(by, "how far an object moves", InvalidPrompt)
        moved = self.object(object_id)
        place = self.objects.index(moved) + by
        order = [one.object_id for one in self.objects if one is not moved]
        order.insert(min(max(place, 0), len(order)), moved.object_id)
        self.order_objects(order)

    def clear_object(self, object_id: int) -> None:
        """Take an object's prompts and masks away; the object stays."""
        self._check_object(object_id)
        self._timeline.push(self.state.without_slices_of(object_id))

    def remove_object(self, object_id: int) -> None:
        """Take an object away with all its prompts and masks."""
        self._check_object(object_id)
        kept = tuple(one for one in self.objects if one.object_id != object_id)
        self._timeline.push(replace(self.state.without_slices_of(object_id), objects=kept))

    def _replace(self, changed: SessionObject) -> None:
        objects = tuple(changed if one.object_id == changed.object_id else one for one in self.objects)
        self._timeline.push(replace(self.state, objects=objects))
