"""Patches of like grey attend to one another; a mask is what is like the clicked patch."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medtransformer.attention.layout import TokenLayout
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.sites import SiteSpec
from napari_medtransformer.models.base import ImageEmbedding, MaskPrediction, PromptableModel, Prompts
from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.resizing import pad, resize
from napari_medtransformer.models.weights import fill

SIZE, PATCH, HEADS, WIDTH = 128, 4, 2, 16


class GreyNetwork(nn.Module):
    """Fourier features of each patch's mean grey, and one layer of attention between them."""

    def __init__(self) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(WIDTH // 2))
        self.sharpness = nn.Parameter(torch.tensor(8.0))

    def forward(self, image: Tensor) -> Tensor:
        """image: (1, 1, SIZE, SIZE) in [0, 1]. Returns (1, WIDTH, rows, columns), of unit length."""
        phase = F.avg_pool2d(image, PATCH).flatten(1)[..., None] * self.frequencies
        tokens = F.normalize(torch.cat([phase.cos(), phase.sin()], dim=-1), dim=-1)
        heads = tokens.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
        # any call of scaled_dot_product_attention is seen by the probe while its fused kernel runs
        out = F.scaled_dot_product_attention(heads * self.sharpness, heads, heads).transpose(1, 2).flatten(2)
        tokens = F.normalize(tokens + out, dim=-1)
        return tokens.transpose(1, 2).unflatten(2, (SIZE // PATCH, SIZE // PATCH))


class GreyModel(PromptableModel):
    """The network behind the interface of promptable models."""

    def __init__(self, card: ModelCard, network: GreyNetwork, device: torch.device, dtype: torch.dtype) -> None:
        self.card, self.network = card, network.to(device).eval()
        self.device, self.dtype = device, dtype
        self.on_encode: list[Callable[[InputPlacement], None]] = []

    def placement(self, native_shape: tuple[int, int], pixel_size: tuple[float, float] = (1.0, 1.0)) -> InputPlacement:
        return InputPlacement.longest_side(native_shape, SIZE, pixel_size)

    @torch.inference_mode()
    def encode(self, image: np.ndarray, pixel_size: tuple[float, float] = (1.0, 1.0)) -> ImageEmbedding:
        rows, columns = image.shape
        placement = self.placement((rows, columns), pixel_size)
        for listener in self.on_encode:
            listener(placement)
        native = torch.from_numpy(np.ascontiguousarray(image, np.float32)).to(self.device)[None, None]
        with self.autocast():
            features = self.network(pad(resize(native, placement.resized_shape), SIZE, 0.0))
        return ImageEmbedding((features.float(),), placement)

    @torch.inference_mode()
    def decode(self, embedding: ImageEmbedding, prompts: Prompts) -> MaskPrediction:
        placement, features = embedding.placement, embedding.features[0][0]
        logits = features.new_full(features.shape[1:], -1.0)
        points = prompts.points_yx.tolist()
        if prompts.box is not None:
            y0, x0, y1, x1 = prompts.box
            points.append([(y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2])
        labels = [*prompts.point_labels.tolist(), *([1] if prompts.box is not None else [])]
        for point, label in zip(points, labels, strict=True):
            row, column = (int(np.clip(p // PATCH, 0, SIZE // PATCH - 1)) for p in placement.to_input(point))
            alike = 20 * (torch.einsum("cyx,c->yx", features, features[:, row, column]) - 0.9)
            logits = torch.maximum(logits, alike) if label else torch.minimum(logits, -alike)
        whole = F.interpolate(logits[None, None], size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        rows, columns = placement.resized_shape
        native = resize(whole[..., :rows, :columns], placement.native_shape)
        return MaskPrediction(native[0].cpu().numpy(), np.array([0.5], np.float32))

    def attention_sites(self) -> list[SiteSpec]:
        image = TokenLayout((PATCH, PATCH), (SIZE // PATCH, SIZE // PATCH))
        return [SiteSpec("encoder.0", "", "global", HEADS, image, image)]


def build(
    card: ModelCard, weights: Mapping[str, Tensor] | None, *, seed: int, device: torch.device, dtype: torch.dtype
) -> GreyModel:
    """What the card's `builder` names."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = GreyNetwork()
    if weights is not None:
        fill(network, weights, card.name)
    return GreyModel(card, network, device, dtype)
