"""Positional encodings set to zero or shuffled for a while, to see what they are good for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from napari_medtransformer.attention.positions import PositionalEncoding, PositionTable
from napari_medtransformer.errors import UnsupportedModel

Alteration = Literal["zero", "shuffle"]


@contextmanager
def altered_positions(
    network: nn.Module, encoding: PositionalEncoding, alteration: Alteration, seed: int = 0
) -> Iterator[None]:
    """While inside, an encoding of the network is all zero, or its places are permuted at random (from `seed`).

    encoding: as `find_positional_encodings` returned it. A table's prefix tokens (CLS) stay. Of Fourier features, which
    are made from two or three rows of frequencies, "shuffle" permutes each row. The parameter is changed in place and
    put back afterwards, whatever happens. Raises UnsupportedModel if the network has no such parameter.
    """
    parameters = dict(network.named_parameters()) | dict(network.named_buffers())
    if encoding.name not in parameters:
        raise UnsupportedModel(f"the network keeps no positional encoding {encoding.name!r}; ask it which it has.")
    tensor = parameters[encoding.name]
    kept = tensor.detach().clone()
    try:
        with torch.no_grad():
            tensor.copy_(_altered(kept, encoding, alteration, seed))
        yield
    finally:
        with torch.no_grad():
            tensor.copy_(kept)


def _altered(values: Tensor, encoding: PositionalEncoding, alteration: Alteration, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    if isinstance(encoding, PositionTable) and encoding.kind == "fourier":
        if alteration == "zero":
            return torch.zeros_like(values)
        rows = [row[torch.randperm(values.shape[1], generator=draw).to(values.device)] for row in values]
        return torch.stack(rows)
    flat, axes = _places_first(values, encoding)
    places = encoding.vectors.shape[0] if isinstance(encoding, PositionTable) else flat.shape[0]
    changed = flat.clone()
    first = flat.shape[0] - places  # prefix tokens
    if alteration == "zero":
        changed[first:] = 0
    else:
        changed[first:] = flat[first:][torch.randperm(places, generator=draw).to(values.device)]
    return _laid_out(changed, values, axes)


def _places_first(values: Tensor, encoding: PositionalEncoding) -> tuple[Tensor, bool]:
    """(places, width), and whether the parameter has its width before its places: (1, width, *grid)."""
    if not isinstance(encoding, PositionTable) or values.ndim == 2:
        return values, False
    width = encoding.vectors.shape[1]
    before = values.ndim > 3 and tuple(values.shape[2:]) == encoding.grid and values.shape[1] == width
    return (values[0].flatten(1).T if before else values.reshape(-1, width)), before


def _laid_out(flat: Tensor, like: Tensor, width_first: bool) -> Tensor:
    return (flat.T if width_first else flat).reshape(like.shape)
