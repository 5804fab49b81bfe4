"""Switching attention heads off during a pass, to see what they are good for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from napari_medtransformer.attention.interception import AttentionMode, ModulePath, eager_if_compiled
from napari_medtransformer.attention.probe import ProbedModel
from napari_medtransformer.attention.sites import SiteSpec
from napari_medtransformer.errors import NothingCaptured, QueryOutOfGrid, UnknownSite

Heads = Sequence[int] | Literal["all"]


@contextmanager
def ablated_heads(model: ProbedModel, heads: Mapping[str, Heads]) -> Iterator[None]:
    """While inside, these heads contribute nothing: their output is zero before the output projection.

    heads: site name → head numbers, or "all". With all heads of a site its whole branch is gone, the projection's
    bias included, which belongs to no head. An empty mapping changes nothing. Works in the thread that enters it.
    Raises UnknownSite, QueryOutOfGrid for a head a site does not have and, when the block ends, NothingCaptured if one
    of the sites did not run.
    """
    chosen = {name: (spec, _head_numbers(spec, heads[name])) for name, spec in _specs(model, heads).items()}
    path, touched = ModulePath(), set[str]()

    def without_heads(output: Tensor) -> Tensor:
        name = path.current
        if name is None:
            return output
        touched.add(name)
        spec, numbers = chosen[name]
        if output.shape[1] != spec.heads:
            raise QueryOutOfGrid(f"site {name!r} ran with {output.shape[1]} heads; it is declared with {spec.heads}.")
        kept = torch.ones(spec.heads, dtype=torch.bool, device=output.device)
        kept[list(numbers)] = False
        return output.masked_fill(~kept[:, None, None], 0.0)

    modules = {name: model.network.get_submodule(spec.module) for name, (spec, _) in chosen.items()}
    with ExitStack() as stack:
        stack.enter_context(eager_if_compiled(model.network))
        for name, (spec, numbers) in chosen.items():
            if len(numbers) == spec.heads:
                stack.callback(modules[name].register_forward_hook(_zero_output(path)).remove)
        stack.enter_context(path.follow(modules))
        if any(numbers for _, numbers in chosen.values()):
            stack.enter_context(AttentionMode(on_output=without_heads))
        yield
    idle = [name for name, (_, numbers) in chosen.items() if numbers and name not in touched]
    if idle:
        raise NothingCaptured(
            f"sites {', '.join(idle)} did not run, so no head was switched off; run the model inside."
        )


def _specs(model: ProbedModel, heads: Mapping[str, Heads]) -> dict[str, SiteSpec]:
    specs = {spec.name: spec for spec in model.attention_sites()}
    for name in heads:
        if name not in specs:
            raise UnknownSite(f"no attention site {name!r}; there are {', '.join(specs)}.")
    return {name: specs[name] for name in heads}


def _head_numbers(spec: SiteSpec, heads: Heads) -> frozenset[int]:
    numbers = frozenset(range(spec.heads)) if heads == "all" else frozenset(int(h) for h in heads)
    if any(not 0 <= number < spec.heads for number in numbers):
        raise QueryOutOfGrid(f"site {spec.name!r} has heads 0 to {spec.heads - 1}, not {sorted(numbers)}.")
    return numbers


def _zero_output(path: ModulePath) -> Any:
    """A forward hook that replaces a branch's output, a tensor or the first of a tuple, by zeros."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        if not path.is_own_thread:
            return output
        if isinstance(output, tuple):
            return (torch.zeros_like(output[0]), *output[1:])
        return torch.zeros_like(output)

    return hook
