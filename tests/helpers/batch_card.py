"""The card of a model that is made in no time, for commands that run it in processes of their own."""

from __future__ import annotations

from napari_medtransformer.models import InputContract, LabelInfo, ModelCard

CARD = ModelCard(
    name="test-batch",
    title="For tests",
    family="swin-unetr",
    architecture="compact",
    builder="napari_medtransformer.models.swin_unetr:build",
    task="automatic",
    dimensions=3,
    input=InputContract((24, 24, 24), spacing_mm=(1.0, 1.0, 1.0)),
    licence="BSD-3-Clause",
    citation="none",
    description="For tests; its weights are random.",
    labels=(LabelInfo(1, "head", (1, 0, 0)), LabelInfo(2, "tail", (0, 1, 0))),
)
