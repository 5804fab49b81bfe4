"""Calls of attention as they are intercepted: broadcast as the kernel broadcasts them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from napari_medtransformer.attention.probe import AttentionProbe


@pytest.mark.parametrize(
    ("q", "k", "mask"),
    [
        ((2, 3, 4, 10, 16), (2, 3, 4, 10, 16), (2, 1, 1, 10, 10)),
        ((2, 3, 4, 10, 16), (2, 3, 4, 10, 16), (1, 3, 1, 10, 10)),
        ((2, 3, 4, 10, 16), (2, 3, 4, 10, 16), (3, 4, 10, 10)),
        ((2, 3, 4, 10, 16), (1, 3, 4, 7, 16), (10, 7)),
        ((4, 2, 10, 16), (1, 2, 7, 16), (4, 1, 10, 7)),
    ],
)
def test_keys_and_masks_are_broadcast_over_images_as_the_kernel_does(q, k, mask):
    made = torch.Generator().manual_seed(0)
    query, key, added = (torch.randn(shape, generator=made) for shape in (q, k, mask))

    class Net(nn.Module):
        def forward(self, x):
            return scaled_dot_product_attention(query, key, key, attn_mask=added) + 0 * x.sum()

    net = Net()
    with AttentionProbe(net) as probe:
        net(torch.zeros(1))
    wanted = (query @ key.mT / 4 + added).softmax(-1).flatten(0, -4)
    for image, rows in enumerate(wanted):
        assert torch.allclose(probe.captured("network", image=image).rows(torch.arange(10)), rows, atol=1e-5)
