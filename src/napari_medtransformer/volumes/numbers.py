"""Arrays as users hand them over, NumPy's, torch's or lists: taken as numbers, or refused in one line."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_medtransformer.errors import MedTransformerError, UnsupportedVolume
from napari_medtransformer.volumes.guard import one_line


def numbers(given: Any, what: str, refusal: type[MedTransformerError] = UnsupportedVolume) -> np.ndarray:
    """An array of integers, real numbers or bool; one that is an array already, in native byte order, is not copied.

    given: also a torch tensor, on any device and with gradients. Extended precision becomes float64, torch's bfloat16
    float32. what: how it is called in the message of a `refusal`, which is raised for anything else.
    """
    try:
        if hasattr(given, "detach"):  # torch's, which this room does not import
            given = given.detach().cpu().to_dense()
            given = given.float() if "bfloat16" in str(given.dtype) else given
        array = given if isinstance(given, np.memmap) else np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise refusal(f"{what} cannot be read as an array of numbers: {one_line(error)}.") from error
    if array.dtype.kind not in "buif":
        raise refusal(f"{what} holds {array.dtype} values; expected integers or real numbers.")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
