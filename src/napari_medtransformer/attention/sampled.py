"""Deformable attention, inspected as what it is: a few sampled places per query and head, each with a weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.errors import NothingCaptured, QueryOutOfGrid


@dataclass(frozen=True, eq=False)
class SampledAttention:
    """Where one deformable attention looked, for one image.

    locations: (queries, heads, levels, points, 2) in [0, 1] of the network's input, (x, y). weights: (queries, heads,
    levels, points) float32, summing to 1 over levels and points (Zhu et al. 2021, eq. 3).
    """

    name: str
    locations: Tensor
    weights: Tensor

    def points(self, query: int, placement: InputPlacement) -> tuple[np.ndarray, np.ndarray]:
        """The native (y, x) coordinates a query sampled, (heads, levels · points, 2), and weights (heads, …).

        Coordinates may lie outside the image, where the network reads zeros. Raises QueryOutOfGrid.
        """
        if not 0 <= query < self.locations.shape[0]:
            raise QueryOutOfGrid(f"{self.name} has queries 0 to {self.locations.shape[0] - 1}, not {query}.")
        unit = self.locations[query].flatten(1, 2).flip(-1).double().numpy()
        inputs = unit * np.asarray(placement.input_shape) - 0.5
        resized, native = np.asarray(placement.resized_shape), np.asarray(placement.native_shape)
        places = (inputs + np.asarray(placement.start) + 0.5) * native / resized - 0.5
        return places, self.weights[query].flatten(1).numpy()


@contextmanager
def sampled_attention(network: nn.Module, image: int = 0) -> Iterator[Mapping[str, SampledAttention]]:
    """Record every deformable attention of transformers' networks that runs inside: module path → what it sampled.

    image: which of a batch. Raises NothingCaptured when the block ends without any; the hooks are gone then.
    """
    found: dict[str, SampledAttention] = {}

    def record(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = dict(zip(_PARAMETERS, args, strict=False)) | kwargs
        locations, weights = given["sampling_locations"][image], given["attention_weights"][image]
        found[name] = SampledAttention(name, locations.detach().float().cpu(), weights.detach().float().cpu())

    with ExitStack() as stack:
        for path, module in network.named_modules():
            if type(module).__name__ == "MultiScaleDeformableAttention":
                hook = module.register_forward_pre_hook(partial(record, path.rpartition(".")[0]), with_kwargs=True)
                stack.callback(hook.remove)
        yield found
    if not found:
        raise NothingCaptured("no deformable attention ran; run a network that has one inside the block.")


_PARAMETERS = (
    "value",
    "value_spatial_shapes",
    "value_spatial_shapes_list",
    "level_start_index",
    "sampling_locations",
    "attention_weights",
)
