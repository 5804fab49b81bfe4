"""Where a model runs, and in which precision."""

from __future__ import annotations

import torch

from napari_medtransformer.attention.policy import preferred_dtype
from napari_medtransformer.errors import UnsupportedModel, in_words
from napari_medtransformer.given import one_of
from napari_medtransformer.models.card import ModelCard


def choose_device(device: str = "auto") -> torch.device:
    """The device of that name; "auto" takes cuda, then mps, then cpu. Raises UnsupportedModel if it is not there."""
    if isinstance(device, str) and device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise UnsupportedModel(f"no device {in_words(device)}; give auto, cpu, cuda, cuda:N or mps.") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise UnsupportedModel(f"device {device!r} is not there: {there} CUDA devices were found; use auto or cpu.")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UnsupportedModel("device 'mps' is not there; use auto or cpu.")
    return chosen


def available_devices() -> tuple[str, ...]:
    """The devices of this machine by torch's names, fastest first."""
    cuda = tuple(f"cuda:{i}" for i in range(torch.cuda.device_count())) if torch.cuda.is_available() else ()
    return (*cuda, *(("mps",) if torch.backends.mps.is_available() else ()), "cpu")


DTYPES = ("auto", "float32", "bfloat16", "float16")
SMALL_BYTES = 1_000_000_000
"""Models that need less memory than this gain nothing from half precision: they are quick as they are."""


def choose_dtype(device: torch.device, dtype: str = "auto", card: ModelCard | None = None) -> torch.dtype:
    """What a network's matrix products run in on a device.

    dtype: one of DTYPES. "auto": half precision for models of a gigabyte and more on devices with matrix units for it
    (`attention.policy.preferred_dtype`), else float32. Raises UnsupportedModel for other names, and for float16 on the
    processor, which has no units for it.
    """
    one_of(dtype, DTYPES, "a number format", UnsupportedModel)
    if dtype == "auto":
        small = card is not None and card.memory_bytes is not None and card.memory_bytes < SMALL_BYTES
        return torch.float32 if small else preferred_dtype(device)
    if dtype == "float16" and device.type == "cpu":
        raise UnsupportedModel("float16 is for GPUs; on the processor give float32, or bfloat16 for less memory.")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
