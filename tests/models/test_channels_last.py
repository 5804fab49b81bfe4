"""The order of memory in which windows are computed changes no number, and running them changes no network."""

from __future__ import annotations

import threading

import pytest
import torch
from automatic_models import swin_network
from torch import nn

from napari_medtransformer.models.channels_last import PointwiseConv, use_channels_last


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 4e-5), (torch.bfloat16, 4e-2)])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("block", [1 << 18, 3 * 100])  # all voxels at once, and a hundred at a time
def test_a_norm_over_channels_last_voxels_is_the_instance_norm(monkeypatch, dtype, tolerance, affine, block) -> None:
    monkeypatch.setattr("napari_medtransformer.models.channels_last._BLOCK_VALUES", block)
    # far from 0, where a variance as a mean of squares less a squared mean would have lost its digits
    x = (100 + torch.randn((2, 3, 12, 10, 9), generator=torch.Generator().manual_seed(0))).to(dtype)
    network = use_channels_last(nn.Sequential(nn.InstanceNorm3d(3, affine=affine)), axes=3)
    if affine:
        torch.manual_seed(0)
        nn.init.uniform_(network[0].weight, 0.5, 2.0)
        nn.init.uniform_(network[0].bias, -1.0, 1.0)
    wide = x.double()
    centred = wide - wide.mean(dim=(2, 3, 4), keepdim=True)
    oracle = centred / (centred.square().mean(dim=(2, 3, 4), keepdim=True) + network[0].eps).sqrt()
    if affine:
        oracle = oracle * network[0].weight[:, None, None, None] + network[0].bias[:, None, None, None]
    with torch.inference_mode():
        found = network(x.contiguous(memory_format=torch.channels_last_3d))
        plain = network(x)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    # float32: data of 100 are known to 8e-6, and deviations of them are divided by 1; bfloat16: half a unit at 9
    assert (found.double() - oracle).abs().max() < tolerance
    assert torch.equal(plain, nn.functional.instance_norm(x, weight=network[0].weight, bias=network[0].bias))


def test_a_convolution_of_one_voxels_reach_is_a_matrix_product() -> None:
    x = torch.randn((2, 5, 4, 6, 7), generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(nn.Conv3d(5, 3, 1), nn.Conv3d(3, 3, 3, padding=1), nn.Conv3d(3, 2, 1, stride=2))
    with torch.inference_mode():
        plain = network(x)
        use_channels_last(network, axes=3)
        found = network(x.contiguous(memory_format=torch.channels_last_3d))
        also = network(x)
    assert [isinstance(layer, PointwiseConv) for layer in network] == [True, False, False]
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(also, plain, atol=1e-5, rtol=1e-5)


def test_a_network_keeps_its_answers_its_gradients_and_its_names() -> None:
    network = swin_network()
    x = torch.randn((1, 1, 16, 16, 16), generator=torch.Generator().manual_seed(0))
    names, before = list(network.state_dict()), network(x)
    before.square().mean().backward()
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    use_channels_last(network, axes=3)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), before.detach(), atol=1e-4, rtol=0)  # sums in another order
    network(x).square().mean().backward()
    found = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert len(found) == len(gradients)
    for one, other in zip(found, gradients, strict=True):
        assert (one - other).norm() <= 1e-3 * other.norm() + 1e-6
    assert list(network.state_dict()) == names


def test_threads_that_share_a_network_get_what_each_gets_alone() -> None:
    network = use_channels_last(swin_network(), axes=3)
    windows = [torch.randn((1, 1, 16, 16, 16), generator=torch.Generator().manual_seed(i)) for i in range(3)]
    layers = [type(module) for module in network.modules()]
    with torch.inference_mode():
        alone = [network(window) for window in windows]
    seen: dict[int, list[torch.Tensor]] = {i: [] for i in range(3)}
    changed: list[object] = []

    def run(number: int) -> None:
        with torch.inference_mode():
            for _ in range(5):
                seen[number].append(network(windows[number]))
                changed.extend(a for a, b in zip((type(m) for m in network.modules()), layers, strict=True) if a != b)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not changed
    assert all(len(answers) == 5 for answers in seen.values())
    assert all(torch.equal(answer, alone[i]) for i, answers in seen.items() for answer in answers)
