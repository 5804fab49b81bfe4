"""Attention weighted by its gradient, layer upon layer, for one query: never tokens × tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from napari_medtransformer.attention.captured import CapturedSite
from napari_medtransformer.attention.fused import attend
from napari_medtransformer.attention.interception import ModulePath
from napari_medtransformer.attention.probe import ProbedModel
from napari_medtransformer.attention.rollout import input_grid, spread
from napari_medtransformer.errors import UnsupportedModel


@dataclass(eq=False)
class HeadOutputs:
    """What a site's heads put out in one pass, and the values they weighted. values: (B, heads, K, head_dim). outputs:
    (B, heads, N, head_dim), whose `grad` is there after the backward pass.
    """

    values: Tensor
    outputs: Tensor


@contextmanager
def recorded_outputs(model: ProbedModel, sites: Sequence[str]) -> Iterator[dict[str, HeadOutputs]]:
    """Record the head outputs of these sites, their gradients kept: site → what it put out, once it has run.

    The pass inside must keep its graph; sites run in the thread that entered the block.
    """
    modules = {s.name: model.network.get_submodule(s.module) for s in model.attention_sites() if s.name in sites}
    path, found = ModulePath(), dict[str, HeadOutputs]()

    def keep(values: Tensor, output: Tensor) -> Tensor:
        name = path.current
        if name is None:
            return output
        if not output.requires_grad:  # frozen weights: the graph begins here
            output = output.detach().requires_grad_(True)
        output.retain_grad()
        found[name] = HeadOutputs(values.detach(), output)
        return output

    with path.follow(modules), _OutputMode(keep):
        yield found


def relevance_vector(layers: Sequence[tuple[CapturedSite, HeadOutputs]], start: Tensor) -> Tensor:
    """Where a query's relevance comes from: e (I + Ā_L) … (I + Ā_1) − e, with Ā the mean over heads of (∇A ⊙ A)⁺.

    layers: self-attention over the image, in the order in which they ran, after the backward pass. start: e, (tokens
    of the last layer's queries,) ≥ 0. Returns (tokens of the first layer's finer grid,) ≥ 0. The gradient of an
    attention weight is the inner product of its query's output gradient and its key's value, so that ∇A is made row by
    row as A is. Between grids of different resolution a token's share is spread evenly over the tokens it covers, as in
    rollout. Chefer et al. 2021, eq. 5 and 6. Raises UnsupportedModel where a layer got no gradient, or where grids do
    not divide one another.
    """
    # in double precision: gradients may be so small that beside e they would be rounded away
    vector = (start / start.sum()).double()
    first, grid = vector, layers[-1][0].site.query_grid
    for captured, outputs in reversed(layers):
        asking, below = captured.site.query_grid, input_grid(captured)
        vector, first = (spread(one, grid, asking) for one in (vector, first))
        attended = spread(_weighted_product(captured, outputs, vector), captured.site.key_grid, below)
        vector, first = (spread(one, asking, below) for one in (vector, first))
        vector, grid = vector + attended, below
    return (vector - first).float()


def _weighted_product(captured: CapturedSite, outputs: HeadOutputs, vector: Tensor) -> Tensor:
    gradient = outputs.outputs.grad
    if gradient is None:
        raise UnsupportedModel(f"{captured.site.name} got no gradient; its output does not reach what was asked about.")
    grid = captured.site.query_grid
    gradient, values = _entries(gradient), _entries(outputs.values)
    product = vector.new_zeros(captured.site.key_grid.n_tokens)
    for rows, queries, keys in captured.blocks(vector.nonzero().flatten().cpu()):
        windows, places = grid.window_of_token[queries].unbind(1)
        entry = captured.image * grid.window_tokens.shape[0] + int(windows[0])
        slope = gradient[entry][:, places.to(gradient.device)].float() @ values[entry].float().transpose(1, 2)
        weighted = (slope * rows).clamp_(min=0).mean(dim=0)
        real = keys >= 0
        product[keys[real]] += (vector[queries] @ weighted.to(vector))[real]
    return product


def _entries(tensor: Tensor) -> Tensor:
    """(B, heads, n, head_dim), as a call is recorded: of 3 axes one head, of 5 and more a batch."""
    return tensor[:, None] if tensor.ndim == 3 else tensor.flatten(0, tensor.ndim - 4) if tensor.ndim > 4 else tensor


class _OutputMode(TorchFunctionMode):
    """Shows the values and the output of every attention call to a listener, which may return another output."""

    def __init__(self, keep: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self._keep = keep

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func is attend:
            return self._keep(args[2] if len(args) > 2 else kwargs["v"], output)
        if func is F.scaled_dot_product_attention:
            return self._keep(args[2] if len(args) > 2 else kwargs["value"], output)
        return output
