"""Values of another type than what is asked for, and that each is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from napari_medtransformer.errors import MedTransformerError

WRONG = {
    "None": None,
    "text": "a b",
    "nan": float("nan"),
    "infinite": float("inf"),
    "half": -1.5,
    "list": ["a", 1],
    "object": object(),
    "matrix": np.full((2, 2), -1.5),
    "tensor": torch.full((2,), -1.0),
    "type": int,
    "bytes": b"x",
    "complex": 1j,
}


def assert_refused(
    call: Callable[[Any], object],
    right: str = "",
    *,
    error: type[MedTransformerError] = MedTransformerError,
) -> None:
    """Call it with each of WRONG but those whose names are in `right`, where they are right."""
    for name in WRONG.keys() - set(right.split()):
        with pytest.raises(error) as told:
            call(WRONG[name])
        said = str(told.value)
        assert "\n" not in said
        assert len(said) < 400, said
