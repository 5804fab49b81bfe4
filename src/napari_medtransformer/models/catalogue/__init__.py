"""The models this package knows by itself, one file of cards per family."""

from __future__ import annotations

from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.catalogue import automatic, click, sam, sam2, sam_med3d, scenes

CARDS: tuple[ModelCard, ...] = (
    *click.CARDS,
    *automatic.CARDS,
    *sam.CARDS,
    *sam2.CARDS,
    *sam_med3d.CARDS,
    *scenes.CARDS,
)
