"""An example of a model from another package; the entry point in pyproject.toml names CARD."""

from pathlib import Path

from napari_medtransformer.models import InputContract, ModelCard

CARD = ModelCard(
    name="example-grey",
    title="Example: what is as grey",
    family="example",
    builder="medt_example.model:build",
    task="promptable",
    dimensions=2,
    input=InputContract(size=(128, 128)),
    modalities=("CT", "MR"),
    weights=Path(__file__).parent / "example-grey.safetensors",
    licence="BSD-3-Clause",
    citation="the example package of napari-medtransformer",
    description="Finds what is as grey as the clicked place. An example of the interface, not of good segmentation.",
    training="none: its weights were written down",
    memory_bytes=50_000_000,
)
