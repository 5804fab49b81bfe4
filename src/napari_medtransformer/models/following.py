"""Following an object from slice to slice by means of a model's own, instead of prompting every slice anew."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from napari_medtransformer.models.base import ImageEmbedding, MaskPrediction, Prompts


@dataclass(frozen=True, eq=False)
class SliceView:
    """A slice as a follower may look at it.

    image: (H, W) float32 in [0, 1], already windowed. pixel_size: (y, x), in any unit. encode: the slice encoded, made
    when it is asked for.
    """

    image: np.ndarray
    pixel_size: tuple[float, float]
    encode: Callable[[], ImageEmbedding]


class Follower(ABC):
    """What a model keeps in mind of one object while it is followed in one direction: one per object and direction."""

    encodes = True
    """Whether it needs slices encoded."""

    @abstractmethod
    def begin(self, view: SliceView, logits: np.ndarray) -> None:
        """Be shown the object where it was marked. logits: (H, W) float32, inside > 0."""

    @abstractmethod
    def look(self, view: SliceView, prompts: Prompts) -> MaskPrediction:
        """Find the object on the next slice.

        prompts: its most interior point on the slice before, and the logits of its mask there.
        """

    @abstractmethod
    def keep(self, logits: np.ndarray) -> None:
        """Be told what the slice looked at last was found to hold. logits: (H, W) float32."""
