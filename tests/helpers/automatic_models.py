"""Small real networks behind the interface of automatic models."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_medtransformer.models import InputContract, LabelInfo, ModelCard
from napari_medtransformer.models.compact import CompactConfig, CompactSwinUNETR, CompactUNETR
from napari_medtransformer.models.monai_attention import use_fused_attention
from napari_medtransformer.models.window_model import WindowModel


def make_card(
    window: tuple[int, ...],
    *,
    values: tuple[int, ...] = (1, 2),
    spacing_mm: tuple[float, ...] | None = None,
    modalities: tuple[str, ...] = (),
    air_below: float | None = None,
    memory_bytes: int | None = None,
    clip: tuple[float, float] | None = None,
    extent_mm: tuple[float, ...] | None = None,
) -> ModelCard:
    """A card of an automatic model."""
    return ModelCard(
        name="test-automatic",
        title="For tests",
        family="swin-unetr",
        builder="napari_medtransformer.models.swin_unetr:build",
        task="automatic",
        dimensions=len(window),
        input=InputContract(window, spacing_mm=spacing_mm, clip=clip, extent_mm=extent_mm),
        licence="BSD-3-Clause",
        citation="none",
        description="For tests.",
        modalities=modalities,
        labels=tuple(LabelInfo(value, f"structure {value}", (1.0, 0.5, 0.0)) for value in values),
        air_below=air_below,
        memory_bytes=memory_bytes,
    )


def make_model(network: nn.Module, card: ModelCard, *, multiple: int = 8) -> WindowModel:
    """A network as an automatic model on the CPU."""
    return WindowModel(card, network, torch.device("cpu"), torch.float32, multiple=multiple)


class Threshold(nn.Module):
    """Answers with its input: class 1 where it lies above `level`, independent of neighbours."""

    def __init__(self, level: float = 0.5, classes: int = 2) -> None:
        super().__init__()
        self.level, self.classes = level, classes
        self.identity = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inside = self.identity(x[:, :1]) - self.level
        return torch.cat([-inside, inside, *[torch.full_like(inside, -9.0)] * (self.classes - 2)], dim=1)


def swin_network(seed: int = 0, classes: int = 3, window: tuple[int, int, int] = (16, 16, 16)) -> nn.Module:
    """A SwinUNETR of this package's compact kind, its attention fused."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return use_fused_attention(CompactSwinUNETR(CompactConfig("swin-unetr", classes, window, width=8))).eval()


def unetr_network(seed: int = 0, classes: int = 3, window: tuple[int, int, int] = (16, 16, 16)) -> nn.Module:
    """A UNETR of this package's compact kind, its attention fused."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = CompactConfig("unetr", classes, window, width=8, hidden=48, layers=3, heads=3)
        return use_fused_attention(CompactUNETR(config)).eval()
