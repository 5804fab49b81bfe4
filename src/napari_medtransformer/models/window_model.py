"""What automatic models of MONAI's kind share: scaling, windows of any size, and the patient's side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.blocks.patchembedding import PatchEmbeddingBlock
from torch import Tensor, nn

from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.sites import SiteSpec
from napari_medtransformer.attention.turn import Turn
from napari_medtransformer.errors import UnsupportedModel, UnsupportedVolume
from napari_medtransformer.models.base import AutomaticModel
from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.channels_last import use_channels_last
from napari_medtransformer.models.monai_attention import attention_sites
from napari_medtransformer.models.scaling import FixedRange, Scaling, ZScore

# (z, y, x) growing to Superior, Posterior, Left as (x, y, z) growing to Right, Anterior, Superior.
PATIENT_RAS = Turn((2, 1, 0), (False, True, True))

# Layers that MONAI 1.4 and later make in every transformer block and use only where text is attended to.
_UNUSED = ("norm_cross_attn.", "cross_attn.")
# What published checkpoints hold and no network of this kind uses: MONAI's ViT made a class token before 0.9.
_SURPLUS = ("vit.patch_embedding.cls_token", "vit.cls_token")


class WindowModel(AutomaticModel):
    """A network that maps windows (b, channels, z, y, x) to logits, behind the interface of automatic models.

    turn: how the network sees a window, where not as (z, y, x) growing to Superior, Posterior and Left; PATIENT_RAS of
    MONAI's published models.
    """

    def __init__(
        self,
        card: ModelCard,
        network: nn.Module,
        device: torch.device,
        dtype: torch.dtype,
        *,
        multiple: int,
        turn: Turn | None = None,
    ) -> None:
        if card.input.channels != 1:
            raise UnsupportedModel(
                f"{card.name} takes {card.input.channels} images at once, such as several MR sequences; a scan is one."
            )
        self.card = card
        self.network = use_channels_last(network.to(device).eval(), axes=3)
        self.device, self.dtype = device, dtype
        self.on_encode: list[Callable[[InputPlacement], None]] = []
        self.turn = turn
        self._multiple = multiple
        self._normalises = any(isinstance(m, (nn.InstanceNorm2d, nn.InstanceNorm3d)) for m in network.modules())
        self._scaling = scaling_of(card)

    @property
    def window_multiple(self) -> tuple[int, ...]:
        """A window of any axes that are multiples of this runs, the card's size or not."""
        return (self._multiple,) * len(self.card.input.size)

    @property
    def least_window(self) -> tuple[int, ...]:
        """Twice the multiple along one axis where the last layers would otherwise normalise a single number."""
        first, *others = self.window_multiple
        return (2 * first if self._normalises else first, *others)

    def normalisation(self, data: np.ndarray, modality: str) -> Callable[[np.ndarray], np.ndarray]:
        """How native intensities become the network's, learned once from the whole volume (z, y, x)."""
        return self._scaling.learned(data)

    @torch.inference_mode()
    def logits(self, windows: Tensor) -> Tensor:
        """Logits of a batch of windows: (b, channels, z, y, x) to (b, 1 + labels, z, y, x) float32.

        Raises UnsupportedVolume for axes that are no multiples of `window_multiple`, and for too small a window.
        """
        return self._logits(windows)

    @torch.enable_grad()
    def differentiable_logits(self, windows: Tensor) -> Tensor:
        """The same in a pass that keeps its graph for gradients."""
        return self._logits(windows)

    def _logits(self, windows: Tensor) -> Tensor:
        odd = [n for n in windows.shape[2:] if n % self._multiple or n < self._multiple]
        if odd or windows.ndim != 5:
            raise UnsupportedVolume(
                f"{self.card.name} takes windows whose axes are multiples of {self._multiple}, not "
                f"{tuple(windows.shape[2:])}; pad them."
            )
        if self._normalises and all(n == self._multiple for n in windows.shape[2:]):
            raise UnsupportedVolume(
                f"{self.card.name} takes windows of more than {self._multiple} voxels along at least one axis; use a "
                "larger one."
            )
        inputs = windows.to(self.device, torch.float32)
        if self.turn is not None:
            inputs = self.turn.to_network(inputs)
        # Parameters stay float32; whoever wants another number format around it opens that autocast outside.
        with self.autocast():
            found: Tensor = self.network(inputs.contiguous())
        if self.turn is not None:
            found = self.turn.to_image(found)
        return found.float()

    def attention_sites(self) -> list[SiteSpec]:
        """Every attention site of the network, in the order in which they run, its tokens where they lie in a window.

        Raises UnsupportedModel for a network without a ViT or Swin transformer of MONAI.
        """
        sites = attention_sites(self.network)
        if self.turn is None:
            return sites
        return [replace(s, queries=s.queries.seen_turned(self.turn), keys=s.keys.seen_turned(self.turn)) for s in sites]


def scaling_of(card: ModelCard) -> Scaling:
    """A fixed range where the card names one, else the volume's own mean and deviation."""
    return ZScore() if card.input.clip is None else FixedRange(*card.input.clip)


def own_names(weights: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """A published checkpoint's tensors under the names and shapes of this MONAI's network.

    Surplus tensors of older releases go, layers that newer ones make and never use come from the network, the MLP's
    layers of the first SwinUNETR release are renamed.
    """
    state = {name: value for name, value in weights.items() if not name.endswith(_SURPLUS)}
    state = {name.replace(".mlp.fc1.", ".mlp.linear1.").replace(".mlp.fc2.", ".mlp.linear2."): v
             for name, v in state.items()}  # fmt: skip
    for name, value in network.state_dict().items():
        if name not in state and any(part in name for part in _UNUSED):
            state[name] = value
    return state


class AnySizePatchEmbedding(PatchEmbeddingBlock):
    """MONAI's patch embedding for windows of any size: learned positions are interpolated to the window's grid.

    Dosovitskiy et al. 2021, section 3.2. `trained_grid`: tokens per axis of the window that the positions belong to.
    """

    trained_grid: tuple[int, ...]
    patch: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, channels, *window). Returns (b, tokens, hidden)."""
        grid = tuple(n // p for n, p in zip(x.shape[2:], self.patch, strict=True))
        tokens = self.patch_embeddings(x)
        if self.proj_type == "conv":
            tokens = tokens.flatten(2).transpose(-1, -2)
        positions = self.position_embeddings
        if grid != self.trained_grid:
            spatial = positions.float().transpose(1, 2).reshape(1, -1, *self.trained_grid)
            spatial = F.interpolate(spatial, size=grid, mode="trilinear", align_corners=False)
            positions = spatial.flatten(2).transpose(1, 2).to(tokens.dtype)
        embedded: Tensor = self.dropout(tokens + positions)
        return embedded


def allow_any_size(embedding: nn.Module, window: tuple[int, ...], patch: tuple[int, ...]) -> None:
    """Make a MONAI patch embedding take windows of any size; parameters and names stay as they are."""
    embedding.__class__ = AnySizePatchEmbedding
    embedding.trained_grid = tuple(n // p for n, p in zip(window, patch, strict=True))  # type: ignore[assignment]
    embedding.patch = patch  # type: ignore[assignment]
