"""Attention sites of a network that nobody declared: found where it calls attention, laid out where that is plain."""

from __future__ import annotations

import math
from collections.abc import Sequence

from napari_medtransformer.attention.calls import AttentionCall
from napari_medtransformer.attention.kept_calls import KeptCall
from napari_medtransformer.attention.layout import FREE_TOKENS, TokenLayout
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.sites import SiteKind, SiteSpec


def guess_spec(module: str, call: AttentionCall | KeptCall, placement: InputPlacement | None) -> SiteSpec:
    """A site for a call that a module made.

    A side lies on a grid if its tokens, less one or no prefix token, are the input cut into equal square or cubic
    patches; otherwise its tokens have no place. Windows cannot be told from images in a batch: declare those.
    """
    shape = () if placement is None else placement.input_shape
    queries, keys = (plain_layout(sides[2], shape) for sides in (call.q_shape, call.k_shape))
    kind: SiteKind = "global"
    if queries.patch is None:
        kind = "prompt" if keys.patch is None else "prompt-to-image"
    elif keys.patch is None:
        kind = "image-to-prompt"
    return SiteSpec(module, module, kind, call.heads, queries, keys)


def plain_layout(tokens: int, input_shape: Sequence[int]) -> TokenLayout:
    """The layout of `tokens` tokens over an input, FREE_TOKENS if no equal patches give that number."""
    axes = len(input_shape)
    for prefix in (0, 1):
        placed = tokens - prefix
        if placed < 2 or axes < 2:
            continue
        side = round((math.prod(input_shape) / placed) ** (1 / axes))
        grid = tuple(n // side for n in input_shape) if side else ()
        if side and all(n % side == 0 for n in input_shape) and math.prod(grid) == placed:
            return TokenLayout((side,) * axes, grid, prefix)
    return FREE_TOKENS


def plain_grid(tokens: int) -> tuple[tuple[int, ...], int]:
    """The square, else the cube, that tokens fill after no or one prefix token, and how many those are.

    Along one axis if there is none.
    """
    for axes in (2, 3):
        for prefix in (0, 1):
            side = round((tokens - prefix) ** (1 / axes))
            if side > 1 and side**axes == tokens - prefix:
                return (side,) * axes, prefix
    return (tokens,), 0
