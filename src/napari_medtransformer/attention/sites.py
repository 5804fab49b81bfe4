"""Where attention happens in a model: what an adapter declares (SiteSpec) and what a user sees (AttentionSite)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from napari_medtransformer.attention.layout import TokenLayout
from napari_medtransformer.attention.token_grid import TokenGrid

SiteKind = Literal["global", "window", "prompt", "prompt-to-image", "image-to-prompt"]
"""global and window: the image attends to itself, everywhere or inside windows, in the encoder.
prompt: tokens without a place (prompts, object queries) among themselves. The others: cross-attention of a decoder."""


@dataclass(frozen=True)
class SiteSpec:
    """One attention site as an adapter declares it.

    name: what users read and type, such as "encoder.2". module: dotted path, in the network, of the module whose
    forward makes the attention call. heads: as many as the call's head axis has. queries, keys: their layouts.
    """

    name: str
    module: str
    kind: SiteKind
    heads: int
    queries: TokenLayout
    keys: TokenLayout


@dataclass(frozen=True)
class AttentionSite:
    """One attention site of one encoded image: its grids know where each token lies in the native image."""

    name: str
    kind: SiteKind
    heads: int
    query_grid: TokenGrid
    key_grid: TokenGrid
