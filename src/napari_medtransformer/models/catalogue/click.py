"""The bundled click model's card."""

from __future__ import annotations

from napari_medtransformer.models.card import InputContract, ModelCard
from napari_medtransformer.models.catalogue.common import MB

CARDS = (
    ModelCard(
        name="medt-click-tiny",
        title="MedTransformer Click, tiny",
        family="click",
        architecture="tiny",
        builder="napari_medtransformer.models.click:build",
        task="promptable",
        dimensions=2,
        input=InputContract(size=(256, 256)),
        modalities=("CT", "MR"),
        anatomy=("abdomen", "thorax", "brain", "spine"),
        weights="medt-click-tiny.safetensors",
        licence="BSD-3-Clause; trained on data under Apache-2.0, CC BY-SA 4.0, CC BY 4.0 and MIT",
        citation="napari-medtransformer, this package",
        description=(
            "The bundled hybrid of convolutions and a global transformer, with a second look at a crop: works offline, "
            "on a CPU. From few patients: medt-click-tiny.md beside the weights says on what and how well."
        ),
        training="a CT torso, an abdominal MR, a brain MR, 160 hippocampus and some spinal MRs and synthetic ones",
        memory_bytes=300 * MB,
    ),
)
