"""Names of a published checkpoint's tensors turned into those of the network here."""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping

from torch import Tensor

Renames = tuple[tuple[str, str], ...]
"""Patterns and what takes their place, applied in order, each to what the one before left."""

# One matrix of Fourier frequencies, under two names in transformers.
_SHARED = ("prompt_encoder.shared_embedding.positional_embedding", "shared_image_embedding.positional_embedding")

# What the prompt encoder and the mask decoder of SAM and SAM 2 have in common: Meta's names to those of transformers.
SAM_DECODER: Renames = (
    (r"\.norm(\d|_final_attn)\.", r".layer_norm\1."),
    (r"^prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
    (r"^prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
    (r"^prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
    (r"^prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
    (r"^prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
    (r"^mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
    (r"^mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
    (r"^mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
    (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$", _SHARED[0]),
)


def renamed(name: str, renames: Renames) -> str:
    """A name after all renames."""
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def perceptron_depths(names: Iterable[str], perceptron: re.Pattern[str]) -> dict[str, int]:
    """The number of the last layer of every perceptron. perceptron: its name and a layer's number as two groups."""
    depths: dict[str, int] = {}
    for name in names:
        if part := perceptron.match(name):
            depths[part[1]] = max(depths.get(part[1], 0), int(part[2]))
    return depths


def perceptron_layer(number: int, last: int) -> str:
    """How transformers calls a layer of a perceptron: the first and the last have names of their own."""
    return "proj_in" if number == 0 else "proj_out" if number == last else f"layers.{number - 1}"


def share_frequencies(named: MutableMapping[str, Tensor]) -> None:
    """Put the matrix that has two names under both; some files leave one out."""
    for here, there in (_SHARED, _SHARED[::-1]):
        if here in named:
            named.setdefault(there, named[here])
