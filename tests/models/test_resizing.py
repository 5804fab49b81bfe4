"""Resizing: smoothed where it shrinks, plain where it grows, and the same numbers either way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from napari_medtransformer.models.resizing import resize


@pytest.mark.parametrize("shape", [(64, 64), (70, 48), (48, 48), (20, 90), (31, 17)])
def test_every_resizing_equals_the_smoothed_one(shape: tuple[int, int]) -> None:
    images = torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(0))
    smoothed = F.interpolate(images, size=shape, mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(resize(images, shape), smoothed, atol=1e-4, rtol=0)


def test_fine_stripes_do_not_alias_when_they_shrink() -> None:
    stripes = (torch.arange(96) % 2).float().expand(1, 1, 96, 96)
    assert resize(stripes, (96, 32))[..., 4:-4].sub(0.5).abs().max() < 0.2
