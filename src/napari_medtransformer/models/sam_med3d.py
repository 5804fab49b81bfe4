"""SAM-Med3D (Wang et al. 2023): clicks answered in 3D, in a crop of 128³ voxels of 1.5 mm around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_medtransformer.attention.layout import TokenLayout
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.sites import SiteKind, SiteSpec
from napari_medtransformer.errors import InvalidPrompt
from napari_medtransformer.models.base import PromptToken
from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.initial import draw_weights, empty
from napari_medtransformer.models.sam_family import OUTSIDE_LOGIT, decoder_sites
from napari_medtransformer.models.sam_med3d_network import SamMed3D, SamMed3DConfig, turned
from napari_medtransformer.models.volume_model import VolumeEmbedding, VolumeMask, VolumePromptableModel, VolumePrompts
from napari_medtransformer.models.weights import fill

# Hounsfield units to which the authors clamp CT in training
_CT_LIMITS = (-1000.0, 1000.0)


class SamMed3DModel(VolumePromptableModel):
    """A SamMed3D network of any size behind the interface of 3D promptable models.

    The crop is centred where it is asked for, also at the volume's edge, and zero beyond, as in training. Axes are
    not turned round to the authors' orientation (Right, Anterior, Superior): they trained with random flips.
    """

    def __init__(self, card: ModelCard, network: SamMed3D, device: torch.device, dtype: torch.dtype) -> None:
        self.card = card
        self.network: SamMed3D = network.to(device).eval().requires_grad_(False)
        self.device, self.dtype = device, dtype
        self.on_encode: list[Callable[[InputPlacement], None]] = []
        self._config = network.config

    def placement(
        self, shape_zyx: Sequence[int], spacing_mm: Sequence[float], centre_zyx: Sequence[float]
    ) -> InputPlacement:
        """Where the crop around a voxel of a volume lies in it, at the card's voxel size."""
        seen = self.card.input.spacing_mm or tuple(spacing_mm)
        shape = tuple(int(n) for n in shape_zyx)
        resized = tuple(max(1, round(n * s / t)) for n, s, t in zip(shape, spacing_mm, seen, strict=True))
        whole = InputPlacement(shape, resized, resized)
        size = self._config.size
        origin = tuple(round(c + 0.5) - size // 2 for c in whole.to_input(centre_zyx))
        return whole.window(origin, (size,) * 3)

    @torch.inference_mode()
    def encode(
        self, volume: np.ndarray, spacing_mm: Sequence[float], centre_zyx: Sequence[float], modality: str = ""
    ) -> VolumeEmbedding:
        """Encode the crop around a voxel. volume: (z, y, x) native intensities."""
        placement = self.placement(volume.shape, spacing_mm, centre_zyx)
        for listener in self.on_encode:
            listener(placement)
        crop = normalised(crop_of(volume, placement), inside_of(placement), modality)
        with self.autocast():
            features = self.network.encode(crop.to(self.device)[None, None])
        return VolumeEmbedding((features.float(),), placement)

    @torch.inference_mode()
    def decode(self, embedding: VolumeEmbedding, prompts: VolumePrompts) -> VolumeMask:
        """Predict one object. Raises InvalidPrompt if no click lies in the crop."""
        placement = embedding.placement
        for listener in self.on_encode:
            listener(placement)
        points, labels = self._clicks(placement, prompts)
        logits, scores = self.network.decode(
            embedding.features[0], points, labels, self._mask(placement, prompts.previous)
        )
        coarse = logits[:, :1].float()
        start, native = native_logits(coarse, placement)
        return VolumeMask(start, native, float(scores[0, 0]), placement, coarse.cpu())

    def attention_sites(self) -> list[SiteSpec]:
        """The encoder's blocks, then the three attentions of each decoder layer, then the decoder's last one."""
        config = self._config
        image = TokenLayout((config.patch,) * 3, (config.grid,) * 3)
        windows = TokenLayout((config.patch,) * 3, (config.grid,) * 3, window=(config.window,) * 3)
        sites = []
        for i in range(config.depth):
            kind: SiteKind = "global" if i in config.global_blocks else "window"
            layout = image if kind == "global" else windows
            module = f"image_encoder.blocks.{i}.attn"
            sites.append(SiteSpec(f"encoder.{i}", module, kind, config.heads, layout, layout))
        return sites + decoder_sites("mask_decoder.transformer", config.decoder_depth, config.decoder_heads, image)

    def prompt_tokens(self, prompts: VolumePrompts) -> tuple[PromptToken, ...]:
        """The score's token, mask tokens, clicks, and an empty place."""
        labels = np.asarray(prompts.point_labels).tolist()
        clicks = [PromptToken(f"point {i} ({'+' if label else '−'})") for i, label in enumerate(labels, start=1)]
        masks = [PromptToken(f"mask {i}") for i in range(self._config.masks)]
        return (PromptToken("score"), *masks, *clicks, PromptToken("no box"))

    def _clicks(self, placement: InputPlacement, prompts: VolumePrompts) -> tuple[Tensor, Tensor]:
        points = np.asarray(prompts.points_zyx, np.float64).reshape(-1, 3)
        there = np.array([placement.to_input(point) for point in points.tolist()]).reshape(-1, 3)
        inside = ((there >= -0.5) & (there < self._config.size - 0.5)).all(axis=1)
        if not inside.any():
            raise InvalidPrompt(
                f"none of the {len(points)} clicks lies in the crop of {self._config.size}³ voxels that was encoded; "
                "encode around them."
            )
        xyz = torch.tensor(there[inside][:, ::-1].copy(), dtype=torch.float32, device=self.device)
        labels = torch.tensor(np.asarray(prompts.point_labels)[inside], device=self.device)
        return xyz[None], labels[None]

    def _mask(self, placement: InputPlacement, previous: VolumeMask | None) -> Tensor:
        side = self._config.size // 4
        if previous is None:
            return torch.zeros(1, 1, side, side, side, device=self.device)
        if previous.coarse is not None and previous.placement == placement:
            return previous.coarse.to(self.device)
        whole = np.full(placement.native_shape, OUTSIDE_LOGIT, np.float32)
        whole[previous.slices] = previous.logits
        crop = crop_of(whole, placement, outside=OUTSIDE_LOGIT)
        return F.avg_pool3d(crop[None, None], 4).to(self.device)


def crop_of(volume: np.ndarray, placement: InputPlacement, outside: float = 0.0) -> Tensor:
    """The window of a placement as the network sees it: (z, y, x) float32, linear between voxels, `outside` beyond."""
    values = None
    for axis, (n, r, o, size) in enumerate(
        zip(placement.native_shape, placement.resized_shape, placement.start, placement.input_shape, strict=True)
    ):
        where = ((np.arange(size) + o + 0.5) * n / r - 0.5).clip(0, n - 1)
        low = np.minimum(np.floor(where).astype(np.int64), max(n - 2, 0))
        first, last = int(low[0]), int(min(low[-1] + 1, n - 1))
        cut = (slice(None),) * axis + (slice(first, last + 1),)
        values = np.asarray(volume[cut] if values is None else values[cut])
        values = values.astype(np.float32) if axis == 0 else values
        share = (where - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        upper = values.take(np.minimum(low + 1, n - 1) - first, axis)
        values = values.take(low - first, axis) * (1 - share) + upper * share
    crop = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    return torch.where(inside_of(placement), crop, crop.new_tensor(outside))


def inside_of(placement: InputPlacement) -> Tensor:
    """(z, y, x) bool: which voxels of the input lie in the volume."""
    z, y, x = (
        (torch.arange(size) + o >= 0) & (torch.arange(size) + o < r)
        for size, o, r in zip(placement.input_shape, placement.start, placement.resized_shape, strict=True)
    )
    return z[:, None, None] & y[:, None] & x


def normalised(crop: Tensor, inside: Tensor, modality: str) -> Tensor:
    """A crop with mean 0 and deviation 1 over its voxels above 0, as the authors' transform does.

    CT is clamped first. Where nothing lies above 0, the mean and deviation of all voxels of the volume count.
    """
    if modality == "CT":
        crop = crop.clamp(*_CT_LIMITS)
    counted = crop[crop > 0] if bool((crop > 0).any()) else crop[inside]
    deviation = counted.std() if counted.numel() > 1 else counted.new_tensor(0.0)
    return (crop - counted.mean()) / (deviation if float(deviation) > 0 else 1.0)


def native_logits(coarse: Tensor, placement: InputPlacement) -> tuple[tuple[int, int, int], np.ndarray]:
    """Logits (1, 1, …) over a window on the volume's own voxels: the first voxel there, and (z, y, x) from it on."""
    fine = F.interpolate(coarse, size=placement.input_shape, mode="trilinear", align_corners=False)
    starts, sides = [], []
    for axis, (n, size) in enumerate(zip(placement.native_shape, placement.input_shape, strict=True)):
        inputs = np.array([placement.to_input([float(i)] * 3)[axis] for i in (0, 1)])
        where = inputs[0] + np.arange(n) * (inputs[1] - inputs[0])
        there = np.flatnonzero((where >= -0.5) & (where < size - 0.5))
        starts.append(int(there[0]))
        sides.append(torch.from_numpy((where[there] + 0.5) * 2 / size - 1).to(fine))
    z, y, x = torch.meshgrid(*sides, indexing="ij")
    sampled = F.grid_sample(
        fine, torch.stack([x, y, z], dim=-1)[None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return (starts[0], starts[1], starts[2]), sampled[0, 0].cpu().numpy()


def build(
    card: ModelCard, weights: Mapping[str, Tensor] | None, *, seed: int, device: torch.device, dtype: torch.dtype
) -> SamMed3DModel:
    """A SAM-Med3D. weights: the authors' names; None for random ones from `seed`. Raises UnreadableWeights."""
    network = empty(lambda: SamMed3D(SamMed3DConfig(size=card.input.size[0])))
    if weights is None:
        draw_weights(network, seed)
    else:
        fill(network, turned(weights), card.name)
    return SamMed3DModel(card, network, device, dtype)
