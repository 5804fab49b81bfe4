"""The bundled click-to-segment network: a convolutional stem, a global transformer, and a SAM-like decoder.

A plain patch ViT needs far more images than a small project has; convolutions bring locality, the transformer at 1/16
brings context, and the decoder keeps the two-way attention between prompt tokens and image tokens of SAM (Kirillov et
al. 2023), so that "which part of the image does this click look at" is a question with an answer.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medtransformer.models.click_layers import (
    MLP,
    Block,
    Conv2d,
    GroupNorm,
    ResidualConv,
    TwoWayLayer,
    double,
    mask_evidence,
)
from napari_medtransformer.models.focus_network import FocusNetwork, drawn_clicks, drawn_mask


@dataclass(frozen=True)
class ClickConfig:
    """Sizes of a ClickNetwork. input_size in pixels, a multiple of 16; tokens lie on a grid of input_size / 16."""

    input_size: int = 256
    stem_channels: tuple[int, int, int] = (24, 48, 96)
    width: int = 192
    depth: int = 6
    heads: int = 6
    decoder_width: int = 128
    decoder_depth: int = 2
    decoder_heads: int = 4
    masks: int = 3

    @property
    def token_grid(self) -> tuple[int, int]:
        return (self.input_size // 16, self.input_size // 16)


@dataclass(frozen=True)
class PromptBatch:
    """Prompts of B objects, in input pixels.

    points_yx: (B, P, 2) float; point_labels: (B, P), 1 inside, 0 outside, -1 empty place. boxes: (B, 4) y0 x0 y1 x1,
    half-open, and has_box: (B,) bool. mask_logits: (B, 1, S/2, S/2), zeros where has_mask: (B,) bool is False.
    image_index: (B,) which of the encoded images each object is on.
    """

    points_yx: Tensor
    point_labels: Tensor
    boxes: Tensor
    has_box: Tensor
    mask_logits: Tensor
    has_mask: Tensor
    image_index: Tensor


@dataclass(frozen=True)
class ImageParts:
    """What the decoder makes of B images whatever is asked of them: worked out once, used for every prompt.

    tokens: (B, N, width). half, quarter, eighth: the images' share of the convolutions over image and prompts
    together, which are linear. alike4, alike8: embeddings of unit length.
    """

    tokens: Tensor
    half: Tensor
    quarter: Tensor
    eighth: Tensor
    alike4: Tensor
    alike8: Tensor

    def of(self, index: Tensor) -> ImageParts:
        """Those of the images that each of so many objects is on."""
        if len(self.tokens) == 1:  # nothing to choose; a copy for every prompt would take longer than some layers
            return self
        return ImageParts(*(getattr(self, field.name)[index] for field in fields(self)))


class Encoder(nn.Module):
    """(B, 1, S, S) to features at 1/2, 1/4 and 1/8 of the size, and tokens (B, (S/16)², width)."""

    def __init__(self, config: ClickConfig) -> None:
        super().__init__()
        half, quarter, eighth = config.stem_channels
        self.stem2 = nn.Sequential(Conv2d(3, half, 3, stride=2, padding=1), ResidualConv(half))
        self.stem4 = nn.Sequential(
            GroupNorm(half), Conv2d(half, quarter, 3, stride=2, padding=1), ResidualConv(quarter)
        )
        self.stem8 = nn.Sequential(
            GroupNorm(quarter),
            Conv2d(quarter, eighth, 3, stride=2, padding=1),
            ResidualConv(eighth),
            ResidualConv(eighth),
        )
        self.stem16 = nn.Sequential(
            GroupNorm(eighth),
            Conv2d(eighth, config.width, 3, stride=2, padding=1),
            ResidualConv(config.width),
        )
        # Without it a constant vector shared by all tokens drowns what tells them apart, their position included.
        self.token_norm = nn.InstanceNorm2d(config.width, affine=True)
        self.position = nn.Parameter(0.3 * torch.randn(1, config.width, *config.token_grid))
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.up8 = Conv2d(config.width, eighth, 1)
        self.merge8 = ResidualConv(eighth)
        self.up4 = Conv2d(eighth, quarter, 1)
        self.merge4 = ResidualConv(quarter)
        self.up2 = Conv2d(quarter, half, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # Two more views of the intensity tell small contrasts apart in the dark and in the bright half.
        x = torch.cat([image * 2 - 1, image.clamp(max=0.5) * 4 - 1, image.clamp(min=0.5) * 4 - 3], dim=1)
        x2 = self.stem2(x)
        x4 = self.stem4(x2)
        x8 = self.stem8(x4)
        x16 = self.token_norm(self.stem16(x8)) + self.position
        grid = x16.shape[-2:]
        tokens = x16.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        coarse = tokens.transpose(1, 2).unflatten(-1, grid)
        x8 = self.merge8(x8 + double(self.up8(coarse)))
        x4 = self.merge4(x4 + double(self.up4(x8)))
        x2 = x2 + double(self.up2(x4))
        return x2, x4, x8, tokens


class Decoder(nn.Module):
    """Prompts and image features to three masks at half the input size, with an expected IoU each."""

    _kept_position: tuple[tuple[int, int], Tensor] | None = None

    def __init__(self, config: ClickConfig) -> None:
        super().__init__()
        half, quarter, eighth = config.stem_channels
        width = config.decoder_width
        self.config = config
        self.fourier: Tensor
        self.register_buffer("fourier", torch.randn(2, width // 2))
        self.mask_tokens = nn.Parameter(0.5 * torch.randn(config.masks, width))
        self.score_token = nn.Parameter(0.5 * torch.randn(1, width))
        # outside point, inside point, upper left and lower right corner of a box
        self.kinds = nn.Parameter(0.5 * torch.randn(4, width))
        self.image_in = nn.Linear(config.width, width)
        self.maps_in = Conv2d(MAPS, width, 8, stride=8)
        self.layers = nn.ModuleList(TwoWayLayer(width, config.decoder_heads) for _ in range(config.decoder_depth))
        self.embed4 = Conv2d(quarter, SIMILARITY_CHANNELS, 1)
        self.embed8 = Conv2d(eighth, SIMILARITY_CHANNELS, 1)
        mid, fine, finest = 64, 32, 16
        self.down4 = Conv2d(quarter + MAPS + 2, fine, 3, padding=1)
        self.down8 = Conv2d(fine, mid, 3, stride=2, padding=1)
        self.features8 = Conv2d(eighth + 2, mid, 1)
        self.tokens8 = Conv2d(width, mid, 1)
        self.refine8 = nn.Sequential(ResidualConv(mid), ResidualConv(mid), ResidualConv(mid))
        self.up4 = Conv2d(mid, fine, 1)
        self.refine4 = nn.Sequential(ResidualConv(fine), ResidualConv(fine))
        self.up2 = Conv2d(fine, finest, 1)
        self.skip2 = Conv2d(half + MAPS, finest, 3, padding=1)
        self.refine2 = ResidualConv(finest)
        self.norm2 = GroupNorm(finest)
        self.hyper = nn.ModuleList(MLP(width, width, finest) for _ in range(config.masks))
        self.bias = nn.Linear(width, 1)
        self.score = MLP(2 * width + 2 * mid + 2, width, 1)

    def position(self, yx: Tensor) -> Tensor:
        """Random Fourier features of input pixel coordinates (..., 2) (Tancik et al. 2020)."""
        unit = (yx + 0.5) / self.config.input_size * 2 - 1
        angle = 2 * torch.pi * (unit.float() @ self.fourier)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def image_position(self) -> Tensor:
        """The same encoding at the centres of the image tokens, (1, tokens, width); kept between answers."""
        # As in Conv2d: what is kept must not get into a graph, and must be known to have changed.
        inference = torch.is_inference_mode_enabled() and not self.fourier.is_inference()
        state = (self.fourier.data_ptr(), self.fourier._version) if inference else (0, 0)
        if inference and self._kept_position is not None and self._kept_position[0] == state:
            return self._kept_position[1]
        rows, columns = self.config.token_grid
        y = torch.arange(rows, device=self.fourier.device) * 16 + 7.5
        x = torch.arange(columns, device=self.fourier.device) * 16 + 7.5
        position = self.position(torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)).flatten(0, 1)[None]
        if inference:
            self._kept_position = state, position
        return position

    def prompt_tokens(self, prompts: PromptBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, masks + 1 + P + 2, width), their positions, and which of them are used (B, n) bool."""
        batch = prompts.boxes.shape[0]
        own = torch.cat([self.mask_tokens, self.score_token])[None].expand(batch, -1, -1)
        corners = prompts.boxes.view(batch, 2, 2)
        kinds = torch.cat(
            [self.kinds[prompts.point_labels.clamp(min=0)], self.kinds[2:][None].expand(batch, -1, -1)], 1
        )
        where = self.position(torch.cat([prompts.points_yx, corners], dim=1))
        position = torch.cat([torch.zeros_like(own), where], dim=1)
        used = torch.cat(
            [
                torch.ones(batch, own.shape[1], dtype=torch.bool, device=own.device),
                prompts.point_labels >= 0,
                prompts.has_box[:, None].expand(-1, 2),
            ],
            dim=1,
        )
        return torch.cat([own, kinds], dim=1), position, used

    def image_parts(self, features: tuple[Tensor, ...]) -> ImageParts:
        """What every prompt on the encoded images shares."""
        x2, x4, x8, tokens = features
        return ImageParts(
            tokens=self.image_in(tokens),
            half=_image_share(self.skip2, x2),
            quarter=_image_share(self.down4, x4),
            eighth=_image_share(self.features8, x8),
            alike4=F.normalize(self.embed4(x4).float(), dim=1),
            alike8=F.normalize(self.embed8(x8).float(), dim=1),
        )

    def forward(self, seen: ImageParts, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        seen = seen.of(prompts.image_index)
        grid = self.config.token_grid
        maps2 = prompt_maps(prompts, self.config.input_size)
        maps4 = F.avg_pool2d(maps2, 2)

        image = seen.tokens + self.maps_in(maps2).flatten(2).transpose(1, 2)
        prompt, position, used = self.prompt_tokens(prompts)
        image_position = self.image_position()
        for layer in self.layers:
            prompt, image = layer(prompt, image, position, image_position, used)
        context = image.transpose(1, 2).unflatten(-1, grid)

        similar4 = click_similarity(seen.alike4, prompts, 4)
        similar8 = click_similarity(seen.alike8, prompts, 8)
        y4 = seen.quarter + _prompts_share(self.down4, torch.cat([maps4, similar4], dim=1))
        y8 = self.down8(F.gelu(y4)) + seen.eighth + _prompts_share(self.features8, similar8)
        y8 = self.refine8(y8 + double(self.tokens8(context)))
        y4 = self.refine4(y4 + double(self.up4(y8)))
        y2 = seen.half + _prompts_share(self.skip2, maps2) + double(self.up2(y4))
        y2 = self.norm2(self.refine2(y2))

        masks = self.config.masks
        weights = torch.stack([head(prompt[:, i]) for i, head in enumerate(self.hyper)], dim=1)
        logits = torch.einsum("bmc,bchw->bmhw", weights, y2) + self.bias(prompt[:, :masks])[..., None]
        tokens = torch.cat([prompt[:, :masks], prompt[:, masks : masks + 1].expand(-1, masks, -1)], dim=2)
        evidence = mask_evidence(logits.detach().float(), y8)
        score = self.score(torch.cat([tokens, evidence.to(tokens.dtype)], dim=2))[..., 0].sigmoid()
        return logits.float(), score.float()


def _image_share(layer: Conv2d, x: Tensor) -> Tensor:
    """The share of a convolution over image and prompts that the image has, its first channels, without the bias."""
    return layer.over(x, slice(0, x.shape[1]), biased=False)


def _prompts_share(layer: Conv2d, x: Tensor) -> Tensor:
    """The share of a convolution over image and prompts that the prompts have, its last channels, and the bias."""
    return layer.over(x, slice(layer.in_channels - x.shape[1], layer.in_channels))


MAPS = 5
SIMILARITY_CHANNELS = 16
# Radius of a click drawn on the prompt maps, input pixels: wide enough to survive pooling to a quarter of the size.
CLICK_RADIUS = 5.0


def prompt_maps(prompts: PromptBatch, size: int) -> Tensor:
    """The prompts drawn at half the input size: (B, 5, S/2, S/2).

    The channels: box, inside clicks, outside clicks, earlier mask, 1 where there is an earlier mask.
    """
    half = size // 2
    centre = torch.arange(half, device=prompts.boxes.device) * 2 + 0.5
    y, x = centre[None, :, None], centre[None, None, :]
    y0, x0, y1, x1 = (prompts.boxes[:, i, None, None] - 0.5 for i in range(4))
    # A soft edge one map pixel wide keeps the position of the box to less than a pixel.
    inside = [(y - y0) / 2 + 0.5, (y1 - y) / 2 + 0.5, (x - x0) / 2 + 0.5, (x1 - x) / 2 + 0.5]
    box = inside[0].clamp(0, 1) * inside[1].clamp(0, 1) * inside[2].clamp(0, 1) * inside[3].clamp(0, 1)
    box = box * prompts.has_box[:, None, None]
    clicks = drawn_clicks(prompts.points_yx, prompts.point_labels, centre, (CLICK_RADIUS,))
    has_mask = prompts.has_mask[:, None, None].to(box.dtype)
    mask = drawn_mask(prompts.mask_logits, prompts.has_mask, 4)
    return torch.stack([box, *(maps[0] for maps in clicks), mask, has_mask.expand_as(box)], dim=1)


def click_similarity(unit: Tensor, prompts: PromptBatch, stride: int) -> Tensor:
    """Likeness of every pixel to the clicked ones: (B, 2, h, w), the most alike inside and outside click.

    unit: (B, C, h, w), an embedding of unit length, or (1, C, h, w) where all objects are on one image. Cosine
    similarity; 0 where there is no click of that sign.
    """
    unit = unit.expand(len(prompts.points_yx), -1, -1, -1)
    nothing = unit.new_zeros(len(unit), *unit.shape[-2:])
    signs = [prompts.point_labels == sign for sign in (1, 0)]
    there = [bool(chosen.any()) for chosen in signs]
    if not any(there):  # spares work on every pixel, as below
        return torch.stack([nothing, nothing], dim=1)
    size = torch.tensor(unit.shape[-2:], device=unit.device) * stride
    where = (prompts.points_yx + 0.5) / size * 2 - 1
    at = F.grid_sample(unit, where.flip(-1)[:, :, None], mode="bilinear", align_corners=False, padding_mode="border")
    at = F.normalize(at[..., 0], dim=1)
    likeness = torch.einsum("bchw,bcp->bphw", unit, at)
    maps = []
    for chosen, drawn in zip(signs, there, strict=True):
        if drawn:
            best = likeness.masked_fill(~chosen[:, :, None, None], -2).amax(dim=1)
            maps.append(torch.where(best > -1.5, best, nothing))
        else:
            maps.append(nothing)
    return torch.stack(maps, dim=1)


class ClickNetwork(nn.Module):
    """Encoder, decoder and second look; `encode` once per image, `decode` and then `focus` per prompt.

    encode: images (B, 1, S, S) float in [0, 1] to features (B, …): 1/2, 1/4, 1/8 maps and tokens at 1/16.
    decode: features and a PromptBatch of B' objects to logits (B', masks, S/2, S/2) and scores (B', masks) in [0, 1].
    Whoever decodes more than once hands over what `image_parts` made of the features.

    Kernels lie channels last in memory, so that activations do: torch's convolutions and interpolations of few channels
    on a processor take a half to a tenth of the time that they take in the other order.
    """

    def __init__(self, config: ClickConfig | None = None) -> None:
        super().__init__()
        self.config = config or ClickConfig()
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)
        self.focus = FocusNetwork()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch leaves it out of the types

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        features: tuple[Tensor, Tensor, Tensor, Tensor] = self.encoder(images)
        return features

    def image_parts(self, features: tuple[Tensor, ...]) -> ImageParts:
        return self.decoder.image_parts(features)

    def decode(
        self, features: tuple[Tensor, ...], prompts: PromptBatch, seen: ImageParts | None = None
    ) -> tuple[Tensor, Tensor]:
        logits, scores = self.decoder(self.image_parts(features) if seen is None else seen, prompts)
        return logits, scores

    def forward(self, images: Tensor, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        return self.decode(self.encode(images), prompts)
