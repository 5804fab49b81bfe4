"""What is done to an object's masks: filled between slices, smoothed, cleaned, imported, measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args, overload

import numpy as np

from napari_medtransformer.errors import InvalidPrompt
from napari_medtransformer.given import one_of, real, record, whole
from napari_medtransformer.prompting import shapes
from napari_medtransformer.prompting.labels import Masks, composed_object, plane
from napari_medtransformer.prompting.masks import PackedMask, unpacked
from napari_medtransformer.prompting.measures import ObjectStatistics, object_statistics
from napari_medtransformer.prompting.prompts import SliceKey
from napari_medtransformer.prompting.session_core import SessionCore
from napari_medtransformer.prompting.state import SliceState
from napari_medtransformer.volumes.numbers import numbers

EditKind = Literal["fill", "smooth", "largest", "holes"]
_AXIS = "the axis across an object's slices"


@dataclass(frozen=True, eq=False)
class MaskEdit:
    """New masks of an object on slices across `axis`, by index, and the masks they were made from.

    between: they lie between prompted slices, so a propagation may replace them.
    """

    object_id: int
    axis: int
    masks: Mapping[int, PackedMask]
    made_from: Masks
    between: bool = False


class MaskSteps(SessionCore):
    """Each edit is one step of undo. All raise InvalidPrompt for an object that is not there or has no mask."""

    def object_mask(self, object_id: int) -> np.ndarray:
        """(z, y, x) bool: one object, whatever lies on top of it; empty if there is none. May run in any thread.

        Raises InvalidPrompt for what is no number of an object.
        """
        object_id = whole(object_id, "an object's number", InvalidPrompt)
        return composed_object(self._masks_of(object_id), self.volume.shape)

    @overload
    def statistics(self, object_id: int) -> ObjectStatistics: ...

    @overload
    def statistics(self, object_id: None = None) -> list[ObjectStatistics]: ...

    def statistics(self, object_id: int | None = None) -> ObjectStatistics | list[ObjectStatistics]:
        """What an object measures, or all of them in their order. May run in any thread."""
        if object_id is None:
            return [self.statistics(one.object_id) for one in self.objects]
        self._check_object(object_id)
        return object_statistics(object_id, self.object_mask(object_id), self.volume)

    def edit(
        self, kind: EditKind, object_id: int = 1, *, axis: int | None = None, sigma_mm: float | None = None
    ) -> MaskEdit:
        """What an edit would change; nothing is changed yet. May run in any thread.

        axis: across which slices, None for the one with the most of them. sigma_mm: see smooth.
        """
        one_of(kind, get_args(EditKind), "an edit", InvalidPrompt)
        self._check_object(object_id)
        made_from = self._masks_of(object_id)
        if not made_from:
            raise InvalidPrompt(f"object {object_id} has no mask yet; click on it first.")
        if axis is None:
            axis = self._busiest_axis(object_id, prompted=kind == "fill")
        axis = whole(axis, _AXIS, InvalidPrompt, least=0, most=2)
        if kind == "fill":
            return self._filled(object_id, axis, made_from)
        before = composed_object(made_from, self.volume.shape)
        if kind == "smooth":
            after = self._smoothed(before, axis, sigma_mm)
        elif kind == "largest":
            after = shapes.largest_part(before)
        else:
            after = shapes.without_holes(before, axis)
        return MaskEdit(object_id, axis, _differing(before, after, axis), made_from)

    def accept_edit(self, edit: MaskEdit) -> bool:
        """Take in an edit, as one step if it changes anything; False if the object's masks changed meanwhile."""
        record(edit, MaskEdit, "a MaskEdit, as edit gives one", InvalidPrompt)
        if self._masks_of(edit.object_id) != edit.made_from:
            return False
        changes = {}
        for index, mask in edit.masks.items():
            key = SliceKey(edit.object_id, edit.axis, index)
            there = self._timeline.slice(key)
            new = replace(there, propagated=mask, edited=None) if edit.between else replace(there, edited=mask)
            changes[key] = replace(new, changed=self.state.step + 1)
        if changes:
            followed = dict(self.state.followed)
            if edit.between:
                followed.pop((edit.object_id, edit.axis), None)
            self._timeline.push(replace(self.state.with_slices(changes), followed=followed))
        return True

    def fill_between(self, object_id: int = 1, axis: int | None = None) -> int:
        """Paint the slices between the prompted ones with shapes between theirs. Returns how many slices changed."""
        return self._edited(self.edit("fill", object_id, axis=axis))

    def smooth(self, object_id: int = 1, sigma_mm: float | None = None) -> int:
        """Smooth an object's outline in 3D, keeping its volume. Returns how many slices changed.

        sigma_mm: of the Gaussian; None takes one and a half times the smallest side of a voxel.
        """
        return self._edited(self.edit("smooth", object_id, sigma_mm=sigma_mm))

    def keep_largest(self, object_id: int = 1) -> int:
        """Keep the largest connected part of an object in 3D. Returns how many slices changed."""
        return self._edited(self.edit("largest", object_id))

    def close_holes(self, object_id: int = 1, axis: int | None = None) -> int:
        """Fill what an object encloses on its slices. Returns how many slices changed."""
        return self._edited(self.edit("holes", object_id, axis=axis))

    def import_mask(self, mask_zyx: np.ndarray, object_id: int = 1, axis: int = 0) -> int:
        """Make an existing label an object's masks on slices across `axis`, to be refined by prompts; one step.

        mask_zyx: bool on the volume's grid; where it is empty the object's masks stay. Returns how many slices it is
        on. Raises InvalidPrompt for another shape or an empty mask.
        """
        mask_zyx = numbers(mask_zyx, "the label", InvalidPrompt)
        axis = whole(axis, _AXIS, InvalidPrompt, least=0, most=2)
        if mask_zyx.shape != self.volume.shape:
            raise InvalidPrompt(f"a label of shape {mask_zyx.shape} does not fit the volume of {self.volume.shape}.")
        state = self.state.with_object(object_id)
        changes = {}
        for index in range(self.volume.shape[axis]):
            on_slice = plane(mask_zyx, axis, index) > 0
            if on_slice.any():
                key = SliceKey(object_id, axis, index)
                there = self.state.slices.get(key, SliceState())
                changes[key] = replace(there, edited=PackedMask.pack(on_slice), changed=self.state.step + 1)
        if not changes:
            raise InvalidPrompt("the label is empty; choose one that has voxels.")
        self._timeline.push(state.with_slices(changes))
        return len(changes)

    def _edited(self, edit: MaskEdit) -> int:
        self.accept_edit(edit)
        return len(edit.masks)

    def _masks_of(self, object_id: int) -> Masks:
        return {key: one for key, one in self._timeline.masks().items() if key.object_id == object_id}

    def _filled(self, object_id: int, axis: int, made_from: Masks) -> MaskEdit:
        prompted = {key for key, there in self.state.of_object(object_id, axis).items() if there.prompts}
        known = {key.index: unpacked(mask) for key, (_, mask) in made_from.items() if key in prompted}
        if len(known) < 2:
            raise InvalidPrompt(
                f"object {object_id} has prompts on {len(known)} slice{'s' * (len(known) != 1)} across axis {axis}; "
                "filling between needs two or more."
            )
        there = {key.index: mask for key, (_, mask) in made_from.items() if key.axis == axis}
        filled = {index: PackedMask.pack(mask) for index, mask in shapes.fill_between(known).items()}
        changed = {index: mask for index, mask in filled.items() if there.get(index) != mask}
        return MaskEdit(object_id, axis, changed, made_from, between=True)

    def _smoothed(self, mask: np.ndarray, axis: int, sigma_mm: float | None) -> np.ndarray:
        spacing = self.volume.spacing
        width = 1.5 * min(spacing)
        if sigma_mm is not None:
            width = real(sigma_mm, "a smoothing width in millimetres", InvalidPrompt, above=0)
        longest = max(n * s for n, s in zip(self.volume.shape, spacing, strict=True))
        if width > longest:
            raise InvalidPrompt(f"a smoothing width of {width:g} mm is beyond the volume's {longest:g} mm; take a few.")
        order = (axis, *(a for a in range(3) if a != axis))
        s0, s1, s2 = (width / spacing[a] for a in order)
        after = shapes.smoothed(np.transpose(mask, order), (s0, s1, s2))
        return np.transpose(after, np.argsort(order))


def _differing(before: np.ndarray, after: np.ndarray, axis: int) -> dict[int, PackedMask]:
    """The slices of `after` that are not as before, by index."""
    others = tuple(a for a in range(3) if a != axis)
    indices = np.flatnonzero((before != after).any(axis=others))
    return {int(index): PackedMask.pack(plane(after, axis, int(index))) for index in indices}
