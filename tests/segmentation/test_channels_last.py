"""The order of memory in which windows are computed changes no number, and leaves the network as it was."""

from __future__ import annotations

import pytest
import torch
from automatic_models import swin_network
from torch import nn

from napari_medtransformer.segmentation.channels_last import PointwiseConv, channels_last

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 4e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("affine", [False, True])
def test_a_norm_over_channels_last_voxels_is_the_instance_norm(dtype, tolerance, affine) -> None:
    # far from 0, where a variance as a mean of squares less a squared mean would have lost its digits
    x = (100 + torch.randn((2, 3, 12, 10, 9), generator=torch.Generator().manual_seed(0))).to(dtype)
    network = nn.Sequential(nn.InstanceNorm3d(3, affine=affine))
    if affine:
        nn.init.uniform_(network[0].weight, 0.5, 2.0)
        nn.init.uniform_(network[0].bias, -1.0, 1.0)
    wide = x.double()
    centred = wide - wide.mean(dim=(2, 3, 4), keepdim=True)
    oracle = centred / (centred.square().mean(dim=(2, 3, 4), keepdim=True) + network[0].eps).sqrt()
    if affine:
        oracle = oracle * network[0].weight[:, None, None, None] + network[0].bias[:, None, None, None]
    with torch.inference_mode(), channels_last(network, CPU, axes=3):
        found = network(x.contiguous(memory_format=torch.channels_last_3d))
        plain = network(x)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    # float32: data of 100 are known to 8e-6, and deviations of them are divided by 1; bfloat16: half a unit at 4
    assert (found.double() - oracle).abs().max() < tolerance
    assert torch.equal(plain, nn.functional.instance_norm(x, weight=network[0].weight, bias=network[0].bias))


def test_a_convolution_of_one_voxels_reach_is_a_matrix_product() -> None:
    x = torch.randn((2, 5, 4, 6, 7), generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(nn.Conv3d(5, 3, 1), nn.Conv3d(3, 3, 3, padding=1), nn.Conv3d(3, 2, 1, stride=2))
    with torch.inference_mode():
        plain = network(x)
        with channels_last(network, CPU, axes=3):
            assert [isinstance(layer, PointwiseConv) for layer in network] == [True, False, False]
            found = network(x.contiguous(memory_format=torch.channels_last_3d))
            also = network(x)
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(also, plain, atol=1e-5, rtol=1e-5)


def test_a_network_is_left_as_it_was_whatever_happens() -> None:
    network = swin_network()
    before = {name: (type(m), [p.stride() for p in m.parameters()]) for name, m in network.named_modules()}
    x = torch.randn((1, 1, 16, 16, 16), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = network(x)
        with channels_last(network, CPU, axes=3):
            found = network(x)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=0)  # sums in another order
    with pytest.raises(KeyError), channels_last(network, CPU, axes=3):
        raise KeyError
    assert {name: (type(m), [p.stride() for p in m.parameters()]) for name, m in network.named_modules()} == before
