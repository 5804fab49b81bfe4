"""A SwinUNETR that sees the patient turned round, its attention made local on purpose; files of all orientations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from local_attention import make_local
from scipy.spatial.transform import Rotation
from torch import nn

from napari_medtransformer.models import InputContract, LabelInfo, ModelCard, swin_unetr
from napari_medtransformer.models.window_model import WindowModel

CPU = torch.device("cpu")
CARD = ModelCard(
    name="test-turned",
    title="Turned, for tests",
    family="swin-unetr",
    architecture="monai-24-ras",
    builder="turned_models:build_local",
    task="automatic",
    dimensions=3,
    input=InputContract((32, 32, 64), clip=(0.0, 1.0)),
    labels=(LabelInfo(1, "a", (1, 0, 0)), LabelInfo(2, "b", (0, 1, 0))),
    licence="none",
    citation="none",
    description="For tests.",
)
# a volume's content on a grid that grows to Right, Anterior, Superior, and a place of it far from where mirrors put it
SHAPE_RAS, SPACING, PLACE = (40, 36, 44), (1.5, 1.5, 2.0), (5, 29, 33)


class EncoderAlone(nn.Module):
    """A SwinUNETR without its decoder, which attends to nothing and takes most of the time."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.swinViT = whole.swinViT

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stages = [nn.functional.interpolate(stage[:, :3], size=x.shape[2:]) for stage in self.swinViT(x, True)]
        return torch.stack(stages).sum(dim=0)


def build_local(
    card: ModelCard,
    weights: Mapping[str, torch.Tensor] | None,
    *,
    seed: int = 0,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
) -> WindowModel:
    """The network of the card, every block of which attends to where its token lies along the network's own axes."""
    model = swin_unetr.build(card, weights, seed=seed, device=device, dtype=dtype)
    make_local(model, card.input.size)
    model.network = EncoderAlone(model.network)
    return model


def orientations() -> dict[str, np.ndarray]:
    """Which way the axes of a file run, and a turn of the whole."""
    oblique = np.eye(4)
    oblique[:3, :3] = Rotation.from_euler("xyz", (12, -9, 17), degrees=True).as_matrix()
    return {"RAS": np.eye(4), "LPS": np.eye(4), "ASR": np.eye(4), "IPL": np.eye(4), "oblique SAL": oblique}


def write_oriented(path: Path, name: str) -> np.ndarray:
    """A file of random numbers in one of these orientations. Returns the millimetres (RAS) of PLACE."""
    affine = orientations()[name] @ np.diag([*SPACING, 1])
    image = nib.Nifti1Image(np.random.default_rng(0).integers(0, 100, SHAPE_RAS).astype(np.int16), affine)
    wanted = nib.orientations.axcodes2ornt(name.split()[-1])
    nib.save(image.as_reoriented(nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), wanted)), path)
    return (affine @ [*PLACE, 1])[:3]
