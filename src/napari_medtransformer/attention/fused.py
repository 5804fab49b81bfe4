"""The one attention call of every adapter: exact, without the tokens × tokens matrix, whatever the bias."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.overrides import handle_torch_function, has_torch_function

from napari_medtransformer.attention.bias import Bias, DecomposedBias, KeyTermsBias, WindowBias, outer_sum_into
from napari_medtransformer.attention.policy import cpu_has, policy_for, sdpa_kernel_name

# bias elements held at a time by the blockwise kernel, 4 MB in float32: what is written is still in the cache when the
# kernel reads it
BLOCK_ELEMENTS = 1 << 20
# times that with matrix units, whose kernel is faster over many queries
_MATRIX_UNITS = 4
# queries that torch's CPU kernel gives to a thread at a time
_KERNEL_ROWS = 64
# the widest head that fused kernels of GPUs take
_WIDEST_HEAD = 256


def attend(q: Tensor, k: Tensor, v: Tensor, *, bias: Bias | None = None, scale: float | None = None) -> Tensor:
    """Softmax attention: softmax(scale · q kᵀ + bias) v.

    q: (B, heads, N, D). k, v: (B, heads, K, D). bias: added to the scores, in its cheapest form. scale: None for
    1/√D. Returns (B, heads, N, D) in q's dtype. Memory beyond the output is O(N), for every bias but a DenseBias.
    An active TorchFunctionMode sees this call, with the bias as given, and not the kernel's calls inside.
    Vaswani et al. 2017, eq. 1; the low-rank form of a decomposed bias: queries [scale·q, q·R_h, q·R_w], keys
    [k, onehot(row), onehot(column)], so that one inner product holds score and bias.
    """
    if has_torch_function((q, k, v)):
        return handle_torch_function(attend, (q, k, v), q, k, v, bias=bias, scale=scale)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if isinstance(bias, DecomposedBias):
        if _runs_blockwise(q, k, v, bias):
            return _blockwise(q, k, v, bias, scale)
        return _low_rank(q, k, v, bias, scale)
    if isinstance(bias, WindowBias):
        return _windows(q, k, v, bias, scale)
    if isinstance(bias, KeyTermsBias):
        if _runs_low_rank(q, k, v, bias):
            return _extended(q, k, v, bias.query_terms(q.shape[2]), torch.cat(bias.key_codes(), dim=-1), scale)
        return _by_rows(q, k, v, bias, scale)
    mask = None if bias is None else bias.mask
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def kernel_name(q: Tensor, k: Tensor, v: Tensor, bias: Bias | None) -> str:
    """Which kernel `attend` runs for these tensors, such as "cpu flash, low-rank positions"."""
    if isinstance(bias, DecomposedBias):
        if _runs_blockwise(q, k, v, bias):
            if weighs_in_bfloat16(q):
                return "cpu products, float32 scores, bfloat16 values, positions blockwise"
            return f"cpu flash, {'bfloat16' if runs_in_bfloat16(q) else 'float32'}, positions blockwise"
        return _extended_kernel_name(q, sum(bias.key_shape))
    if isinstance(bias, WindowBias):
        return sdpa_kernel_name(q, k, v, bias.table[None].to(q.dtype)) + ", window bias"
    if isinstance(bias, KeyTermsBias):
        if _runs_low_rank(q, k, v, bias):
            return _extended_kernel_name(q, bias.width)
        return f"{sdpa_kernel_name(q, k, v, q.new_empty((1, 1, 1, k.shape[2])))}, bias by blocks of rows"
    return sdpa_kernel_name(q, k, v, None if bias is None else bias.mask)


def _runs_blockwise(q: Tensor, k: Tensor, v: Tensor, bias: DecomposedBias) -> bool:
    """Whether a decomposed bias is computed in blocks: inference on a processor whose policy says so.

    Not where matrix units take queries that carry it, in windows, at little more than those without.
    """
    needs_grad = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    narrow = runs_in_bfloat16(q) and sum(bias.key_shape) <= q.shape[-1]
    return q.device.type == "cpu" and not needs_grad and not narrow and policy_for(q.device).bias_kernel == "blockwise"


def _runs_low_rank(q: Tensor, k: Tensor, v: Tensor, bias: KeyTermsBias) -> bool:
    """Whether key terms join the queries: where the policy says so or gradients are asked for, unless too wide."""
    needs_grad = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    wanted = needs_grad or policy_for(q.device).bias_kernel == "low-rank"
    return wanted and q.shape[-1] + bias.width <= _WIDEST_HEAD


def _low_rank(q: Tensor, k: Tensor, v: Tensor, bias: DecomposedBias, scale: float) -> Tensor:
    return _extended(q, k, v, bias.terms(q), _one_hot_axes(bias.key_shape, q.device), scale)


def _extended(q: Tensor, k: Tensor, v: Tensor, terms: list[Tensor], key_codes: Tensor, scale: float) -> Tensor:
    """Attention with queries that carry their terms and keys that carry one-hot codes (keys, all terms' widths)."""
    width, positions = q.shape[-1], key_codes.shape[-1]
    # GPU kernels want a width that is a multiple of 8
    spare = -(width + positions) % 8
    codes = pad(key_codes.to(q.dtype), (0, spare))
    terms = [term.to(q.dtype) for term in terms]
    queries = torch.cat([q * scale, *terms, q.new_zeros(1).expand(*q.shape[:-1], spare)], dim=-1)
    keys = torch.cat([k, codes.expand(*k.shape[:-1], -1)], dim=-1)
    # the fused kernels ask for values as wide as queries and keys
    out = scaled_dot_product_attention(queries, keys, pad(v, (0, positions + spare)), scale=1.0)
    return out[..., :width]


def _extended_kernel_name(q: Tensor, positions: int) -> str:
    width = q.shape[-1] + positions
    return sdpa_kernel_name(*[q.new_empty((1, 1, 8, width + -width % 8))] * 3) + ", low-rank"


def _one_hot_axes(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """(keys, sum of shape): for each key of a grid, the one-hot codes of its place along every axis."""
    places = torch.meshgrid(*[torch.arange(n, device=device) for n in shape], indexing="ij")
    codes = [torch.nn.functional.one_hot(place.flatten(), n) for place, n in zip(places, shape, strict=True)]
    return torch.cat(codes, dim=-1)


@torch.no_grad()
def _blockwise(q: Tensor, k: Tensor, v: Tensor, bias: DecomposedBias, scale: float) -> Tensor:
    batch, heads, n, _ = q.shape
    dtype, mixed, half = q.dtype, weighs_in_bfloat16(q), runs_in_bfloat16(q)
    wide = torch.promote_types(dtype, torch.float32)
    # autocast would round the scores to half precision
    with torch.autocast(q.device.type, enabled=False):
        terms = bias.terms(q.to(wide))
        if not half:
            q, k, v = q.to(wide), k.to(wide), v if mixed else v.to(wide)
        out = q.new_empty((*q.shape[:-1], v.shape[-1]), dtype=v.dtype)
        entries, at_once, rows = _block_shape(batch, heads, n, k.shape[2], _MATRIX_UNITS if half else 1)
        # one buffer for all blocks: fresh memory would cost more than what is calculated in it
        held = q.new_empty(entries * at_once * rows * k.shape[2], dtype=wide)
        room = torch.empty_like(held, dtype=v.dtype) if mixed else held
        for first in range(0, batch, entries):
            b = slice(first, min(first + entries, batch))
            for head in range(0, heads, at_once):
                h = slice(head, min(head + at_once, heads))
                for start in range(0, n, rows):
                    r = slice(start, min(start + rows, n))
                    shape = (b.stop - first, h.stop - head, r.stop - start)
                    block = held[: math.prod(shape) * k.shape[2]].view(*shape, *bias.key_shape)
                    outer_sum_into(block, [term[b, h, r] for term in terms])
                    if mixed:
                        out[b, h, r] = _mixed(q[b, h, r], k[b, h], v[b, h], block.flatten(3), scale, room)
                    else:
                        out[b, h, r] = scaled_dot_product_attention(
                            q[b, h, r], k[b, h], v[b, h], attn_mask=block.flatten(3), scale=scale
                        )
    return out.to(dtype)


def runs_in_bfloat16(q: Tensor) -> bool:
    """Whether the fused kernel gets bfloat16: queries in that format, on a processor with matrix units for it.

    Its scores, their bias and their softmax are float32 there.
    """
    return q.dtype == torch.bfloat16 and cpu_has("amx_bf16")


def weighs_in_bfloat16(q: Tensor) -> bool:
    """Whether values are weighed in bfloat16: queries in that format, on a processor with units, but no matrix units.

    torch's CPU kernel makes products of bfloat16 no faster than of float32 there; its matrix product does.
    """
    return q.dtype == torch.bfloat16 and cpu_has("avx512_bf16") and not cpu_has("amx_bf16")


def _mixed(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float, room: Tensor) -> Tensor:
    """softmax(scale · q kᵀ + bias) v: scores and softmax in float32, their product with v in v's half precision.

    Scores rounded to that precision would cost sharp attention up to 5% of a value.
    bias: (B, heads, n, K), overwritten. room: for as many numbers in v's format.
    """
    scores = bias.flatten(0, 1)
    scores.baddbmm_(q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=scale)
    weights = room[: scores.numel()].view(scores.shape).copy_(torch.softmax(scores, dim=-1, out=scores))
    return torch.bmm(weights, v.flatten(0, 1)).unflatten(0, q.shape[:2])


def _block_shape(batch: int, heads: int, queries: int, keys: int, times: int) -> tuple[int, int, int]:
    """How many entries, heads and queries make a block: whole windows, or a part of few heads of one image."""
    elements = BLOCK_ELEMENTS * times
    entries = min(batch, elements // (heads * queries * keys))
    if entries:
        return entries, heads, queries
    rows = max(1, min(queries, elements // keys))
    # enough for every thread
    at_once = min(heads, max(1, torch.get_num_threads() * _KERNEL_ROWS // rows))
    return 1, at_once, rows


def _by_rows(q: Tensor, k: Tensor, v: Tensor, bias: KeyTermsBias, scale: float) -> Tensor:
    batch, heads, n, _ = q.shape
    rows = max(1, BLOCK_ELEMENTS // (heads * k.shape[2]))
    with torch.autocast(q.device.type, enabled=False):
        parts = [
            torch.cat(
                [
                    scaled_dot_product_attention(
                        q[b : b + 1, :, block],
                        k[b : b + 1],
                        v[b : b + 1],
                        attn_mask=bias.rows(q[b], b, block)[None],
                        scale=scale,
                    )
                    for block in torch.arange(n, device=q.device).split(rows)
                ],
                dim=2,
            )
            for b in range(batch)
        ]
    return torch.cat(parts)


def _windows(q: Tensor, k: Tensor, v: Tensor, bias: WindowBias, scale: float) -> Tensor:
    table = bias.table[None].to(q.dtype)
    if bias.regions is None:
        return scaled_dot_product_attention(q, k, v, attn_mask=table, scale=scale)
    windows = bias.regions.shape[0]
    out = torch.empty_like(q)
    for members, mask in bias.groups:
        images = torch.arange(q.shape[0] // windows, device=members.device)
        index = (images[:, None] * windows + members[None]).flatten().to(q.device)
        group_bias = table if mask is None else table + mask.to(device=q.device, dtype=q.dtype)
        out[index] = scaled_dot_product_attention(q[index], k[index], v[index], attn_mask=group_bias, scale=scale)
    return out
