"""Which number format and which attention kernel a device gets, and how to override it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch

BiasKernel = Literal["low-rank", "blockwise"]

_TOLD_BY = {"amx_bf16": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}
"""What tells of an instruction set in a torch without `get_capabilities`, such as 2.8. AMX came with bfloat16."""


@dataclass(frozen=True)
class AttentionPolicy:
    """autocast_dtype: what matrix products run in, None for the parameters' own dtype.

    bias_kernel: how a decomposed relative position is computed. "low-rank": one fused kernel over queries and keys
    extended by the position terms; best where matrix products are nearly free (GPUs). "blockwise": the fused kernel
    over blocks of queries, each with its bias; best on processors, where that width triples the arithmetic (4096
    tokens, 12 heads, two cores: 0.6 s against 1.0 s on Zen 4 in float32, 0.36 s against 0.42 s with AMX in bfloat16).
    """

    autocast_dtype: torch.dtype | None
    bias_kernel: BiasKernel


_override: ContextVar[AttentionPolicy | None] = ContextVar("attention_policy", default=None)


def policy_for(device: torch.device | str) -> AttentionPolicy:
    """The policy in force for a device: the one of `use_policy`, or the device's default."""
    override = _override.get()
    return override if override is not None else _default_policy(torch.device(device).type)


@contextmanager
def use_policy(policy: AttentionPolicy) -> Iterator[AttentionPolicy]:
    """Run everything inside under this policy, whatever the device."""
    token = _override.set(policy)
    try:
        yield policy
    finally:
        _override.reset(token)


def preferred_dtype(device: torch.device | str) -> torch.dtype:
    """What large networks run in on a device unless the user says otherwise.

    Half precision where the device has matrix units for it (GPUs, processors with AMX), float32 elsewhere: results
    are then the same on every machine within rounding.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return _default_policy("cuda").autocast_dtype or torch.float32
    return torch.bfloat16 if device.type == "cpu" and cpu_has("amx_bf16") else torch.float32


@lru_cache
def _default_policy(device_type: str) -> AttentionPolicy:
    if device_type == "cuda":
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return AttentionPolicy(dtype, "low-rank")
    if device_type != "cpu":
        return AttentionPolicy(None, "low-rank")
    half = cpu_has("amx_bf16") or cpu_has("avx512_bf16")
    return AttentionPolicy(torch.bfloat16 if half else None, "blockwise")


def cpu_has(*instruction_sets: str) -> bool:
    """Whether the processor, as torch uses it, has all of these, such as "amx_bf16" or "avx512_bf16"."""
    # ATEN_CPU_CAPABILITY can hold torch below what the processor has
    if torch.backends.cpu.get_cpu_capability() not in ("AVX512", "AMX"):
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return all(capabilities.get(name, False) for name in instruction_sets)
    return all(getattr(torch.cpu, _TOLD_BY.get(name, ""), bool)() for name in instruction_sets)


def sdpa_kernel_name(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> str:
    """Which kernel scaled_dot_product_attention picks for these tensors, such as "flash" or "math"."""
    choice = torch._fused_sdp_choice(q, k, v, mask)
    names = {0: "math", 1: "flash", 2: "memory-efficient", 3: "cuDNN", 4: "overrideable"}
    return f"{q.device.type} {names.get(int(choice), 'unknown')}"
