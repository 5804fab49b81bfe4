"""Where a model runs, and in which precision."""

from __future__ import annotations

import torch

from napari_medtransformer.errors import UnsupportedModel


def choose_device(device: str = "auto") -> torch.device:
    """The device of that name; "auto" takes cuda, then mps, then cpu. Raises UnsupportedModel if it is not there."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UnsupportedModel(f"no device {device!r}; give auto, cpu, cuda, cuda:N or mps.") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise UnsupportedModel(f"device {device!r} is not there: {there} CUDA devices were found; use auto or cpu.")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UnsupportedModel("device 'mps' is not there; use auto or cpu.")
    return chosen


def choose_dtype(device: torch.device) -> torch.dtype:
    """float32 everywhere: results are then the same on every machine within rounding."""
    return torch.float32
