"""Networks before a checkpoint fills them: made without initialising, or with weights drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

# how the linear layers that make queries and keys are called in the families known here
_SCORES = ("qkv", "q_proj", "k_proj", "query", "key")
# standard deviation of what no layer's own initialisation draws, by the end of its name
_DEVIATIONS = (
    ("positional_embedding", 1.0),  # Fourier frequencies (Kirillov et al. 2023)
    ("gaussian_matrix", 1.0),
    ("rel_pos_d", 0.1),
    ("rel_pos_h", 0.1),
    ("rel_pos_w", 0.1),
    ("relative_position_bias_table", 0.1),
)
_OTHERS = 0.02


def empty(make: Callable[[], Network]) -> Network:
    """The network that `make` makes, with uninitialised parameters: for a checkpoint to fill, or draw_weights.

    Networks with buffers that no checkpoint holds are made with all their values, which takes longer.
    """
    with torch.device("meta"):
        network = make()
    if any(name not in network.state_dict() for name, _ in network.named_buffers()):
        return make()
    return network.to_empty(device="cpu")


def draw_weights(network: Network, seed: int) -> Network:
    """The same network with weights drawn from `seed`, such that its attention depends on the image.

    Layers get torch's own initialisation; those that make queries and keys such that scores have about unit variance,
    so that heads differ in where they look; positions are drawn, where the original codes start at zero.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for path, module in network.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
                if isinstance(module, nn.Linear) and path.rpartition(".")[2] in _SCORES:
                    nn.init.normal_(module.weight, std=module.in_features**-0.5)
                continue
            for name, value in (*module.named_parameters(recurse=False), *_saved_buffers(module)):
                deviation = next((std for end, std in _DEVIATIONS if name.endswith(end)), _OTHERS)
                nn.init.normal_(value, std=deviation)
    return network


def _saved_buffers(module: nn.Module) -> list[tuple[str, Tensor]]:
    skipped = module._non_persistent_buffers_set
    return [
        (name, value)
        for name, value in module.named_buffers(recurse=False)
        if name not in skipped and value.is_floating_point()
    ]
