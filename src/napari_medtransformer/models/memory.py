"""Memory: how much a device has left, and what to do when it is not enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

_CPU_REFUSALS = (
    "DefaultCPUAllocator",
    "can't allocate memory",
    "not enough memory",
    "std::bad_alloc",
    # oneDNN, whose own buffers do not come from torch's allocator
    "could not create a primitive",
    "could not create a memory",
    "MPS backend out of memory",
)


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes of a device's memory: `free` of `total`."""

    free: int
    total: int


def device_memory(device: torch.device | str) -> DeviceMemory:
    """What a device has and has left: the GPU's own memory, or the machine's for cpu and mps, which share it."""
    if str(device).startswith("cuda"):
        import torch

        free, total = torch.cuda.mem_get_info(device)
        # what torch holds on to without using it can be given to a model
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return DeviceMemory(free + idle, total)
    there = psutil.virtual_memory()
    return DeviceMemory(there.available, there.total)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch says so in different ways on different devices."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _CPU_REFUSALS)


@dataclass(frozen=True)
class Plan:
    """Where a model runs and what its matrix products run in."""

    device: torch.device
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.device} in {str(self.dtype).removeprefix('torch.')}"

    def smaller(self) -> Plan | None:
        """The next plan that takes less memory: half precision first, then the processor; None if there is none."""
        import torch

        if self.dtype == torch.float32 and self.device.type in ("cuda", "cpu"):
            return Plan(self.device, torch.bfloat16)
        if self.device.type != "cpu":
            return Plan(torch.device("cpu"), torch.float32)
        return None
