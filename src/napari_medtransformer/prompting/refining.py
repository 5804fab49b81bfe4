"""Prompt after prompt on a slice: the mask that all of them together refine, and the answers that are known."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np

from napari_medtransformer.prompting.masks import PackedMask, unpacked

# Certainty given to the mask that is refined: less than to a mask that a person gave, as it is about to be corrected.
# After three clicks on the validation sets of docs/quality.md: Dice .72, .74, .75 and .75 with 1, 2, 3 and 4.5.
REFINED_LOGIT = 3.0
_REMEMBERED = 256  # answers, packed


def refined_logits(mask: np.ndarray) -> np.ndarray:
    """(H, W) float32 logits of an answer, a bool mask, that the next prompt refines."""
    return np.where(mask, np.float32(REFINED_LOGIT), np.float32(-REFINED_LOGIT))


def mask_to_refine(
    first: int,
    count: int,
    answer: Callable[[int, np.ndarray | None], np.ndarray],
    contradicted: Callable[[int, np.ndarray], bool],
) -> np.ndarray | None:
    """(H, W) bool: what `count` prompts refine, the answer before the last one that contradicts it; None for nothing.

    A prompt that agrees with the answer before it joins the prompts before. first: how many say what is meant, and are
    answered together. answer: the mask that the first so many prompts are answered with, given the one they refine.
    contradicted: whether the prompt of a number, from 0, says of any pixel of a mask that it is wrong there.
    """
    refined = None
    for given in range(first, count):
        mask = answer(given, refined)
        if contradicted(given, mask):
            refined = mask
    return refined


class Answers:
    """The masks that prompts were answered with: those that were of use last. Safe in any thread."""

    def __init__(self) -> None:
        self._masks: OrderedDict[Hashable, PackedMask] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, asked: Hashable, mask: np.ndarray) -> None:
        """Remember the mask, (H, W) bool, that this was answered with."""
        packed = PackedMask.pack(mask)
        with self._lock:
            self._masks[asked] = packed
            self._masks.move_to_end(asked)
            while len(self._masks) > _REMEMBERED:
                self._masks.popitem(last=False)

    def get(self, asked: Hashable) -> np.ndarray | None:
        """(H, W) bool, read-only: the answer to this, None where it is not remembered."""
        with self._lock:
            packed = self._masks.get(asked)
            if packed is not None:
                self._masks.move_to_end(asked)
        return None if packed is None else unpacked(packed)
