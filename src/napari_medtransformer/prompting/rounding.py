"""Logits in steps: one byte per pixel instead of four, the same here and on their way from a worker.

A network's certainty is cut at ±6 (sigmoid 0.998) and told in steps of 1/20; what is inside stays inside.
"""

from __future__ import annotations

import numpy as np

LOGIT_LIMIT = 6.0
_PER_UNIT = 20  # steps; 6 · 20 fits a byte


def rounded_levels(logits: np.ndarray) -> np.ndarray:
    """Logits of any shape as int8 steps, rounded away from the outline: above 0 stays above 0."""
    steps = np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT) * np.float32(_PER_UNIT)
    return np.where(logits > 0, np.ceil(steps), np.floor(steps)).astype(np.int8)


def logits_from_levels(levels: np.ndarray) -> np.ndarray:
    """The float32 logits that the steps say."""
    logits: np.ndarray = levels.astype(np.float32) / np.float32(_PER_UNIT)
    return logits
