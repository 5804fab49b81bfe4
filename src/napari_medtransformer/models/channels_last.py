"""A network whose convolutions and norms compute in the channels-last order of memory, from when it is loaded.

Convolutions over channels-last arrays skip the reordering of every layer: 1.5 times faster on a processor. Layers look
at the arrays they are given and change nothing while they run, so that threads can share a network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medtransformer.models.initial import Network

# Of a norm's input so many values are looked at in float32 at a time: 1 MB, which stays in a core's own cache.
_BLOCK_VALUES = 1 << 18


class ChannelsLastInstanceNorm(nn.InstanceNorm3d):
    """Instance norm that reads and writes channels-last arrays as they are (Ulyanov et al. 2016).

    torch's own first copies them into the other order, and the next convolution copies them back: that took half as
    long as the convolutions themselves. Its batch norm has a kernel for this order, but adds up a million voxels in one
    float32, which leaves three digits; here only blocks are, the rest is double.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, channels, z, y, x)."""
        # gradients go through mean and variance in torch's own alone
        if self.track_running_stats or torch.is_grad_enabled() or not _is_channels_last(x):
            return super().forward(x)
        normed = [
            torch.batch_norm(one, self.weight, self.bias, *_statistics(one), False, 0.0, self.eps, False)
            for one in x.split(1)
        ]
        return normed[0] if len(normed) == 1 else torch.cat(normed)


def _statistics(sample: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance per channel, float32. sample: (1, channels, z, y, x), channels last in memory.

    Those of blocks are put together as Chan, Golub and LeVeque 1983 do.
    """
    voxels = sample.permute(0, 2, 3, 4, 1).flatten(0, 3)
    rows = max(1, _BLOCK_VALUES // voxels.shape[1])
    room = voxels.new_empty((min(rows, len(voxels)), voxels.shape[1]), dtype=torch.float32)
    mean, squares = room.new_zeros((2, voxels.shape[1]), dtype=torch.float64)
    seen = 0
    for block in voxels.split(rows):
        held = room[: len(block)]
        wide = block if block.dtype == torch.float32 else held.copy_(block)
        own = wide.sum(0).div_(len(block))
        spread = torch.sub(wide, own, out=held).square_().sum(0)
        apart, together = own.double() - mean, seen + len(block)
        mean += apart * (len(block) / together)
        squares += spread.double() + apart.square() * (seen * len(block) / together)
        seen = together
    return mean.float(), squares.div_(seen).float()


class PointwiseConv(nn.Conv3d):
    """A convolution of one voxel's reach as the matrix product that it is over channels-last arrays.

    torch takes a slow kernel for it, through a copy in the other order, when it runs on one thread.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, channels, z, y, x)."""
        if not _is_channels_last(x):
            return super().forward(x)
        return F.linear(x.permute(0, 2, 3, 4, 1), self.weight.flatten(1), self.bias).permute(0, 4, 1, 2, 3)


def use_channels_last(network: Network, *, axes: int) -> Network:
    """The same network, its kernels in channels-last order, and layers that understand it where torch's are slow.

    axes: of what it convolves, 2 or 3. Parameters keep their names, shapes and values.
    """
    layout = torch.channels_last_3d if axes == 3 else torch.channels_last
    for parameter in network.parameters():
        if parameter.ndim == axes + 2:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    for module in network.modules():
        if type(module) is nn.InstanceNorm3d:
            module.__class__ = ChannelsLastInstanceNorm
        elif type(module) is nn.Conv3d and _is_pointwise(module):
            module.__class__ = PointwiseConv
    return network


def _is_channels_last(x: Tensor) -> bool:
    """Whether a layer meets a channels-last array where torch's own is slow: GPUs and compilers know better."""
    if x.ndim != 5 or x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return x.is_contiguous(memory_format=torch.channels_last_3d)


def _is_pointwise(layer: nn.Conv3d) -> bool:
    reaches_one = layer.kernel_size == layer.stride == (1, 1, 1) and layer.padding == (0, 0, 0)
    return reaches_one and layer.groups == 1 and layer.in_channels > 1
