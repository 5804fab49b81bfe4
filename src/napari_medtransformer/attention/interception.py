"""Seeing every attention call of any network while its fused kernels run."""

from __future__ import annotations

import inspect
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from napari_medtransformer.attention.bias import Bias, DecomposedBias, DenseBias, KeyTermsBias, WindowBias
from napari_medtransformer.attention.calls import AttentionCall
from napari_medtransformer.attention.fused import attend, kernel_name
from napari_medtransformer.attention.policy import sdpa_kernel_name

_SDPA = inspect.Signature(
    [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
        for name, default in (
            ("query", inspect.Parameter.empty),
            ("key", inspect.Parameter.empty),
            ("value", inspect.Parameter.empty),
            ("attn_mask", None),
            ("dropout_p", 0.0),
            ("is_causal", False),
            ("scale", None),
            ("enable_gqa", False),
        )
    ]
)
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


class ModulePath:
    """Which of some modules of a network is running in the thread that made this: the innermost one's name."""

    def __init__(self) -> None:
        self._running: list[str] = []
        self._thread = threading.get_ident()

    @property
    def is_own_thread(self) -> bool:
        """Whether this is the thread that is followed; another may run the same network meanwhile."""
        return threading.get_ident() == self._thread

    @property
    def current(self) -> str | None:
        """The innermost running module's name, None outside all of them."""
        return self._running[-1] if self._running else None

    @contextmanager
    def follow(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Follow these modules by hooks; the hooks are gone afterwards, whatever happens."""
        handles = []
        self._thread = threading.get_ident()
        try:
            for name, module in modules.items():
                handles.append(module.register_forward_pre_hook(partial(self._enter, name)))
                # always_call: a forward that raises is left as well
                handles.append(module.register_forward_hook(self._leave, always_call=True))
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._running.clear()

    def _enter(self, name: str, *_: object) -> None:
        if self.is_own_thread:
            self._running.append(name)

    def _leave(self, *_: object) -> None:
        if self.is_own_thread:
            self._running.pop()


class AttentionMode(TorchFunctionMode):
    """Shows every attention call to a listener; the call itself runs as it would have.

    on_call(call) is given what the kernel is about to see. on_output(output) may return another output, for
    ablation; it sees (B, heads, N, head_dim). Works in the thread that entered it, on `attend`,
    scaled_dot_product_attention and torch.nn.MultiheadAttention.
    """

    def __init__(
        self,
        on_call: Callable[[AttentionCall], None] | None = None,
        on_output: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self._on_call, self._on_output = on_call, on_output

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not attend and func is not F.scaled_dot_product_attention:
            if func is F.multi_head_attention_forward and self._on_call is not None:
                for call in multi_head_call(*args, **kwargs):
                    self._on_call(call)
            return func(*args, **kwargs)
        if self._on_call is not None:
            self._on_call(attend_call(*args, **kwargs) if func is attend else sdpa_call(*args, **kwargs))
        output = func(*args, **kwargs)
        return output if self._on_output is None else self._on_output(output)


def attend_call(
    q: Tensor, k: Tensor, v: Tensor, *, bias: Bias | None = None, scale: float | None = None
) -> AttentionCall:
    """A call of `attend` as a record."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return AttentionCall(own(q), own(k), _detached(bias), scale, kernel_name(q, k, v, bias))


def sdpa_call(*args: Any, **kwargs: Any) -> AttentionCall:
    """A call of scaled_dot_product_attention as a record; tensors of 3 axes are one head, of 5 and more a batch."""
    bound = _SDPA.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    q, k, v, mask = given["query"], given["key"], given["value"], given["attn_mask"]
    kernel = sdpa_kernel_name(q, k, v, mask) if q.ndim == 4 and q.shape[1] == k.shape[1] else f"{q.device.type} sdpa"
    scale = q.shape[-1] ** -0.5 if given["scale"] is None else given["scale"]
    images = q.shape[:-3]  # over which keys and masks may be broadcast
    if images and k.shape[:-3] != images:
        k = k.expand(*images, *k.shape[-3:])
    bias = None
    if mask is not None:
        mask = mask.detach()
        if q.ndim > 4 and mask.ndim > 2:
            mask = mask[(None,) * (q.ndim - mask.ndim)]
            mask = mask.expand(*images, *mask.shape[-3:])
        bias = DenseBias(_four_axes(mask) if mask.ndim > 2 else mask)
    return AttentionCall(own(_four_axes(q)), own(_four_axes(k)), bias, scale, kernel, bool(given["is_causal"]))


def multi_head_call(*args: Any, **kwargs: Any) -> list[AttentionCall]:
    """A call of torch.nn.MultiheadAttention's function as a record: its projections of queries and keys made again.

    Empty for what has no plain queries and keys: added bias rows, zero attention or given projections.
    """
    bound = _MULTI_HEAD.bind(*args, **kwargs)
    bound.apply_defaults()
    a = bound.arguments
    if a["bias_k"] is not None or a["add_zero_attn"] or a["static_k"] is not None:
        return []
    heads, width = a["num_heads"], a["embed_dim_to_check"]
    biases = (None, None) if a["in_proj_bias"] is None else a["in_proj_bias"].chunk(3)[:2]
    if a["use_separate_proj_weight"]:
        weights = (a["q_proj_weight"], a["k_proj_weight"])
    else:
        weights = a["in_proj_weight"].chunk(3)[:2]
    with torch.no_grad():
        sides = []
        for tokens, weight, offset in zip((a["query"], a["key"]), weights, biases, strict=True):
            tokens = tokens if tokens.ndim == 3 else tokens[:, None]
            projected = F.linear(tokens, weight, offset)
            sides.append(projected.unflatten(-1, (heads, width // heads)).permute(1, 2, 0, 3).contiguous())
    q, k = sides
    masks = []
    if a["attn_mask"] is not None:
        mask = a["attn_mask"].detach()
        masks.append(mask if mask.ndim == 2 else mask.reshape(-1, heads, *mask.shape[1:]))
    if a["key_padding_mask"] is not None:
        masks.append(a["key_padding_mask"].detach().reshape(q.shape[0], 1, 1, -1))
    bias = None
    if masks:
        # here True means "leave out", unlike in scaled_dot_product_attention
        added = [
            torch.zeros_like(m, dtype=q.dtype).masked_fill_(m, -torch.inf) if m.dtype == torch.bool else m
            for m in masks
        ]
        bias = DenseBias(sum(added[1:], start=added[0]))
    return [AttentionCall(q, k, bias, (width // heads) ** -0.5, f"{q.device.type} multi-head attention")]


@contextmanager
def eager_if_compiled(network: nn.Module) -> Iterator[None]:
    """Run a compiled network uncompiled, and say so: compiled graphs hide their attention calls."""
    # Whoever compiles imports torch's compiler; a question does not. It takes seconds, and with CUDA it brings triton,
    # whose LLVM and that of a renderer in software do not bear each other in one process.
    wrapper = getattr(sys.modules.get("torch._dynamo"), "OptimizedModule", ())
    if not any(isinstance(m, wrapper) or m._compiled_call_impl is not None for m in network.modules()):
        yield
        return
    warnings.warn("The network is compiled; it runs uncompiled while its attention is recorded.", stacklevel=4)
    with torch.compiler.set_stance("force_eager"):
        yield


def own(tensor: Tensor) -> Tensor:
    """The tensor detached, copied only if it is a part of larger storage, which would be kept alive with it."""
    tensor = tensor.detach()
    if tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size():
        return tensor.clone(memory_format=torch.contiguous_format)
    return tensor


def _four_axes(tensor: Tensor) -> Tensor:
    if tensor.ndim == 3:
        return tensor[:, None]
    return tensor.flatten(0, tensor.ndim - 4) if tensor.ndim > 4 else tensor


def _detached(bias: Bias | None) -> Bias | None:
    if isinstance(bias, DecomposedBias):
        return DecomposedBias(tuple(table.detach() for table in bias.tables))
    if isinstance(bias, WindowBias):
        return WindowBias(bias.table.detach(), bias.regions, bias.penalty)
    if isinstance(bias, KeyTermsBias):
        terms = tuple((values.detach(), axes) for values, axes in bias.terms)
        return KeyTermsBias(bias.key_shape, terms, bias.runs)
    return None if bias is None else DenseBias(bias.mask.detach())
