"""The tools of the Prompt dock, and what is drawn while one of them is at work."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np


class Tool(Enum):
    """What the mouse on the canvas means."""

    PAN = "pan"
    POINT = "point"
    BOX = "box"
    SCRIBBLE = "scribble"
    LASSO = "lasso"
    REFINE = "refine"
    EDIT = "edit"

    @property
    def has_sign(self) -> bool:
        """Whether its prompts say inside or outside."""
        return self in (Tool.POINT, Tool.SCRIBBLE, Tool.LASSO)


@dataclass(frozen=True, eq=False)
class Sketch:
    """A line on the canvas that is no prompt (yet). line_zyx: (n, 3) voxels. closed: joined up. colour: hex."""

    line_zyx: np.ndarray
    colour: str
    closed: bool = False
    width: float = 1.0
