"""Who says what an object is on the next slice: a model that follows by its own means, or one that is prompted."""

from __future__ import annotations

import numpy as np

from napari_medtransformer.models.following import Follower, SliceView
from napari_medtransformer.prompting.predictor import make_prompts
from napari_medtransformer.prompting.slice_model import SliceModel

Candidates = tuple[np.ndarray, np.ndarray]
"""Logits (m, H, W) of the masks that a model offers for a slice, and the expected IoU (m,) of each."""


class Voice:
    """A model asked about one object on one slice after another, in one direction.

    logits: (H, W) of the slice `start` that it is followed from. A model's own follower looks at slices here, wherever
    prompts are answered, unless it would have to encode them: then the cluster is prompted, if there is one.
    """

    def __init__(self, slices: SliceModel, axis: int, start: int, logits: np.ndarray) -> None:
        self._slices, self._axis = slices, axis
        follower = slices.model.follower()
        if follower is not None and follower.encodes and slices.remote is not None:
            follower = None
        self._follower: Follower | None = follower
        if follower is not None:
            follower.begin(self._view(start), logits)

    def ask(self, index: int, inside: tuple[float, float], before: np.ndarray) -> Candidates:
        """What is on a slice. inside: the (row, column) farthest inside the mask before; before: (H, W) its logits."""
        prompts = make_prompts(self._slices.slice_shape(self._axis), [inside], [1], None, before)
        if self._follower is None:
            prediction = self._slices.decode(self._axis, index, prompts, levels=True)
            return prediction.candidates, prediction.scores
        found = self._follower.look(self._view(index), prompts)
        return found.logits, found.scores

    def tell(self, logits: np.ndarray) -> None:
        """What was made of the slice asked about last: (H, W) logits."""
        if self._follower is not None:
            self._follower.keep(logits)

    def _view(self, index: int) -> SliceView:
        image = self._slices.image(self._axis, index)
        dy, dx = (spacing for a, spacing in enumerate(self._slices.volume.spacing) if a != self._axis)
        return SliceView(image, (dy, dx), lambda: self._slices.embedding(self._axis, index))
