"""A guard against tensors of tokens × tokens elements."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NoMatrix(TorchDispatchMode):
    """Fails as soon as an operation makes a tensor of tokens × tokens elements or more."""

    def __init__(self, tokens):
        super().__init__()
        self.limit = tokens * tokens
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            # an expanded view holds no elements of its own
            if isinstance(tensor, torch.Tensor) and not func.is_view:
                self.largest = max(self.largest, tensor.numel())
                assert tensor.numel() < self.limit, f"{func} made {tuple(tensor.shape)}"
        return out
