"""Segment Anything (Kirillov et al. 2023) of any size, on transformers' network with the attention made fused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SamConfig, SamModel, SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionAttention

from napari_medtransformer.attention.bias import DecomposedBias
from napari_medtransformer.attention.fused import attend
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.relative import relative_table
from napari_medtransformer.attention.sites import FREE_TOKENS, SiteKind, SiteSpec, TokenLayout
from napari_medtransformer.errors import UnsupportedModel
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
from napari_medtransformer.models.sam_names import transformers_names
from napari_medtransformer.models.weights import fill

# ImageNet statistics of [0, 1] intensities, red green blue (Meta's preprocessing: 123.675 … / 255)
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
# models fine-tuned on [0, 1] intensities as they are
_PLAIN_INTENSITIES = frozenset({"medsam"})
# width, blocks, heads and global blocks of the published image encoders
_VISION: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "vit-b": (768, 12, 12, (2, 5, 8, 11)),
    "vit-l": (1024, 24, 16, (5, 11, 17, 23)),
    "vit-h": (1280, 32, 16, (7, 15, 23, 31)),
}
# a mask prompt says nothing about the padding: outside, about as surely as SAM's own masks say it
_OUTSIDE_LOGIT = -8.0


class FusedSamAttention(nn.Module):
    """The attention of an image encoder's block over the parameters of transformers' own, without an N×N tensor."""

    def __init__(self, original: SamVisionAttention) -> None:
        super().__init__()
        self.heads: int = original.num_attention_heads
        self.qkv, self.proj = original.qkv, original.proj
        self.rel_pos_h: nn.Parameter | None = original.rel_pos_h if original.use_rel_pos else None
        self.rel_pos_w: nn.Parameter | None = original.rel_pos_w if original.use_rel_pos else None

    def forward(self, hidden_states: Tensor, output_attentions: bool = False) -> tuple[Tensor, None]:
        """hidden_states: (B, rows, columns, width), B images or windows. Returns the same shape, and no weights."""
        batch, rows, columns, _ = hidden_states.shape
        qkv = self.qkv(hidden_states).reshape(batch, rows * columns, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias = None
        if self.rel_pos_h is not None and self.rel_pos_w is not None:
            bias = DecomposedBias((relative_table(self.rel_pos_h, rows), relative_table(self.rel_pos_w, columns)))
        out = attend(q, k, v, bias=bias)
        out = self.proj(out.transpose(1, 2).reshape(batch, rows, columns, -1))
        return out, None


class SamAdapter(PromptableModel):
    """A SamModel of any configuration behind the interface of promptable models."""

    def __init__(self, card: ModelCard, network: SamModel, device: torch.device, dtype: torch.dtype) -> None:
        self.card = card
        self._sam = use_fused_attention(network).to(device).eval().requires_grad_(False)
        self.network = self._sam
        self.device, self.dtype = device, dtype
        self.on_encode: list[Callable[[InputPlacement], None]] = []
        self._size: int = network.config.vision_config.image_size
        self._grid: int = self._size // network.config.vision_config.patch_size

    def placement(self, native_shape: tuple[int, int], pixel_size: tuple[float, float] = (1.0, 1.0)) -> InputPlacement:
        """The longest side fills the input, the rest is padded."""
        return InputPlacement.longest_side(native_shape, self._size, pixel_size)

    @torch.inference_mode()
    def encode(self, image: np.ndarray, pixel_size: tuple[float, float] = (1.0, 1.0)) -> ImageEmbedding:
        """Encode one image. image: (H, W) float32 in [0, 1], already windowed."""
        rows, columns = image.shape
        placement = self.placement((rows, columns), pixel_size)
        for listener in self.on_encode:
            listener(placement)
        with self._autocast():
            features = self._sam.vision_encoder(self._input(image, placement)).last_hidden_state
        return ImageEmbedding((features.float(),), placement)

    @torch.inference_mode()
    def decode(self, embedding: ImageEmbedding, prompts: Prompts) -> MaskPrediction:
        """Predict one object: three candidates for a single click, which is ambiguous, one for anything clearer."""
        placement, sam = embedding.placement, self._sam
        for listener in self.on_encode:
            listener(placement)
        points, labels, boxes = self._points_and_boxes(placement, prompts)
        sparse, dense = sam.prompt_encoder(points, labels, boxes, self._mask_input(placement, prompts.mask_logits))
        masks, scores = sam.mask_decoder(
            image_embeddings=embedding.features[0],
            image_positional_embeddings=sam.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=len(prompts.points_yx) == 1 and prompts.box is None and prompts.mask_logits is None,
        )
        whole = F.interpolate(masks[:, 0], size=(self._size, self._size), mode="bilinear", align_corners=False)
        rows, columns = placement.resized_shape
        native = resize(whole[..., :rows, :columns], placement.native_shape)
        return MaskPrediction(native[0].float().cpu().numpy(), scores[0, 0].float().cpu().numpy())

    def attention_sites(self) -> list[SiteSpec]:
        """The encoder's blocks, then the three attentions of each decoder layer, then the decoder's last one."""
        vision, decoder = self._sam.config.vision_config, self._sam.config.mask_decoder_config
        patch, grid = (vision.patch_size,) * 2, (self._grid,) * 2
        image = TokenLayout(patch, grid)
        windows = TokenLayout(patch, grid, window=(vision.window_size,) * 2)
        sites = []
        for i, layer in enumerate(self._sam.vision_encoder.layers):
            kind: SiteKind = "window" if layer.window_size > 0 else "global"
            layout = windows if layer.window_size > 0 else image
            module = f"vision_encoder.layers.{i}.attn"
            sites.append(SiteSpec(f"encoder.{i}", module, kind, vision.num_attention_heads, layout, layout))
        heads = decoder.num_attention_heads
        sides: dict[SiteKind, tuple[str, TokenLayout, TokenLayout]] = {
            "prompt": ("self_attn", FREE_TOKENS, FREE_TOKENS),
            "prompt-to-image": ("cross_attn_token_to_image", FREE_TOKENS, image),
            "image-to-prompt": ("cross_attn_image_to_token", image, FREE_TOKENS),
        }
        for i in range(decoder.num_hidden_layers):
            for kind, (module, queries, keys) in sides.items():
                name = f"decoder.{i}.{'prompts' if kind == 'prompt' else kind}"
                path = f"mask_decoder.transformer.layers.{i}.{module}"
                sites.append(SiteSpec(name, path, kind, heads, queries, keys))
        last = "mask_decoder.transformer.final_attn_token_to_image"
        sites.append(SiteSpec("decoder.final.prompt-to-image", last, "prompt-to-image", heads, FREE_TOKENS, image))
        return sites

    def prompt_tokens(self, prompts: Prompts) -> tuple[PromptToken, ...]:
        """The score's token, mask tokens, points, then a box's corners or, beside points alone, an empty place."""
        own = [PromptToken("score")] + [
            PromptToken(f"mask {i}") for i in range(self._sam.config.mask_decoder_config.num_multimask_outputs + 1)
        ]
        points = point_tokens(prompts)
        box = () if prompts.box is None else box_tokens(prompts.box)
        empty = (PromptToken("no box"),) if points and not box else ()
        return (*own, *points, *empty, *box)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def _input(self, image: np.ndarray, placement: InputPlacement) -> Tensor:
        native = torch.from_numpy(np.ascontiguousarray(image, np.float32)).to(self.device)[None, None]
        colour = resize(native, placement.resized_shape).expand(1, 3, -1, -1)
        if self.card.name not in _PLAIN_INTENSITIES:
            mean, std = (torch.tensor(values, device=self.device).view(1, 3, 1, 1) for values in (_MEAN, _STD))
            colour = (colour - mean) / std
        return pad(colour, self._size, 0.0)

    def _points_and_boxes(
        self, placement: InputPlacement, prompts: Prompts
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        # SAM takes (x, y) of pixel centres and adds half a pixel itself
        points = labels = boxes = None
        if len(prompts.points_yx):
            where = [placement.to_input(point)[::-1] for point in np.asarray(prompts.points_yx).tolist()]
            points = torch.tensor(where, dtype=torch.float32, device=self.device)[None, None]
            labels = torch.from_numpy(np.asarray(prompts.point_labels, np.int64)).to(self.device)[None, None]
        if prompts.box is not None:
            # half-open edges lie half a pixel before the pixel whose index they carry
            corners = [placement.to_input((c[0] - 0.5, c[1] - 0.5))[::-1] for c in (prompts.box[:2], prompts.box[2:])]
            boxes = torch.tensor(corners, dtype=torch.float32, device=self.device).reshape(1, 1, 4)
        return points, labels, boxes

    def _mask_input(self, placement: InputPlacement, logits: np.ndarray | None) -> Tensor | None:
        if logits is None:
            return None
        native = torch.from_numpy(np.ascontiguousarray(logits, np.float32)).to(self.device)[None, None]
        whole = pad(resize(native, placement.resized_shape), self._size, _OUTSIDE_LOGIT)
        # the prompt encoder halves a mask twice on its way to the token grid
        return F.interpolate(whole, size=(4 * self._grid,) * 2, mode="bilinear", align_corners=False, antialias=True)


def build(
    card: ModelCard, weights: Mapping[str, Tensor] | None, *, seed: int, device: torch.device, dtype: torch.dtype
) -> SamAdapter:
    """A SAM of the card's architecture. weights: Meta's or transformers' names; None for random ones from `seed`.

    dtype: what the image encoder's matrix products run in; parameters stay float32, the decoder runs in float32.
    Raises UnreadableWeights if they do not fit, UnsupportedModel for an unknown architecture.
    """
    if card.architecture not in _VISION:
        raise UnsupportedModel(f"{card.name}: no SAM is called {card.architecture!r}; there are {', '.join(_VISION)}.")
    width, blocks, heads, global_blocks = _VISION[card.architecture]
    vision = SamVisionConfig(
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        global_attn_indexes=list(global_blocks),
        image_size=card.input.size[0],
    )
    config = SamConfig(vision_config=vision, prompt_encoder_config={"image_size": card.input.size[0]})
    if weights is None:
        return SamAdapter(card, random_sam(config, seed), device, dtype)
    network = empty_sam(config)
    fill(network, transformers_names(weights), card.name)
    return SamAdapter(card, network, device, dtype)


def empty_sam(config: SamConfig) -> SamModel:
    """A SamModel with uninitialised parameters, made without the time that initialising takes."""
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        network = SamModel(config)
    network.to_empty(device="cpu")
    # one matrix under two names; leaving the meta device made two of it
    network.prompt_encoder.shared_embedding = network.shared_image_embedding
    return network


def random_sam(config: SamConfig, seed: int) -> SamModel:
    """A SamModel with weights drawn from `seed`, whose attention depends on the image.

    transformers' own initialisation is made for loading: its encoder starts at 1e-10. Linear layers, convolutions
    and embeddings get torch's defaults, as Meta's code does; positions are drawn, where Meta starts at zero.
    """
    network = empty_sam(config)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.LayerNorm, nn.Embedding)):
                module.reset_parameters()
        nn.init.normal_(network.shared_image_embedding.positional_embedding)
        for layer in network.vision_encoder.layers:
            # scores of unit variance, so that heads differ in where they look
            nn.init.normal_(layer.attn.qkv.weight, std=layer.attn.qkv.in_features**-0.5)
            if layer.attn.use_rel_pos:
                nn.init.normal_(layer.attn.rel_pos_h, std=0.1)
                nn.init.normal_(layer.attn.rel_pos_w, std=0.1)
        if network.vision_encoder.pos_embed is not None:
            nn.init.normal_(network.vision_encoder.pos_embed, std=0.02)
    return network


def use_fused_attention(network: SamModel) -> SamModel:
    """The same network, its encoder's attention replaced by the fused one over the same parameters.

    Takes a SamHQModel as well, whose encoder's attention is the same.
    """
    for layer in network.vision_encoder.layers:
        if not isinstance(layer.attn, FusedSamAttention):
            layer.attn = FusedSamAttention(layer.attn)
    return network
