"""Prompt after prompt on a slice: which of them refine the answer to those before, and the answers that are known."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from napari_medtransformer.prompting.masks import PackedMask, unpacked
from napari_medtransformer.prompting.model_prompts import honour
from napari_medtransformer.prompting.prompts import LassoPrompt, PointPrompt, Prompt, ScribblePrompt, SliceKey

# Certainty given to the mask that is refined: less than to a mask that a person gave, as it is about to be corrected.
# After three clicks on the validation sets of docs/quality.md: Dice .72, .74, .75 and .75 with 1, 2, 3 and 4.5.
REFINED_LOGIT = 3.0
_REMEMBERED = 256  # answers, packed


def refined_logits(mask: np.ndarray) -> np.ndarray:
    """(H, W) float32 logits of an answer, a bool mask, that the next prompt refines."""
    return np.where(mask, np.float32(REFINED_LOGIT), np.float32(-REFINED_LOGIT))


def refines(prompt: Prompt) -> bool:
    """Whether a prompt can correct the answer before it: a point, a stroke, a lasso around what is not the object.

    A box, a lasso around the object or a mask says anew what is meant.
    """
    return isinstance(prompt, PointPrompt | ScribblePrompt) or (isinstance(prompt, LassoPrompt) and not prompt.positive)


def contradicts(prompt: Prompt, answer: np.ndarray) -> bool:
    """Whether a prompt says of any pixel that the answer, (H, W) bool, is wrong there."""
    said = refined_logits(answer)[None]
    return honour(said, (prompt,)) is not said


class Answers:
    """The masks that prompts on slices were answered with: those that were of use last. Safe in any thread."""

    def __init__(self) -> None:
        self._masks: OrderedDict[tuple[SliceKey, tuple[Prompt, ...]], PackedMask] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, key: SliceKey, prompts: tuple[Prompt, ...], mask: np.ndarray) -> None:
        """Remember the mask, (H, W) bool, that these prompts were answered with."""
        packed = PackedMask.pack(mask)
        with self._lock:
            self._masks[key, prompts] = packed
            self._masks.move_to_end((key, prompts))
            while len(self._masks) > _REMEMBERED:
                self._masks.popitem(last=False)

    def get(self, key: SliceKey, prompts: tuple[Prompt, ...]) -> np.ndarray | None:
        """(H, W) bool, read-only: the answer to these prompts, None where it is not remembered."""
        with self._lock:
            packed = self._masks.get((key, prompts))
            if packed is not None:
                self._masks.move_to_end((key, prompts))
        return None if packed is None else unpacked(packed)
