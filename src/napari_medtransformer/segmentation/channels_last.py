"""A network whose convolutions and norms stay in the channels-last order of memory while windows run through it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Of a norm's input so many values are looked at in float32 at a time: 4 MB, small enough to be the same memory again.
_BLOCK_VALUES = 1 << 20


class ChannelsLastInstanceNorm(nn.InstanceNorm3d):
    """Instance norm that reads and writes channels-last arrays as they are (Ulyanov et al. 2016).

    torch's own first copies them into the other order, and the next convolution copies them back: that took half as
    long as the convolutions themselves. Its batch norm has a kernel for this order, but adds up a million voxels in one
    float32, which leaves three digits; here only blocks are, the rest is double.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, channels, z, y, x)."""
        if self.track_running_stats or x.ndim != 5 or not x.is_contiguous(memory_format=torch.channels_last_3d):
            return super().forward(x)
        normed = [
            torch.batch_norm(one, self.weight, self.bias, *_statistics(one), False, 0.0, self.eps, False)
            for one in x.split(1)
        ]
        return normed[0] if len(normed) == 1 else torch.cat(normed)


def _statistics(sample: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance per channel, float32. sample: (1, channels, z, y, x), channels last in memory."""
    voxels = sample.permute(0, 2, 3, 4, 1).flatten(0, 3)
    blocks = voxels.split(max(1, _BLOCK_VALUES // voxels.shape[1]))
    mean = torch.stack([block.float().sum(0).double() for block in blocks]).sum(0).div_(len(voxels)).float()
    squares = torch.stack([(block.float() - mean).square_().sum(0).double() for block in blocks]).sum(0)
    return mean, squares.div_(len(voxels)).float()


class PointwiseConv(nn.Conv3d):
    """A convolution of one voxel's reach as the matrix product that it is over channels-last arrays.

    torch takes a slow kernel for it, through a copy in the other order, when it runs on one thread.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, channels, z, y, x)."""
        if x.ndim != 5 or not x.is_contiguous(memory_format=torch.channels_last_3d):
            return super().forward(x)
        return F.linear(x.permute(0, 2, 3, 4, 1), self.weight.flatten(1), self.bias).permute(0, 4, 1, 2, 3)


_SUBSTITUTES: dict[type[nn.Module], type[nn.Module]] = {
    nn.InstanceNorm3d: ChannelsLastInstanceNorm,
    nn.Conv3d: PointwiseConv,
}


@contextmanager
def channels_last(network: nn.Module, device: torch.device, *, axes: int, compiled: bool = False) -> Iterator[None]:
    """Within it the network computes in channels-last order; afterwards it is as it was.

    axes: of a window, 2 or 3. compiled: a compiler works out its layers by itself.
    """
    lay_out(network, torch.channels_last_3d if axes == 3 else torch.channels_last)
    # A GPU's own kernels are the quicker ones.
    own = device.type == "cpu" and not compiled
    changed = [(module, type(module)) for module in network.modules() if own and _substitute(module) is not None]
    for module, kind in changed:
        module.__class__ = _SUBSTITUTES[kind]
    try:
        yield
    finally:
        for module, kind in changed:
            module.__class__ = kind
        lay_out(network, torch.contiguous_format)


def _substitute(module: nn.Module) -> type[nn.Module] | None:
    """The class that computes a layer in channels-last order, if it needs another than its own."""
    if type(module) is nn.Conv3d:
        pointwise = module.kernel_size == module.stride == (1, 1, 1) and module.groups == 1
        if not pointwise or module.padding != (0, 0, 0) or module.in_channels == 1:
            return None
    return _SUBSTITUTES.get(type(module))


def lay_out(network: nn.Module, layout: torch.memory_format) -> None:
    """Order the numbers of the network's kernels in memory; those of other dimensions stay as they are."""
    axes = {torch.channels_last: (4,), torch.channels_last_3d: (5,)}.get(layout, (4, 5))
    for parameter in network.parameters():
        if parameter.ndim in axes:
            parameter.data = parameter.data.contiguous(memory_format=layout)
