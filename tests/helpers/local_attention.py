"""Networks whose attention is made local on purpose: every block's queries and keys say only where their token lies.

The input of each block is replaced by a code of places, its first norm is taken away, and its projections to queries
and keys become identities; windows, shifts, pooling and reduction stay the network's own. The score of a query and a
key then depends on their distance alone, highest at none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.models.window_model import WindowModel


def place_code(grid: Sequence[int], head_width: int, channels: int) -> Tensor:
    """(*grid, channels): per axis the cosine and sine of a place in half a turn, in the first head's channels."""
    assert head_width >= 2 * len(grid)
    axes = torch.meshgrid(*[torch.arange(n) * math.pi / n for n in grid], indexing="ij")
    code = torch.stack([wave for axis in axes for wave in (axis.cos(), axis.sin())], dim=-1)
    # scores of neighbours differ by about 8
    sharp = math.sqrt(8 * math.sqrt(head_width) * 2 / (math.pi / max(grid)) ** 2)
    return torch.nn.functional.pad(sharp * code, (0, channels - code.shape[-1]))


def first_head(linear: nn.Linear, head_width: int, parts: int = 1) -> None:
    """Make a projection repeat the first head's channels for every head; parts: 3 for queries, keys and values."""
    out = linear.out_features // parts
    rows = torch.zeros(out, linear.in_features)
    rows[torch.arange(out), torch.arange(out) % head_width] = 1
    with torch.no_grad():
        linear.weight.copy_(rows.repeat(parts, 1))
        if linear.bias is not None:
            linear.bias.zero_()


def feed(block: nn.Module, code: Callable[[Tensor], Tensor]) -> None:
    """Let a block see `code(its input)` instead of its input."""

    def replace(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (code(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": code(kwargs["hidden_states"])}

    block.register_forward_pre_hook(replace, with_kwargs=True)


def make_local(model: WindowModel, window: Sequence[int]) -> WindowModel:
    """The model (UNETR or SwinUNETR) with every block's attention made local, along the network's own axes.

    window: voxels per axis of what it will be run on.
    """
    for spec in model.attention_sites():
        attention = model.network.get_submodule(spec.module)
        block = model.network.get_submodule(spec.module.removesuffix(".attn"))
        head = attention.qkv.in_features // spec.heads
        block.norm1 = nn.Identity()
        first_head(attention.qkv, head, parts=3)
        if hasattr(attention, "relative_position_bias_table"):
            with torch.no_grad():
                attention.relative_position_bias_table.zero_()
        tokens = tuple(n // p for n, p in zip(window, spec.queries.patch, strict=True))

        def code(x: Tensor, head: int = head, tokens: tuple[int, ...] = tokens) -> Tensor:
            if x.ndim == 3:  # (b, tokens, width) of a ViT
                return place_code(tokens, head, x.shape[-1]).flatten(0, -2).expand(len(x), -1, -1)
            return place_code(x.shape[1:-1], head, x.shape[-1]).expand(len(x), *[-1] * (x.ndim - 1))

        feed(block, code)
    return model


def assert_heatmaps_peak_at(probe: AttentionProbe, query: Sequence[float], kinds: Sequence[str] = ("global", "window")):
    """Every head of every site of the encoder attends most to the token that the query lies in, or one beside it.

    Tokens may differ by one where a query's place and its token's centre fall on different sides of an edge.
    """
    sites = [site for site in probe.sites if site.kind in kinds]
    assert sites
    for site in sites:
        heatmap = probe.heatmap(site, query)
        keys = site.key_grid
        reach = np.maximum(keys.scale, site.query_grid.scale)
        for head in heatmap.values:
            peak = np.unravel_index(int(head.argmax()), head.shape)
            centre = np.array([t + s * i for t, s, i in zip(keys.translate, keys.scale, peak, strict=True)])
            assert (np.abs(centre - np.asarray(query)) <= 1.01 * reach).all(), (site.name, centre, query)
            assert head.max() > 5 * np.median(head), site.name
