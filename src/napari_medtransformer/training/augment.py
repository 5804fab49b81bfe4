"""Random windows of labelled volumes: turned, scaled, bent, and with another scanner's contrast and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from torch import Tensor

from napari_medtransformer.training.auto_cases import AutoCase


@dataclass(frozen=True)
class Augmentation:
    """How far windows are changed. Chances are per window; a zero switches a change off.

    mirror_axes: axes (0 z, 1 y, 2 x) along which anatomy may be mirrored. rotation: degrees, any axis. scale: smallest
    and largest zoom. elastic: deviation of the displacement of the bending grid's nodes, voxels. gamma: range of the
    exponent. noise, blur: largest deviation, of normalised intensity and in voxels. low_resolution: largest factor.
    """

    mirror_axes: tuple[int, ...] = (2,)
    rotation: float = 20.0
    scale: tuple[float, float] = (0.8, 1.25)
    spatial_chance: float = 0.7
    elastic: float = 1.5
    elastic_chance: float = 0.3
    gamma: tuple[float, float] = (0.7, 1.5)
    gamma_chance: float = 0.3
    contrast: tuple[float, float] = (0.75, 1.25)
    contrast_chance: float = 0.3
    noise: float = 0.2
    noise_chance: float = 0.2
    blur: float = 1.0
    blur_chance: float = 0.2
    low_resolution: float = 2.0
    low_resolution_chance: float = 0.15
    bias_field: float = 0.3
    bias_chance: float = 0.2


_ELASTIC_SPACING = 12  # voxels between the nodes of the bending grid


def draw_window(
    case: AutoCase, window: Sequence[int], rng: np.random.Generator, change: Augmentation, *, foreground: float = 0.5
) -> tuple[Tensor, Tensor]:
    """A random window of a case: image (1, *window) float32 and classes (*window) int64.

    foreground: the chance that the window is drawn about a labelled voxel, for volumes larger than it; volumes that
    fit are shifted within it. Outside the volume the classes are background.
    """
    shape = np.array(case.image.shape, dtype=float)
    size = np.array(window, dtype=float)
    centre = _centre(case, shape, size, rng, foreground)
    grid = _sampling_grid(window, centre, rng, change)  # (*window, 3): voxel coordinates z, y, x
    # What lies outside an image differs from program to program: its mean, its darkest value, or its border.
    outside = rng.choice(["mean", "darkest", "border"], p=[0.5, 0.25, 0.25])
    level = case.darkest if outside == "darkest" else 0.0
    padding = "border" if outside == "border" else "zeros"
    part, first = _part_seen(grid, case.image.shape)
    # grid_sample counts x, y, z from -1 to 1 between the outer voxels' centres.
    scale = torch.tensor([2 / max(p.stop - p.start - 1, 1) for p in part[::-1]], dtype=torch.float32)
    flow = ((grid - first).flip(-1) * scale - 1)[None]
    source = torch.from_numpy(np.array(case.image[part]))[None, None]
    image = F.grid_sample(source - level, flow, mode="bilinear", padding_mode=padding, align_corners=True)[0] + level
    known = torch.from_numpy(np.array(case.classes[part], dtype=np.int64))
    shares = F.one_hot(known).movedim(-1, 0)[None].float()
    sampled = F.grid_sample(shares, flow, mode="bilinear", padding_mode="zeros", align_corners=True)[0]
    sampled[0] += 1 - sampled.sum(dim=0)
    return change_intensities(image, rng, change), sampled.argmax(dim=0)


def change_intensities(image: Tensor, rng: np.random.Generator, change: Augmentation) -> Tensor:
    """Another contrast, noise, sharpness and shading. image: (1, z, y, x), normalised."""
    if rng.random() < change.blur_chance:
        image = _blur(image, float(rng.uniform(0.3, change.blur)))
    if rng.random() < change.low_resolution_chance:
        image = _coarsen(image, float(rng.uniform(1.0, change.low_resolution)))
    if rng.random() < change.bias_chance:
        nodes = torch.from_numpy(rng.normal(0, change.bias_field, (1, 1, 3, 3, 3)).astype(np.float32))
        shade = F.interpolate(nodes, size=image.shape[1:], mode="trilinear", align_corners=True)[0]
        low = image.min()
        image = (image - low) * shade.exp() + low
    if rng.random() < change.gamma_chance:
        low, high = image.min(), image.max()
        width = (high - low).clamp(min=1e-6)
        exponent = math.exp(rng.uniform(math.log(change.gamma[0]), math.log(change.gamma[1])))
        turned = rng.random() < 0.15  # inverted contrast, as nnU-Net does: T1 and T2 differ so
        unit = (high - image if turned else image - low) / width
        image = unit**exponent * width
        image = (high - image) if turned else (image + low)
    if rng.random() < change.contrast_chance:
        image = image * float(rng.uniform(*change.contrast)) + float(rng.normal(0, 0.1))
    if rng.random() < change.noise_chance:
        deviation = float(rng.uniform(0, change.noise))
        image = image + torch.from_numpy(rng.normal(0, deviation, tuple(image.shape)).astype(np.float32))
    return image


def _centre(
    case: AutoCase, shape: np.ndarray, size: np.ndarray, rng: np.random.Generator, foreground: float
) -> np.ndarray:
    """The voxel at the window's centre: inside the volume where that is larger, shifted by the slack otherwise."""
    middle = (shape - 1) / 2
    slack = (shape - size) / 2
    centre = middle + rng.uniform(-1, 1, 3) * np.abs(slack)
    if (slack > 0).any() and rng.random() < foreground and len(case.labelled):
        voxel = case.labelled[rng.integers(len(case.labelled))]
        about = voxel + rng.uniform(-0.25, 0.25, 3) * size
        inside = np.clip(about, middle - np.maximum(slack, 0), middle + np.maximum(slack, 0))
        centre = np.where(slack > 0, inside, centre)
    return np.asarray(centre)


def _part_seen(grid: Tensor, shape: Sequence[int]) -> tuple[tuple[slice, ...], Tensor]:
    """The part of a volume that a sampling grid reads, at least one voxel, and its first voxel as (3,) float32."""
    low, high = grid.amin(dim=(0, 1, 2)).floor().long(), grid.amax(dim=(0, 1, 2)).ceil().long() + 1
    first = [min(max(int(a), 0), n - 1) for a, n in zip(low, shape, strict=True)]
    last = [max(min(int(b), n), a + 1) for b, n, a in zip(high, shape, first, strict=True)]
    return tuple(slice(a, b) for a, b in zip(first, last, strict=True)), torch.tensor(first, dtype=torch.float32)


def _sampling_grid(window: Sequence[int], centre: np.ndarray, rng: np.random.Generator, change: Augmentation) -> Tensor:
    """Voxel coordinates (z, y, x) that a window's voxels are read from, (*window, 3) float32."""
    matrix = np.eye(3)
    if rng.random() < change.spatial_chance:
        angles = rng.uniform(-change.rotation, change.rotation, 3)
        zoom = np.exp(rng.uniform(np.log(change.scale[0]), np.log(change.scale[1]), 3) * 0.3)
        zoom *= np.exp(rng.uniform(np.log(change.scale[0]), np.log(change.scale[1])))
        matrix = Rotation.from_euler("zyx", angles, degrees=True).as_matrix() @ np.diag(1 / zoom)
    for axis in change.mirror_axes:
        if rng.random() < 0.5:
            matrix[:, axis] *= -1
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in window]
    about = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    grid = about @ torch.from_numpy(matrix.T.astype(np.float32)) + torch.from_numpy(centre.astype(np.float32))
    if rng.random() < change.elastic_chance:
        nodes = [max(3, round(n / _ELASTIC_SPACING)) for n in window]
        bent = torch.from_numpy(rng.normal(0, change.elastic, (1, 3, *nodes)).astype(np.float32))
        grid = grid + F.interpolate(bent, size=tuple(window), mode="trilinear", align_corners=True)[0].movedim(0, -1)
    return grid


def _blur(image: Tensor, deviation: float) -> Tensor:
    radius = max(1, math.ceil(2 * deviation))
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / deviation) ** 2)
    line = line / line.sum()
    blurred = image[None]
    for axis in range(3):
        kernel_shape = [1, 1, 1, 1, 1]
        kernel_shape[2 + axis] = line.numel()
        padding = [0] * 6
        padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = radius
        blurred = F.conv3d(F.pad(blurred, padding, mode="replicate"), line.view(kernel_shape))
    return blurred[0]


def _coarsen(image: Tensor, factor: float) -> Tensor:
    small = [max(2, round(n / factor)) for n in image.shape[1:]]
    coarse = F.interpolate(image[None], size=small, mode="nearest")
    return F.interpolate(coarse, size=tuple(image.shape[1:]), mode="trilinear", align_corners=False)[0]
