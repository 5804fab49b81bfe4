"""What every model offers, whatever its family: promptable ones answer prompts, automatic ones label windows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.sites import SiteSpec
from napari_medtransformer.errors import UnsupportedModel
from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.smaller import fits_in_memory

if TYPE_CHECKING:
    from napari_medtransformer.models.following import Follower


@dataclass(frozen=True)
class Prompts:
    """Prompts for one object on one image, in native pixels; an integer is a pixel's centre.

    points_yx: (n, 2) float32. point_labels: (n,) int64, 1 inside, 0 outside. box: (y0, x0, y1, x1), half-open.
    mask_logits: (H, W) float32, the logits of an earlier prediction to refine.
    """

    points_yx: np.ndarray
    point_labels: np.ndarray
    box: tuple[float, float, float, float] | None = None
    mask_logits: np.ndarray | None = None


@dataclass(frozen=True)
class PromptToken:
    """One token of the prompt side of a decoder. name: what a user reads, such as "point 2".

    yx: the native pixel it stands for, None for the network's own tokens and for empty places.
    """

    name: str
    yx: tuple[float, float] | None = None


@dataclass(frozen=True)
class ImageEmbedding:
    """One encoded image: the network's features (family-specific tensors) and where the image lies in its input."""

    features: tuple[torch.Tensor, ...]
    placement: InputPlacement


@dataclass(frozen=True)
class MaskPrediction:
    """Candidate masks of an object. logits: (m, H, W) float32, native pixels, inside > 0. scores: (m,) expected IoU."""

    logits: np.ndarray
    scores: np.ndarray


class LoadedModel(ABC):
    """What every model has once it is loaded.

    `network` is the torch module that runs; `on_encode` is called with the placement of every image, crop or window
    before it runs, which is how a probe learns where tokens lie. Parameters are float32; `dtype` is what the network's
    matrix products run in, under autocast. `on_smaller` is told when memory runs out and a smaller plan is taken;
    without one it is a warning.
    """

    card: ModelCard
    network: torch.nn.Module
    device: torch.device
    dtype: torch.dtype
    on_encode: list[Callable[[InputPlacement], None]]
    on_smaller: Callable[[str], None] | None = None

    def autocast(self) -> AbstractContextManager[object]:
        """The context that the network runs in, by `dtype`."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @abstractmethod
    def attention_sites(self) -> list[SiteSpec]:
        """Every attention site of the network, encoder first, in the order in which they run."""


class EncodingModel(LoadedModel):
    """A model that encodes once and answers many prompts.

    Where memory runs out, `encode` and `decode` of every adapter move the model to a smaller plan and run again (see
    `smaller`): both read `device` and `dtype` each time.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = {name: method for name, method in vars(cls).items() if not getattr(method, "__isabstractmethod__", False)}
        if "encode" in own:
            cls.encode = fits_in_memory(own["encode"])  # type: ignore[attr-defined]
        if "decode" in own:
            cls.decode = fits_in_memory(_follows_the_model(own["decode"]))  # type: ignore[attr-defined]


def _follows_the_model(decode: Callable[..., Any]) -> Callable[..., Any]:
    """A decoder that takes embeddings from where its model was before it was moved."""

    @wraps(decode)
    def following(self: EncodingModel, embedding: Any, prompts: Any) -> Any:
        if any(feature.device != self.device for feature in embedding.features):
            embedding = replace(embedding, features=tuple(f.to(self.device) for f in embedding.features))
        return decode(self, embedding, prompts)

    return following


class PromptableModel(EncodingModel):
    """A segmentation transformer that answers prompts on a 2D image."""

    refines = False
    """Whether prompts are answered better with the mask that they correct, and strokes with what they cover."""

    @abstractmethod
    def placement(self, native_shape: tuple[int, int], pixel_size: tuple[float, float] = (1.0, 1.0)) -> InputPlacement:
        """Where an image of (H, W) native pixels lies in the network's input.

        pixel_size: (y, x) size of a pixel, in any unit: anatomy keeps its proportions where pixels are no squares.
        """

    @abstractmethod
    def encode(self, image: np.ndarray, pixel_size: tuple[float, float] = (1.0, 1.0)) -> ImageEmbedding:
        """Encode one image. image: (H, W) float32 in [0, 1], already windowed. pixel_size: as for `placement`."""

    @abstractmethod
    def decode(self, embedding: ImageEmbedding, prompts: Prompts) -> MaskPrediction:
        """Predict the candidate masks of one object; best score first is not promised."""

    def differentiable_logits(
        self, image: np.ndarray, pixel_size: tuple[float, float], prompts: Prompts
    ) -> torch.Tensor:
        """The candidates' logits (m, H, W) of encoding and decoding in one pass that keeps its graph for gradients.

        Raises UnsupportedModel where a family offers no gradients.
        """
        raise UnsupportedModel(
            f"{self.card.name} offers no gradients here; look at its attention, or switch heads off."
        )

    def follower(self) -> Follower | None:
        """What follows one object through slices in one direction by means of the family's own; a new one each time.

        None: it has none, and every slice is encoded and prompted with the mask of the slice before.
        """
        return None

    def prompt_tokens(self, prompts: Prompts) -> tuple[PromptToken, ...]:
        """The tokens that these prompts become in the decoder, in its order; empty where a family cannot tell."""
        return ()


class AutomaticModel(LoadedModel):
    """A segmentation transformer that names the structures in windows of a volume, without prompts.

    The card says the window (input.size, (z, y, x) or (y, x) for models that work slice by slice), the voxel size it
    was trained for and the labels: class i of the logits is card.labels[i - 1], class 0 is background.
    """

    @property
    def window_multiple(self) -> tuple[int, ...] | None:
        """Windows of any axes that are multiples of this run as well as the card's; None: the card's size alone."""
        return None

    @property
    def least_window(self) -> tuple[int, ...] | None:
        """The smallest window that is tried when memory runs out; None where only the card's size runs."""
        return self.window_multiple

    @abstractmethod
    def normalisation(self, data: np.ndarray, modality: str) -> Callable[[np.ndarray], np.ndarray]:
        """How native intensities become the network's, learned once from the whole volume (z, y, x).

        The function returned maps any part of the volume, (z, y, x), to (channels, z, y, x) float32; the same voxels
        come out the same whatever part they are given in.
        """

    @abstractmethod
    def logits(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of windows: (b, channels, *window) to (b, 1 + labels, *window) float32."""

    def differentiable_logits(self, windows: torch.Tensor) -> torch.Tensor:
        """The same in a pass that keeps its graph for gradients. Raises UnsupportedModel where a family offers none."""
        raise UnsupportedModel(f"{self.card.name} offers no gradients here; look at its attention instead.")


def box_tokens(box: tuple[float, float, float, float]) -> tuple[PromptToken, PromptToken]:
    """The two corner tokens of a half-open box (y0, x0, y1, x1), at the pixels that it holds."""
    y0, x0, y1, x1 = box
    return PromptToken("box, upper left", (y0, x0)), PromptToken("box, lower right", (y1 - 1, x1 - 1))


def point_tokens(prompts: Prompts) -> list[PromptToken]:
    """A token per point, named by its number from 1 and its sign."""
    labels = np.asarray(prompts.point_labels).tolist()
    places = np.asarray(prompts.points_yx, float).reshape(-1, 2).tolist()
    return [
        PromptToken(f"point {i} ({'+' if label else '−'})", (y, x))
        for i, (label, (y, x)) in enumerate(zip(labels, places, strict=True), start=1)
    ]


Model = PromptableModel | AutomaticModel
