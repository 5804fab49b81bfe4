"""The bundled click-to-segment network as a promptable model: a first look at the slice, a second at a crop."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_medtransformer.attention.layout import FREE_TOKENS, TokenLayout
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.policy import cpu_has
from napari_medtransformer.attention.sites import SiteSpec
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
from napari_medtransformer.models.click_following import SecondLooks
from napari_medtransformer.models.click_layers import convolutions_in
from napari_medtransformer.models.click_network import ClickConfig, ClickNetwork, ImageParts, PromptBatch
from napari_medtransformer.models.resizing import pad, resize
from napari_medtransformer.models.second_look import expected_of_both, heed_box, second_look
from napari_medtransformer.models.weights import fill

_PATCH = 16  # input pixels per token and axis
_EMPTY_PLACE = -1  # label of a place that holds no point
# Who clicks once mostly means the smallest thing around the click: by how much a wider candidate must score higher.
# Measured on the validation sets of docs/quality.md: from 0.06 on nothing changes.
_LIKELIER = 0.1
_OUTSIDE_LOGIT = -8.0  # of a mask prompt on the padding; the network clamps there


class ClickModel(PromptableModel):
    """A ClickNetwork of any size behind the interface of promptable models."""

    refines = True  # it was trained on corrections of its own masks

    def __init__(self, card: ModelCard, network: ClickNetwork, device: torch.device, dtype: torch.dtype) -> None:
        self.card = card
        self.network = network.to(device).eval()
        self.device, self.dtype = device, dtype
        self.on_encode: list[Callable[[InputPlacement], None]] = []
        self._click: ClickNetwork = network
        self._size = network.config.input_size
        self._decoder_parameters = tuple(network.decoder.parameters())
        # Of the image that was asked about last, by its first features: prompts come one after another on one image.
        self._seen: tuple[weakref.ref[Tensor], tuple[int, ...], ImageParts] | None = None

    def placement(self, native_shape: tuple[int, int], pixel_size: tuple[float, float] = (1.0, 1.0)) -> InputPlacement:
        """The longest side fills the input, the rest is padded."""
        return InputPlacement.longest_side(native_shape, self._size, pixel_size)

    @torch.inference_mode()
    def encode(self, image: np.ndarray, pixel_size: tuple[float, float] = (1.0, 1.0)) -> ImageEmbedding:
        """Encode one image. image: (H, W) float32 in [0, 1], already windowed."""
        return self._encoded(image, pixel_size)

    @torch.inference_mode()
    def decode(self, embedding: ImageEmbedding, prompts: Prompts) -> MaskPrediction:
        """Predict the candidate masks of one object, at the image's native pixels."""
        with convolutions_in(self.convolutions):
            logits, scores = self._decoded(embedding, prompts)
        return MaskPrediction(logits.cpu().numpy(), scores.cpu().numpy())

    @property
    def convolutions(self) -> torch.dtype:
        """What a decoder's convolutions multiply in: bfloat16 on processors that have instructions for it.

        They take half the time there, and the network was trained in it; everything else is float32, and so is what
        the encoder and followers run in unless `dtype` says otherwise.
        """
        native = self.device.type == "cpu" and (cpu_has("avx512_bf16") or cpu_has("amx_bf16"))
        return torch.bfloat16 if native else torch.float32

    @torch.enable_grad()
    def differentiable_logits(self, image: np.ndarray, pixel_size: tuple[float, float], prompts: Prompts) -> Tensor:
        """The candidates' logits (m, H, W) of encoding and decoding in one pass that keeps its graph for gradients.

        Those of the first look, which is the transformer's.
        """
        return self._first_look(self._encoded(image, pixel_size), prompts)[0]

    def _encoded(self, image: np.ndarray, pixel_size: tuple[float, float]) -> ImageEmbedding:
        rows, columns = image.shape
        placement = self.placement((rows, columns), pixel_size)
        native = torch.from_numpy(np.ascontiguousarray(image, np.float32)).to(self.device)[None, None]
        inputs = pad(resize(native, placement.resized_shape), self._size, 0.0)
        for listener in self.on_encode:
            listener(placement)
        with self.autocast():
            features = self._click.encode(inputs)
        return ImageEmbedding((*(feature.float() for feature in features), native), placement)

    def follower(self) -> SecondLooks:
        """The second look alone, which mends the mask of the slice before."""
        return SecondLooks(self, self._click.focus)

    @torch.inference_mode()
    def first_look(self, embedding: ImageEmbedding, prompts: Prompts) -> MaskPrediction:
        """The candidate masks before the second look at the best of them, at the image's native pixels."""
        logits, scores = self._first_look(embedding, prompts)
        return MaskPrediction(logits.cpu().numpy(), scores.cpu().numpy())

    def _decoded(self, embedding: ImageEmbedding, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Native logits (m, H, W) and scores (m,)."""
        for listener in self.on_encode:
            listener(embedding.placement)
        logits, scores = self._first_look(embedding, prompts)
        # Only one candidate gets a second look, and its score; no other may then seem likelier.
        only_a_click = len(prompts.points_yx) == 1 and prompts.box is None and prompts.mask_logits is None
        best = _preferred(scores, _LIKELIER if only_a_click else 0.0)
        guess, image = logits[best : best + 1], embedding.features[-1]
        closer, sure = second_look(self._click.focus, image, embedding.placement, prompts, guess)
        likely = expected_of_both(scores[best], sure[0].float(), closer[0], prompts)
        expected = torch.minimum(scores, likely)
        expected[best] = likely
        logits[best] = closer[0]
        return torch.stack([heed_box(one, prompts) for one in logits]), expected

    def _first_look(self, embedding: ImageEmbedding, prompts: Prompts) -> tuple[Tensor, Tensor]:
        placement = embedding.placement
        features = embedding.features[:-1]
        logits, scores = self._click.decode(features, self._batch(placement, prompts), self._image_parts(features))
        whole = resize(logits.float(), (self._size, self._size))
        rows, columns = placement.resized_shape
        return resize(whole[..., :rows, :columns], placement.native_shape)[0], scores[0].float()

    def _image_parts(self, features: tuple[Tensor, ...]) -> ImageParts | None:
        """What every prompt on an image shares; None where it has to be part of a graph or nothing counts changes."""
        if not torch.is_inference_mode_enabled() or self._decoder_parameters[0].is_inference():
            return None
        # Weights that were changed in place count their changes.
        changes = tuple([p._version for p in self._decoder_parameters])
        seen = self._seen
        if seen is None or seen[0]() is not features[0] or seen[1] != changes:
            seen = self._seen = weakref.ref(features[0]), changes, self._click.image_parts(features)
        return seen[2]

    def attention_sites(self) -> list[SiteSpec]:
        """The encoder's global attention, then the three attentions of each decoder layer."""
        config = self._click.config
        image = TokenLayout(patch=(_PATCH, _PATCH), grid=config.token_grid)
        sites = [
            SiteSpec(f"encoder.{i}", f"encoder.blocks.{i}.attention", "global", config.heads, image, image)
            for i in range(config.depth)
        ]
        for i in range(config.decoder_depth):
            layer, heads = f"decoder.layers.{i}", config.decoder_heads
            sites += [
                SiteSpec(f"decoder.{i}.prompts", f"{layer}.self_attention", "prompt", heads, FREE_TOKENS, FREE_TOKENS),
                SiteSpec(
                    f"decoder.{i}.prompt-to-image",
                    f"{layer}.prompt_to_image",
                    "prompt-to-image",
                    heads,
                    FREE_TOKENS,
                    image,
                ),
                SiteSpec(
                    f"decoder.{i}.image-to-prompt",
                    f"{layer}.image_to_prompt",
                    "image-to-prompt",
                    heads,
                    image,
                    FREE_TOKENS,
                ),
            ]
        return sites

    def prompt_tokens(self, prompts: Prompts) -> tuple[PromptToken, ...]:
        """Mask tokens, the score's, points, and two places for a box, empty or not."""
        own = [PromptToken(f"mask {i + 1}") for i in range(self._click.config.masks)]
        points = point_tokens(prompts) or [PromptToken("no point")]
        empty = (PromptToken("no box, upper left"), PromptToken("no box, lower right"))
        box = empty if prompts.box is None else box_tokens(prompts.box)
        return (*own, PromptToken("score"), *points, *box)

    def _batch(self, placement: InputPlacement, prompts: Prompts) -> PromptBatch:
        """Prompts in native pixels as the network's batch of one."""
        points = np.array([placement.to_input(p) for p in prompts.points_yx.tolist()], np.float32).reshape(-1, 2)
        labels = np.asarray(prompts.point_labels, np.int64)
        if not len(points):  # the network wants at least one place, empty or not
            points, labels = np.zeros((1, 2), np.float32), np.array([_EMPTY_PLACE])
        box = np.zeros(4, np.float32)
        if prompts.box is not None:
            # Half-open edges lie half a pixel before the pixel whose index they carry.
            corners = [prompts.box[:2], prompts.box[2:]]
            box[:] = np.concatenate([np.add(placement.to_input([edge - 0.5 for edge in c]), 0.5) for c in corners])
        return PromptBatch(
            points_yx=self._tensor(points)[None],
            point_labels=torch.from_numpy(labels).to(self.device)[None],
            boxes=self._tensor(box)[None],
            has_box=torch.tensor([prompts.box is not None], device=self.device),
            mask_logits=self._mask_logits(placement, prompts.mask_logits),
            has_mask=torch.tensor([prompts.mask_logits is not None], device=self.device),
            image_index=torch.zeros(1, dtype=torch.long, device=self.device),
        )

    def _mask_logits(self, placement: InputPlacement, logits: np.ndarray | None) -> Tensor:
        half = self._size // 2
        if logits is None:
            return torch.zeros(1, 1, half, half, device=self.device)
        native = torch.from_numpy(np.ascontiguousarray(logits, np.float32)).to(self.device)[None, None]
        whole = pad(resize(native, placement.resized_shape), self._size, _OUTSIDE_LOGIT)
        return F.avg_pool2d(whole, 2)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device, torch.float32)


def _preferred(scores: Tensor, likelier: float) -> int:
    """The candidate to show: the first, which is the tightest, unless another's score is higher by `likelier`."""
    best = int(scores.argmax())
    return best if float(scores[best] - scores[0]) > likelier else 0


def build(
    card: ModelCard, weights: Mapping[str, Tensor] | None, *, seed: int, device: torch.device, dtype: torch.dtype
) -> ClickModel:
    """A ClickModel with `weights`, or with random ones drawn from `seed`. Raises UnreadableWeights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ClickNetwork(ClickConfig())
    if weights is not None:
        fill(network, weights, card.name)
    return ClickModel(card, network, device, dtype)
