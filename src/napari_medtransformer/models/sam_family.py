"""What all members of Segment Anything's family share: a square input, its prompts, masks back on native pixels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medtransformer.attention.layout import FREE_TOKENS, TokenLayout
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.sites import SiteKind, SiteSpec
from napari_medtransformer.models.base import (
    ImageEmbedding,
    MaskPrediction,
    PromptableModel,
    Prompts,
    PromptToken,
    box_tokens,
    point_tokens,
)
from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.resizing import pad, resize

OUTSIDE_LOGIT = -8.0
"""Of a mask prompt where it says nothing, as in padding: outside, about as surely as SAM's own masks say it."""


@dataclass(frozen=True, eq=False)
class PromptTensors:
    """Prompts as the family's prompt encoders take them: one image, one object.

    points: (1, 1, n, 2) float32, (x, y) of pixel centres in the input; labels: (1, 1, n). boxes: (1, 1, 4) corners
    (x0, y0, x1, y1), to whose coordinates the encoder adds half a pixel itself. mask: (1, 1, m, m) logits.
    """

    points: Tensor | None
    labels: Tensor | None
    boxes: Tensor | None
    mask: Tensor | None


class SamFamilyAdapter(PromptableModel):
    """A network of Segment Anything's family behind the interface of promptable models.

    size: pixels per side of the square input. grid: tokens per side of the image embedding. The card says how an image
    comes to that size and how it is normalised (input.fit, mean, std). dtype: what the image encoder's matrix products
    run in; parameters stay float32, and the decoder runs in float32.
    """

    def __init__(
        self, card: ModelCard, network: nn.Module, device: torch.device, dtype: torch.dtype, *, size: int, grid: int
    ) -> None:
        self.card = card
        self.network = network.to(device).eval().requires_grad_(False)
        self.device, self.dtype = device, dtype
        self.on_encode: list[Callable[[InputPlacement], None]] = []
        self._size, self._grid = size, grid

    @abstractmethod
    def _features(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """What the decoder needs of an image. pixels: (1, 3, size, size), normalised."""

    @abstractmethod
    def _masks(self, features: tuple[Tensor, ...], given: PromptTensors, several: bool) -> tuple[Tensor, Tensor]:
        """Masks (m, h, w) of the whole input as logits at any resolution, and their scores (m,)."""

    @abstractmethod
    def _own_tokens(self) -> list[PromptToken]:
        """The decoder's own tokens, which come before those of prompts."""

    def placement(self, native_shape: tuple[int, int], pixel_size: tuple[float, float] = (1.0, 1.0)) -> InputPlacement:
        """The longest side fills the input and the rest is padded or, if the card says so, both sides fill it."""
        if self.card.input.fit == "stretch":
            return InputPlacement(native_shape, (self._size,) * 2, (self._size,) * 2)
        return InputPlacement.longest_side(native_shape, self._size, pixel_size)

    @torch.inference_mode()
    def encode(self, image: np.ndarray, pixel_size: tuple[float, float] = (1.0, 1.0)) -> ImageEmbedding:
        """Encode one image. image: (H, W) float32 in [0, 1], already windowed."""
        return self._encoded(image, pixel_size)

    @torch.inference_mode()
    def decode(self, embedding: ImageEmbedding, prompts: Prompts) -> MaskPrediction:
        """Predict the candidate masks of one object, at the image's native pixels."""
        logits, scores = self._decoded(embedding, prompts)
        return MaskPrediction(logits.cpu().numpy(), scores.cpu().numpy())

    @torch.enable_grad()
    def differentiable_logits(self, image: np.ndarray, pixel_size: tuple[float, float], prompts: Prompts) -> Tensor:
        """The candidates' logits (m, H, W) of encoding and decoding in one pass that keeps its graph for gradients."""
        return self._decoded(self._encoded(image, pixel_size), prompts)[0]

    def _encoded(self, image: np.ndarray, pixel_size: tuple[float, float]) -> ImageEmbedding:
        rows, columns = image.shape
        placement = self.placement((rows, columns), pixel_size)
        for listener in self.on_encode:
            listener(placement)
        with self.autocast():
            features = self._features(self._input(image, placement))
        return ImageEmbedding(tuple(feature.float() for feature in features), placement)

    def _decoded(self, embedding: ImageEmbedding, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Native logits (m, H, W) and scores (m,)."""
        placement = embedding.placement
        for listener in self.on_encode:
            listener(placement)
        given, several = self._tensors(placement, prompts), self._wants_several(prompts)
        masks, scores = self._masks(embedding.features, given, several)
        whole = F.interpolate(masks[None].float(), size=(self._size,) * 2, mode="bilinear", align_corners=False)
        rows, columns = placement.resized_shape
        return resize(whole[..., :rows, :columns], placement.native_shape)[0], scores.float()

    def prompt_tokens(self, prompts: Prompts) -> tuple[PromptToken, ...]:
        """The decoder's own tokens, points, then a box's corners or, beside points alone, an empty place."""
        points = point_tokens(prompts)
        box = () if prompts.box is None else box_tokens(prompts.box)
        empty = (PromptToken("no box"),) if points and not box else ()
        return (*self._own_tokens(), *points, *empty, *box)

    def _wants_several(self, prompts: Prompts) -> bool:
        """Several candidates for a single click, which is ambiguous, one for anything clearer (Meta's advice)."""
        return len(prompts.points_yx) == 1 and prompts.box is None and prompts.mask_logits is None

    def _input(self, image: np.ndarray, placement: InputPlacement) -> Tensor:
        native = torch.from_numpy(np.ascontiguousarray(image, np.float32)).to(self.device)[None, None]
        colour = resize(native, placement.resized_shape).expand(1, 3, -1, -1)
        if self.card.input.mean:
            mean, std = (
                torch.tensor(values, device=self.device).view(1, -1, 1, 1)
                for values in (self.card.input.mean, self.card.input.std)
            )
            colour = (colour - mean) / std
        return pad(colour, self._size, 0.0)

    def _tensors(self, placement: InputPlacement, prompts: Prompts) -> PromptTensors:
        points = labels = boxes = None
        if len(prompts.points_yx):
            where = [placement.to_input(point)[::-1] for point in np.asarray(prompts.points_yx).tolist()]
            points = torch.tensor(where, dtype=torch.float32, device=self.device)[None, None]
            labels = torch.from_numpy(np.asarray(prompts.point_labels, np.int64)).to(self.device)[None, None]
        if prompts.box is not None:
            # half-open edges lie half a pixel before the pixel whose index they carry
            corners = [placement.to_input((c[0] - 0.5, c[1] - 0.5))[::-1] for c in (prompts.box[:2], prompts.box[2:])]
            boxes = torch.tensor(corners, dtype=torch.float32, device=self.device).reshape(1, 1, 4)
        return PromptTensors(points, labels, boxes, self._mask_input(placement, prompts.mask_logits))

    def _mask_input(self, placement: InputPlacement, logits: np.ndarray | None) -> Tensor | None:
        if logits is None:
            return None
        native = torch.from_numpy(np.ascontiguousarray(logits, np.float32)).to(self.device)[None, None]
        whole = pad(resize(native, placement.resized_shape), self._size, OUTSIDE_LOGIT)
        # the prompt encoder halves a mask twice on its way to the token grid
        return F.interpolate(whole, size=(4 * self._grid,) * 2, mode="bilinear", align_corners=False, antialias=True)


def decoder_sites(transformer: str, layers: int, heads: int, image: TokenLayout) -> list[SiteSpec]:
    """The sites of a two-way transformer: three per layer, then the last one.

    transformer: its path in the network. image: the layout of the image embedding's tokens.
    """
    sides: dict[SiteKind, tuple[str, TokenLayout, TokenLayout]] = {
        "prompt": ("self_attn", FREE_TOKENS, FREE_TOKENS),
        "prompt-to-image": ("cross_attn_token_to_image", FREE_TOKENS, image),
        "image-to-prompt": ("cross_attn_image_to_token", image, FREE_TOKENS),
    }
    sites = []
    for i in range(layers):
        for kind, (module, queries, keys) in sides.items():
            name = f"decoder.{i}.{'prompts' if kind == 'prompt' else kind}"
            sites.append(SiteSpec(name, f"{transformer}.layers.{i}.{module}", kind, heads, queries, keys))
    last = f"{transformer}.final_attn_token_to_image"
    sites.append(SiteSpec("decoder.final.prompt-to-image", last, "prompt-to-image", heads, FREE_TOKENS, image))
    return sites
